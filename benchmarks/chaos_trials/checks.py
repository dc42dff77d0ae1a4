"""What must hold of each run, whatever was killed: checked against what happened outside of AgentForge."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from chaos_trials.hits import Hit
from chaos_trials.records import DYING_S, RunRecord, is_effect, time_of
from chaos_trials.story import ASKED, EFFECTS, MODEL_STEPS, TOOL_STEPS

__all__ = ["LOST", "REPEATED", "WRONG", "Fault", "faults_of", "faults_of_keys"]

LOST, REPEATED, WRONG = "lost", "repeated", "wrong"
Fault = tuple[str, str]
"""Its kind and what it is."""
_CLOCK_S = 0.002
"""Times of events are cut to milliseconds."""


def faults_of(record: RunRecord, hits: Sequence[Hit]) -> list[Fault]:
    """Return what is wrong with a run; `hits` are the kills that hit it."""
    lost = _lost(record)
    if lost:
        return lost
    return [
        *((WRONG, each) for each in record.trouble),
        *_wrong_result(record),
        *_wrong_records(record),
        *_repeated_requests(record, [hit.at for hit in hits if hit.kind != "tools"]),
        *_repeated_tools(record, [hit.at for hit in hits]),
        *_acted_on(record),
    ]


def faults_of_keys(keys: Mapping[str, set[tuple[str, int]]]) -> list[Fault]:
    """Return which idempotency keys were given to more than one call."""
    return [(WRONG, f"one idempotency key for the calls {sorted(calls)}") for calls in keys.values() if len(calls) > 1]


def _lost(record: RunRecord) -> list[Fault]:
    status = record.result.get("status")
    if status == "succeeded":
        return []
    error = record.result.get("error") or {}
    said = f"{error.get('code')} {error.get('message')}" if error else "; ".join(record.trouble)
    return [(LOST, f"ended as {status}: {said}")]


def _wrong_result(record: RunRecord) -> Iterable[Fault]:
    story, result = record.story, record.result
    if result["output"] != story.output:
        yield WRONG, f"the output is {result['output']!r}, not {story.output!r}"
    right = Counter((story.tool(step), story.label, step, story.value(step)) for step in range(1, TOOL_STEPS + 1))
    told = Counter(
        (call["name"], call["arguments"].get("run"), call["arguments"].get("step"), call.get("result"))
        for call in result["tool_calls"]
    )
    if told != right:
        yield WRONG, f"the result's tool calls are {result['tool_calls']}"
    if result["model_calls"] != MODEL_STEPS:
        yield WRONG, f"the result tells of {result['model_calls']} model calls"


def _wrong_records(record: RunRecord) -> Iterable[Fault]:
    numbers = [event["seq"] for event in record.events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield WRONG, "the events' numbers have gaps or repeat"
    kinds = Counter(event["kind"] for event in record.events)
    for kind, count in (("model.responded", MODEL_STEPS), ("run.finished", 1)):
        if kinds[kind] != count:
            yield WRONG, f"there are {kinds[kind]} events {kind}"
    results = [event["kind"] for event in record.events if is_effect(event) and event["kind"] != "model.responded"]
    if len(results) != TOOL_STEPS:
        yield WRONG, f"there are {len(results)} events of tool results: {results}"
    if kinds["replay.diverged"]:
        yield WRONG, f"{kinds['replay.diverged']} times a replay diverged"
    places = [event["data"].get("effect") for event in record.events if is_effect(event)]
    if len(set(places)) != len(places):
        yield WRONG, f"effects share places: {places}"
    done = Counter(kind for kind, _, voided in record.journal if kind in ("model", "tool") and not voided)
    if record.journal and (done["model"], done["tool"]) != (MODEL_STEPS, EFFECTS - MODEL_STEPS):
        yield WRONG, f"the journal holds {dict(done)}"


def _repeated_requests(record: RunRecord, kills: Sequence[float]) -> Iterable[Fault]:
    """A request may come again only if a kill hit the run while it was open; never once its answer is committed."""
    committed = [time_of(event) for event in record.events if event["kind"] == "model.responded"]
    for step in range(1, MODEL_STEPS + 1):
        times = [at for number, at in record.requests if number == step]
        if not times:
            yield WRONG, f"model call {step} never reached the model"
        elif step <= len(committed) and times[-1] > committed[step - 1] + _CLOCK_S:
            late = times[-1] - committed[step - 1]
            yield REPEATED, f"model call {step} reached the model {late:.3f} s after its answer was committed"
        elif not _each_parted(times, kills):
            yield REPEATED, f"model call {step} reached the model {len(times)} times without a kill in between"
    if any(number > MODEL_STEPS for number, _ in record.requests):
        yield WRONG, "the model was asked for more than the story has"


def _repeated_tools(record: RunRecord, kills: Sequence[float]) -> Iterable[Fault]:
    returned = _tools_returned(record)
    for step in range(1, TOOL_STEPS + 1):
        lines = [line for line in record.lines if line.step == step]
        times = sorted(line.at for line in lines)
        if not lines:
            yield WRONG, f"tool call {step} left no line"
            continue
        if record.story.tool(step) == "book" and len(lines) > 1:
            yield REPEATED, f"tool call {step} may not be repeated and ran {len(lines)} times"
        elif step in returned and times[-1] > returned[step] + _CLOCK_S:
            yield REPEATED, f"tool call {step} ran {times[-1] - returned[step]:.3f} s after its result was committed"
        elif not _each_parted(times, kills):
            yield REPEATED, f"tool call {step} ran {len(lines)} times without a kill in between"
        if len({line.idempotency_key for line in lines}) > 1:
            yield WRONG, f"tool call {step} had several idempotency keys"


def _acted_on(record: RunRecord) -> Iterable[Fault]:
    """What the agent has gone on from was given to it, and must not be done again: it was recorded before."""
    asked = {step: [at for number, at in record.requests if number == step] for step in range(1, MODEL_STEPS + 2)}
    called = {step: [line.at for line in record.lines if line.step == step] for step in range(1, TOOL_STEPS + 1)}
    for step, tools in ASKED.items():
        following = [at for tool in tools for at in called[tool]] + asked[step + 1]
        if asked[step] and following and max(asked[step]) > min(following):
            yield REPEATED, f"model call {step} reached the model again after its answer was acted on"
        for tool in tools:
            if called[tool] and asked[step + 1] and max(called[tool]) > min(asked[step + 1]):
                yield REPEATED, f"tool call {tool} ran again after its result was acted on"


def _tools_returned(record: RunRecord) -> dict[int, float]:
    """Return when the result of each tool step was committed: what the tool returned, or what a human said it did."""
    called = [event["data"] for event in record.events if event["kind"] == "tool.called"]
    by_id = {data["call_id"]: data["arguments"]["step"] for data in called}
    by_hash = {(data["request_hash"], data["occurrence"]): data["arguments"]["step"] for data in called}
    found = {}
    for event in record.events:
        data, step = event["data"], None
        if event["kind"] == "tool.returned":
            step = by_id.get(data["call_id"])
        elif event["kind"] == "interrupt.answered" and is_effect(event):
            step = by_hash.get((data["request_hash"], data["occurrence"]))
        if step is not None:
            found[step] = time_of(event)
    return found


def _each_parted(times: Sequence[float], kills: Sequence[float]) -> bool:
    """Whether a kill lies between each two of these times."""
    return all(any(before - DYING_S <= kill <= after for kill in kills) for before, after in itertools.pairwise(times))
