"""What a run may write: counted over its events, its result and its requests."""

from typing import Any

import pytest

from agentforge.engine.allowance import Allowance, Backlog, size_of
from agentforge.errors.sandbox import OutputExceeded
from agentforge.sandbox import Limits

MIB = 1 << 20


def allowance(events: int = 0, **limits: int) -> tuple[Allowance, list[OutputExceeded]]:
    told: list[OutputExceeded] = []
    made = Allowance(told.append, events)
    made.limits = Limits(**{"events": 10, "output_mib": 1, **limits})
    return made, told


def test_events_are_counted_to_their_limit() -> None:
    made, told = allowance()
    assert [made.take(1) for _ in range(12)] == [True] * 10 + [False] * 2
    assert told[0].code == "AF447"
    assert "limit of 10" in told[0].message


def test_events_of_earlier_hosts_count() -> None:
    made, _ = allowance(events=9)
    assert [made.take(1) for _ in range(2)] == [True, False]


def test_bytes_are_counted_to_their_limit() -> None:
    made, told = allowance()
    assert made.take(MIB)
    assert not made.take(1)
    assert "1 MiB" in told[0].message


def test_a_result_counts_together_with_the_events() -> None:
    made, told = allowance()
    made.take(MIB // 2)
    made.take_result("x" * (MIB // 3))
    with pytest.raises(OutputExceeded):
        made.take_result("x" * (MIB // 3))
    assert told == []  # it is raised where the result is


def test_requests_to_models_may_take_more_but_not_any_amount() -> None:
    made, told = allowance()
    assert [made.take_request(MIB) for _ in range(17)] == [True] * 16 + [False]
    assert len(told) == 1


def test_a_full_backlog_says_so() -> None:
    backlog = Backlog(100)
    backlog.bytes += 101
    assert backlog.full
    backlog.bytes -= 1
    assert not backlog.full


@pytest.mark.parametrize("value", [None, "text", {"a": [1, 2.5, "\u00e9"]}, "\ud800"])
def test_sizes_are_those_of_the_json(value: Any) -> None:
    assert size_of(value) >= len(str(value)) - 4
