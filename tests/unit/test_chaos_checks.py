"""What the chaos benchmark checks: a run without fault passes, each planted fault is found and called by its kind."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from chaos_trials.checks import LOST, REPEATED, WRONG, faults_of, faults_of_keys
from chaos_trials.hits import Hit, hits_of
from chaos_trials.records import Kill, RunRecord
from chaos_trials.sightings import Line
from chaos_trials.story import ASKED, TOOL_STEPS, Story

START = 1_700_000_000.0
STORY = Story("order-000002", 2)
BOOKED, NOTED = 2, 3
"""Steps of its tools: `book` must not be repeated, `note` may be."""


class Telling:
    """Makes the record of a run: one second from event to event."""

    def __init__(self) -> None:
        self.record = RunRecord(STORY, "python", START, run_id="r1")
        self.now = START
        self.effects = 0
        self.tell("run.started")
        self.tell("attempt.started", pid=7)

    def tell(self, kind: str, **data: Any) -> None:
        """Add an event."""
        self.now += 1
        at = datetime.fromtimestamp(self.now, UTC).isoformat(timespec="milliseconds")
        seq = len(self.record.events) + 1
        self.record.events.append({"seq": seq, "attempt": 1, "kind": kind, "at": at, "data": data})

    def effect(self, kind: str, **data: Any) -> None:
        """Add the event of an effect."""
        self.tell(kind, effect=self.effects, **data)
        self.record.journal.append(("model" if kind == "model.responded" else "tool", self.effects, False))
        self.effects += 1

    def model(self, step: int) -> None:
        """Add a model call."""
        self.record.requests.append((step, self.now + 0.5))
        self.effect("model.responded")

    def tool(self, step: int) -> None:
        """Add a tool call."""
        named = {"call_id": f"c{step}", "request_hash": f"h{step}", "occurrence": 0}
        self.tell("tool.called", arguments={"step": step}, **named)
        line = Line(STORY.label, step, f"key-{step}", 9, STORY.tool(step), self.now + 0.5)
        self.record.lines.append(line)
        self.effect("tool.returned", call_id=f"c{step}")


def told() -> RunRecord:
    """Return the record of a run without fault."""
    telling = Telling()
    for step, asked in ASKED.items():
        telling.model(step)
        for tool_step in asked:
            telling.tool(tool_step)
    telling.tell("run.finished")
    calls = [
        {"name": STORY.tool(step), "arguments": {"run": STORY.label, "step": step}, "result": STORY.value(step)}
        for step in range(1, TOOL_STEPS + 1)
    ]
    telling.record.result = {"status": "succeeded", "output": STORY.output, "tool_calls": calls, "model_calls": 5}
    return telling.record


def again(record: RunRecord, step: int, after_s: float) -> None:
    """Have a tool run once more."""
    line = next(line for line in record.lines if line.step == step)
    record.lines.append(Line(line.run, step, line.idempotency_key, 10, line.tool, line.at + after_s))


def ended(record: RunRecord) -> None:
    record.result = {"status": "failed", "error": {"code": "AF706", "message": "gone"}}


def asked_again(record: RunRecord) -> None:
    record.requests.append((2, record.requests[1][1] + 5))


def asked_twice(record: RunRecord) -> None:
    record.requests.insert(1, (2, record.requests[1][1] - 0.1))


def asked_after_the_tool(record: RunRecord) -> None:
    record.requests.insert(2, (2, record.lines[1].at + 0.1))


def called_after_the_next_request(record: RunRecord) -> None:
    again(record, NOTED, record.requests[2][1] - record.lines[2].at + 0.1)


def other_output(record: RunRecord) -> None:
    record.result["output"] = STORY.output.replace(STORY.value(3), STORY.value(4))


def result_missing(record: RunRecord) -> None:
    record.result["tool_calls"].pop()


def never_called(record: RunRecord) -> None:
    record.lines = [line for line in record.lines if line.step != 4]


def other_key(record: RunRecord) -> None:
    again(record, NOTED, 0.1)
    last = record.lines.pop()
    record.lines.append(Line(last.run, last.step, "another", last.pid, last.tool, last.at))


def gap_in_events(record: RunRecord) -> None:
    del record.events[3]


def diverged(record: RunRecord) -> None:
    record.events.insert(-1, {**record.events[-1], "kind": "replay.diverged"})


def voided(record: RunRecord) -> None:
    record.journal[4] = (*record.journal[4][:2], True)


PLANTED: list[tuple[Callable[[RunRecord], None], str, str]] = [
    (ended, LOST, "ended as failed: AF706"),
    (lambda record: record.result.clear(), LOST, "ended as None"),
    (asked_again, REPEATED, "after its answer was committed"),
    (asked_twice, REPEATED, "2 times without a kill in between"),
    (lambda record: again(record, BOOKED, 0.1), REPEATED, "may not be repeated and ran 2 times"),
    (lambda record: again(record, NOTED, 5), REPEATED, "after its result was committed"),
    (lambda record: again(record, NOTED, 0.1), REPEATED, "2 times without a kill in between"),
    (asked_after_the_tool, REPEATED, "model call 2 reached the model again after its answer was acted on"),
    (called_after_the_next_request, REPEATED, "tool call 3 ran again after its result was acted on"),
    (other_output, WRONG, "the output is"),
    (result_missing, WRONG, "the result's tool calls are"),
    (never_called, WRONG, "left no line"),
    (other_key, WRONG, "several idempotency keys"),
    (gap_in_events, WRONG, "have gaps"),
    (diverged, WRONG, "1 times a replay diverged"),
    (voided, WRONG, "the journal holds"),
    (lambda record: record.trouble.append("odd"), WRONG, "odd"),
]


def test_a_run_without_fault_passes() -> None:
    assert faults_of(told(), []) == []


@pytest.mark.parametrize(("plant", "kind", "said"), PLANTED)
def test_a_planted_fault_is_found(plant: Callable[[RunRecord], None], kind: str, said: str) -> None:
    record = told()
    plant(record)
    assert any(found == kind and said in text for found, text in faults_of(record, [])), faults_of(record, [])


def hit(record: RunRecord, kind: Any, at: float) -> Hit:
    """Return how a kill hit a run."""
    found = hits_of(Kill(1, kind, "delay", "python", record.label, at, (7,)), record)
    assert found is not None
    return found


def test_what_was_in_flight_at_a_kill_may_come_again() -> None:
    record = told()
    asked_twice(record)
    again(record, NOTED, 0.1)
    times = [at for step, at in record.requests if step == 2]
    tool_at = next(line.at for line in record.lines if line.step == NOTED)
    hits = [hit(record, "host", times[0] + 0.05), hit(record, "host", tool_at + 0.05)]
    assert faults_of(record, hits) == []
    assert faults_of(record, hits[:1]) != []
    tools_only = hit(record, "tools", tool_at + 0.05)  # the end of a tool's process repeats no model call
    assert [text for _, text in faults_of(record, [tools_only])] == [
        "model call 2 reached the model 2 times without a kill in between"
    ]


def test_a_result_that_a_human_gave_is_an_effect() -> None:
    record = told()
    event = next(each for each in record.events if each["data"].get("call_id") == "c2" and "effect" in each["data"])
    event["kind"] = "interrupt.answered"
    event["data"] = {"effect": event["data"]["effect"], "request_hash": "h2", "occurrence": 0}
    assert faults_of(record, []) == []
    again(record, BOOKED, 5)
    assert (REPEATED, "tool call 2 may not be repeated and ran 2 times") in faults_of(record, [])


def test_a_hit_says_where_the_run_stood() -> None:
    record = told()
    committed = START + 3  # the first model call's answer
    assert hits_of(Kill(1, "worker", "delay", "python", record.label, committed, (8,)), record) is None
    assert hits_of(Kill(1, "host", "delay", "python", record.label, START + 100, (1,)), record) is None
    early, gap = hit(record, "worker", committed - 0.7), hit(record, "host", committed + 0.2)
    assert (early.finished, early.halfway, early.gap) == (0, False, False)
    assert (gap.finished, gap.remaining, gap.halfway, gap.gap, gap.certain) == (1, 9, True, True, False)
    assert not hit(record, "host", committed + 1.1).gap  # the tool was called by then
    frozen = Kill(1, "both", "commit", "python", record.label, committed + 0.2, (1, 7), 7, committed - 0.1)
    dawdling = Kill(1, "host", "commit", "python", record.label, committed + 0.02, (1,), host_delay_ms=30)
    late = Kill(1, "host", "commit", "python", record.label, committed + 0.2, (1,), host_delay_ms=30)
    found = [hits_of(kill, record) for kill in (frozen, dawdling, late)]
    assert [each.certain for each in found if each] == [True, True, False]


def test_keys_of_two_calls_must_differ() -> None:
    assert faults_of_keys({"a": {("x", 1)}, "b": {("x", 2)}}) == []
    assert len(faults_of_keys({"a": {("x", 1), ("y", 1)}})) == 1
