"""A run as users see it: the contract's JSON."""

from collections.abc import Sequence
from typing import Any

from agentforge.engine.record import valid_events
from agentforge.engine.times import iso
from agentforge.store import Event, Run

__all__ = ["TOOL_EVENTS", "event_json", "result_json", "summary_json", "tool_calls_of"]


def result_json(run: Run, tool_calls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a run's result object."""
    usage = dict(run.usage)
    model_calls = usage.pop("model_calls", 0)
    return {
        "run_id": run.run_id,
        "agent": run.agent_name,
        "framework": run.framework,
        "release": run.release,
        "status": run.status,
        "output": run.output,
        "tool_calls": list(tool_calls),
        "model_calls": model_calls,
        "usage": {"input_tokens": 0, "output_tokens": 0, **usage},
        "cost_usd": run.cost_usd,
        "duration_ms": _duration_ms(run),
        "replayed_effects": run.metrics.get("replayed_effects", 0),
        "sandbox": run.sandbox,
        "error": run.error,
        "warnings": run.options.get("warnings", []),
        "interrupts": run.options.get("interrupts", []),
        "attempts": run.metrics.get("attempts", 0),
        "forked_from": run.options.get("forked_from"),
        "model": run.model,
        "thread": run.thread,
        "metrics": run.metrics,
        "agent_version": run.agent_version,
        "labels": run.labels,
        "created_at": iso(run.created_at),
        "started_at": _iso(run.started_at),
        "finished_at": _iso(run.finished_at),
    }


def summary_json(run: Run) -> dict[str, Any]:
    """Return a run as a list shows it."""
    whole = result_json(run, ())
    return {key: whole[key] for key in _SUMMARY}


_SUMMARY = (
    "run_id",
    "agent",
    "framework",
    "release",
    "status",
    "model",
    "model_calls",
    "usage",
    "cost_usd",
    "duration_ms",
    "thread",
    "labels",
    "created_at",
    "finished_at",
    "error",
    "interrupts",
)


TOOL_EVENTS = ("tool.called", "tool.returned", "tool.failed", "checkpoint.restored")


def tool_calls_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the contract's list of tool calls from a run's tool events: in the order of the calls, failed ones too."""
    calls: dict[str, dict[str, Any]] = {}
    for event in valid_events(events):
        data = event.data
        if event.kind == "checkpoint.restored":
            continue
        call = calls.setdefault(data["call_id"], {"name": data["name"], "arguments": data.get("arguments", {})})
        if event.kind == "tool.returned":
            call["result"] = data["result"]
        elif event.kind == "tool.failed":
            call["error"] = data["error"]["message"]
    return list(calls.values())


def event_json(event: Event) -> dict[str, Any]:
    """Return an event's object."""
    return {
        "seq": event.seq,
        "kind": event.kind,
        "at": iso(event.at),
        "attempt": event.attempt,
        "data": event.data,
    }


def _duration_ms(run: Run) -> int | None:
    if run.finished_at is None:
        return None
    return round((run.finished_at - run.created_at) * 1000)


def _iso(at: float | None) -> str | None:
    return None if at is None else iso(at)
