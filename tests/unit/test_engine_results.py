"""A run as its users see it, and what a run's failure is called."""

from typing import Any

import pytest

from agentforge.engine.output import checked_output
from agentforge.engine.results import event_json, tool_calls_of
from agentforge.errors.runs import OutputMismatch
from agentforge.store import Event, RunId

RUN = RunId("r1")


def event(seq: int, kind: str, attempt: int = 1, **data: Any) -> Event:
    """Return an event of the run."""
    return Event(RUN, seq, attempt, kind, 1_700_000_000.5, data)


def test_tool_calls_come_in_the_order_of_the_calls_and_failed_ones_say_why() -> None:
    events = [
        event(1, "tool.called", call_id="tool-1", name="slow", arguments={"a": 1}),
        event(2, "tool.called", call_id="tool-2", name="quick", arguments={}),
        event(3, "tool.returned", call_id="tool-2", name="quick", result=None),
        event(4, "tool.called", call_id="tool-3", name="bad", arguments={}),
        event(5, "tool.failed", call_id="tool-3", name="bad", error={"code": "AF603", "message": "no"}),
        event(6, "tool.returned", call_id="tool-1", name="slow", result=[1]),
        event(7, "tool.called", call_id="tool-4", name="lost", arguments={}),
    ]
    assert tool_calls_of(events) == [
        {"name": "slow", "arguments": {"a": 1}, "result": [1]},
        {"name": "quick", "arguments": {}, "result": None},
        {"name": "bad", "arguments": {}, "error": "no"},
        {"name": "lost", "arguments": {}},
    ]


def test_a_call_that_a_second_attempt_made_again_is_one_call() -> None:
    events = [
        event(1, "tool.called", 1, call_id="a-0", name="f", arguments={}),
        event(2, "tool.called", 2, call_id="a-0", name="f", arguments={}),
        event(3, "tool.returned", 2, call_id="a-0", name="f", result=1),
        event(4, "tool.called", 2, call_id="a-1", name="f", arguments={}),
    ]
    assert tool_calls_of(events) == [{"name": "f", "arguments": {}, "result": 1}, {"name": "f", "arguments": {}}]


def test_calls_of_a_way_that_the_run_has_left_do_not_count() -> None:
    events = [
        event(1, "tool.called", 1, call_id="a-0", name="f", arguments={}),
        event(2, "tool.returned", 1, call_id="a-0", name="f", result=1),
        event(3, "tool.called", 1, call_id="b-0", name="g", arguments={}),
        event(4, "tool.returned", 1, call_id="b-0", name="g", result=2),
        event(5, "checkpoint.restored", 1, effect=0, until=2, voided=1),
    ]
    assert tool_calls_of(events) == [{"name": "f", "arguments": {}, "result": 1}]


def test_an_event_shows_its_time_in_utc() -> None:
    shown = event_json(event(3, "log.written", text="x"))
    assert shown["at"] == "2023-11-14T22:13:20.500Z"
    assert (shown["seq"], shown["kind"], shown["data"]) == (3, "log.written", {"text": "x"})


@pytest.mark.parametrize(
    ("output", "schema", "value"),
    [
        ("text", None, "text"),
        ({"a": 1}, None, {"a": 1}),
        ('{"a": 1}', {"type": "object"}, {"a": 1}),
        ({"a": 1}, {"type": "object"}, {"a": 1}),
        ("7", {"type": "integer"}, 7),
        ("seven", {"type": "string"}, "seven"),
        ("7", {"type": "string"}, "7"),
    ],
)
async def test_an_answer_becomes_the_value_that_its_schema_describes(output: Any, schema: Any, value: Any) -> None:
    assert await checked_output(output, schema) == value


@pytest.mark.parametrize(
    ("output", "schema", "words"),
    [
        ("seven", {"type": "integer"}, "`seven`"),
        ('{"a": "x"}', {"properties": {"a": {"type": "number"}}, "type": "object"}, "`$.a`"),
        (None, {"type": "object"}, "`$`"),
    ],
)
async def test_an_answer_that_does_not_match_names_the_place(output: Any, schema: Any, words: str) -> None:
    with pytest.raises(OutputMismatch) as raised:
        await checked_output(output, schema)
    assert words in raised.value.message
