"""From the outcomes of tests to what a release can do: one result for each capability."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentforge.frameworks import Capability

__all__ = ["Outcome", "capability_results", "conformance", "counted"]

OutcomeKind = Literal["passed", "failed", "skipped"]
Result = Literal["pass", "partial", "todo", "absent", "untested", "fail"]
"""`untested`: declared, and no test of the suite ran for it."""
_NO_TEST = "the suite has no test of it, only the adapter may"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one test ended."""

    name: str
    capability: str
    outcome: OutcomeKind
    duration_ms: int
    message: str = ""


def capability_results(
    declared: Mapping[str, Capability], outcomes: Sequence[Outcome], order: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the result of each capability that is declared or was tried, in the suite's order, others last."""
    tried = {each.capability for each in outcomes}
    names = [name for name in order if name in tried or name in declared]
    names += sorted((declared.keys() | tried) - set(names))
    return {name: _result(declared.get(name), [each for each in outcomes if each.capability == name]) for name in names}


def conformance(outcomes: Sequence[Outcome]) -> float | None:
    """Return how many of the tests that ran passed, in percent; None where none ran."""
    counts = counted(outcomes)
    ran = counts["passed"] + counts["failed"]
    return 100 * counts["passed"] / ran if ran else None


def counted(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return how many passed, failed and were skipped."""
    return {kind: sum(each.outcome == kind for each in outcomes) for kind in ("passed", "failed", "skipped")}


def _result(declared: Capability | None, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    failures = [each for each in outcomes if each.outcome == "failed"]
    result, note = _judged(declared, outcomes)
    return {
        "result": result,
        "note": note,
        **counted(outcomes),
        "duration_ms": sum(each.duration_ms for each in outcomes),
        "failures": [{"test": each.name, "message": each.message} for each in failures],
    }


def _judged(declared: Capability | None, outcomes: Sequence[Outcome]) -> tuple[Result, str]:
    """Return the result and why it is not `pass`; a test that fails counts whatever was declared."""
    failures = [each for each in outcomes if each.outcome == "failed"]
    skipped = [each.message for each in outcomes if each.outcome == "skipped"]
    if failures:
        return "fail", failures[0].message.strip().partition("\n")[0]
    if declared is not None and declared.level != "full":
        return declared.level, declared.note
    if any(each.outcome == "passed" for each in outcomes):
        return "pass", _without(skipped)
    if declared is not None:
        return "untested", skipped[0] if skipped else _NO_TEST
    return "absent", skipped[0] if skipped else ""


def _without(skipped: Sequence[str]) -> str:
    """Return what a pass does not say, because other capabilities are missing."""
    if not skipped:
        return ""
    reasons = dict.fromkeys(each.partition(":")[0] for each in skipped)
    return f"without {len(skipped)} test{'s' if len(skipped) > 1 else ''}: {', '.join(reasons)}"
