"""The figures of all trials: as JSON, and as a table."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from chaos_trials.checks import LOST, REPEATED, WRONG, Fault
from chaos_trials.hits import Hit
from chaos_trials.records import EFFECT_EVENTS, Kill, RunRecord, time_of

__all__ = ["failed", "figures", "table"]

_GOALS = {"halfway": 200 / 300, "certain_gaps": 30 / 300}
"""Shares of the kills."""
_GOAL_WARM_P99_MS = 1000
_WARM = "resume to first effect, warm"
"""The worker had this agent already, and a tool worker was there."""
_BUILT = "resume to first effect, new agent"
"""The worker was there, but had to build the agent: each slot asks a model of its own."""
_COLD = "resume to first effect, new worker"
_OWN = {_WARM, _BUILT, _COLD}


def figures(
    kills: Sequence[Kill],
    records: Sequence[RunRecord],
    hits: Sequence[Hit],
    faults: Mapping[str, Sequence[Fault]],
) -> dict[str, Any]:
    """Return everything that was counted and measured. `faults` by run; those of no run under an empty label."""
    kinds = Counter(kind for found in faults.values() for kind, _ in found)
    spans = _recoveries(records, hits)
    counts: dict[str, Any] = {
        "kills": len(kills),
        "kills_by_kind": dict(Counter(kill.kind for kill in kills)),
        "kills_by_moment": dict(Counter(kill.moment for kill in kills)),
        "kills_that_hit_a_run": _kills(hits),
        "halfway": _kills([hit for hit in hits if hit.halfway]),
        "gaps": _kills([hit for hit in hits if hit.gap]),
        "certain_gaps": _kills([hit for hit in hits if hit.certain]),
        "hits": len(hits),
        "hits_halfway": sum(hit.halfway for hit in hits),
        "hits_by_finished_effects": dict(sorted(Counter(hit.finished for hit in hits).items())),
        "runs": len(records),
        "runs_by_framework": dict(Counter(record.framework for record in records)),
        "runs_hit": len({hit.label for hit in hits}),
        "runs_with_several_attempts": sum(_attempts(record) > 1 for record in records),
        "most_attempts": max((_attempts(record) for record in records), default=0),
        "answered": dict(Counter(answer.decision for record in records for answer in record.answers)),
        "runs_answered": sum(bool(record.answers) for record in records),
        "answers_refused": dict(Counter(code for record in records for code in record.refused)),
        "tools_repeated_in_flight": sum(_repeats(record) for record in records),
        "requests_repeated_in_flight": sum(len(r.requests) - len({n for n, _ in r.requests}) for r in records),
        "lost_runs": kinds[LOST],
        "repeated_effects": kinds[REPEATED],
        "wrong_results": kinds[WRONG],
        "recovery_ms": {name: _spread(spans[name]) for name in (_WARM, _BUILT, _COLD, *sorted(set(spans) - _OWN))},
    }
    counts["goals"] = _goals(counts)
    counts["faults"] = {label: [list(each) for each in found] for label, found in faults.items() if found}
    counts["trials"] = [{**asdict(kill), "hits": [asdict(h) for h in hits if h.kill == kill.number]} for kill in kills]
    return counts


def failed(found: Mapping[str, Any]) -> bool:
    """Whether a run was lost, an effect repeated or a result wrong."""
    return bool(found["lost_runs"] or found["repeated_effects"] or found["wrong_results"])


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as text."""
    lines = [
        f"{'kills':34} {found['kills']} ({_pairs(found['kills_by_kind'])})",
        f"{'  by moment':34} {_pairs(found['kills_by_moment'])}",
        f"{'  that hit a run':34} {found['kills_that_hit_a_run']}",
        f"{'  one effect done, one to come':34} {found['halfway']}",
        f"{'  between commit and answer':34} {found['certain_gaps']} for certain, {found['gaps']} by the journal",
        f"{'runs':34} {found['runs']} ({_pairs(found['runs_by_framework'])})",
        f"{'  hit by a kill':34} {found['runs_hit']} (hit {found['hits']} times, halfway {found['hits_halfway']})",
        f"{'  several attempts':34} {found['runs_with_several_attempts']} (most: {found['most_attempts']})",
        f"{'  waited, were answered':34} {found['runs_answered']} ({_pairs(found['answered'])})",
        f"{'repeated while in flight':34} {found['tools_repeated_in_flight']} tool calls,"
        f" {found['requests_repeated_in_flight']} model calls",
        f"{'lost runs':34} {found['lost_runs']}",
        f"{'finished effects repeated':34} {found['repeated_effects']}",
        f"{'wrong results':34} {found['wrong_results']}",
    ]
    for name, spread in found["recovery_ms"].items():
        lines.append(f"{name:34} {'  '.join(f'{key} {value}' for key, value in spread.items())}")
    lines += [f"{'goal ' + name:34} {'met' if met else 'MISSED'}" for name, met in found["goals"].items()]
    for label, faults in found["faults"].items():
        lines += [f"{kind.upper()} {label}: {what}" for kind, what in faults]
    return "\n".join(lines)


def _kills(hits: Sequence[Hit]) -> int:
    return len({hit.kill for hit in hits})


def _attempts(record: RunRecord) -> int:
    return sum(event["kind"] == "attempt.started" for event in record.events)


def _repeats(record: RunRecord) -> int:
    return len(record.lines) - len({line.step for line in record.lines})


def _recoveries(records: Sequence[RunRecord], hits: Sequence[Hit]) -> dict[str, list[float]]:
    """Return seconds from each new attempt's start to its first new effect, and from the kill to it."""
    worker_starts, agent_starts = _first_attempts(records)
    tool_starts = _first_lines(records)
    spans: dict[str, list[float]] = defaultdict(list)
    for record in records:
        kill_times = [hit.at for hit in hits if hit.label == record.label]
        for number, started, pid, first in _attempts_with_effects(record):
            if number == 1:
                continue
            if worker_starts[pid] == started or _in_new_tool_worker(record, started, first, tool_starts):
                kind = _COLD
            else:
                kind = _WARM if agent_starts[pid, record.model] < started else _BUILT
            spans[kind].append(first - started)
            causes = [at for at in kill_times if at <= started + 0.001]
            if causes:
                spans[f"kill to first effect, {record.framework}"].append(first - causes[-1])
    return spans


def _first_attempts(records: Sequence[RunRecord]) -> tuple[dict[int, float], dict[tuple[int, str], float]]:
    """Return when each worker was given its first run, and its first run with each agent."""
    workers: dict[int, float] = {}
    agents: dict[tuple[int, str], float] = {}
    for record in records:
        for event in record.events:
            if event["kind"] == "attempt.started":
                pid, at = event["data"]["pid"], time_of(event)
                workers[pid] = min(at, workers.get(pid, at))
                agents[pid, record.model] = min(at, agents.get((pid, record.model), at))
    return workers, agents


def _first_lines(records: Sequence[RunRecord]) -> dict[int, float]:
    """Return when each tool worker made its first call."""
    found: dict[int, float] = {}
    for record in records:
        for line in record.lines:
            found[line.pid] = min(line.at, found.get(line.pid, line.at))
    return found


def _in_new_tool_worker(record: RunRecord, since: float, until: float, starts: Mapping[int, float]) -> bool:
    """Whether the tool that ran in this time was the first one of its worker: it waited for the worker's start."""
    return any(since <= line.at <= until and starts[line.pid] == line.at for line in record.lines)


def _attempts_with_effects(record: RunRecord) -> list[tuple[int, float, int, float]]:
    """Return (number, start, worker, time of the first new effect) of the attempts that came to one."""
    found = []
    starts = {event["attempt"]: event for event in record.events if event["kind"] == "attempt.started"}
    for number, start in starts.items():
        effects = [
            time_of(event) for event in record.events if event["attempt"] == number and event["kind"] in EFFECT_EVENTS
        ]
        if effects:
            found.append((number, time_of(start), start["data"]["pid"], effects[0]))
    return found


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {"count": len(seconds)}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    spread = {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98], "max": max(seconds)}
    return {"count": len(seconds), **{name: round(value * 1000, 1) for name, value in spread.items()}}


def _goals(counts: Mapping[str, Any]) -> dict[str, bool]:
    met = {f"{name} >= {share:.0%}": counts[name] >= share * counts["kills"] for name, share in _GOALS.items()}
    p99 = counts["recovery_ms"][_WARM].get("p99")
    return {**met, f"warm recovery p99 < {_GOAL_WARM_P99_MS} ms": p99 is not None and p99 < _GOAL_WARM_P99_MS}


def _pairs(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{key} {count}" for key, count in sorted(counts.items(), key=lambda pair: str(pair[0]))) or "none"
