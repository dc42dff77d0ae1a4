"""Which runs a kill hit, and where they stood: from the runs' events, not from what the killer meant to do."""

from dataclasses import dataclass

from chaos_trials.records import Kill, KillKind, RunRecord, is_effect, time_of
from chaos_trials.story import EFFECTS

__all__ = ["Hit", "hits_of"]

_SIGNS = ("model.requested", "tool.called", "message.added", "step.started", "step.finished")
"""Events that show that the worker went on after an answer."""
_CLOCK_S = 0.002


@dataclass(frozen=True)
class Hit:
    """One run that a kill hit."""

    kill: int
    kind: KillKind
    label: str
    at: float
    finished: int
    """Effects that were committed by then."""
    gap: bool
    """No sign of the worker is known between the commit of the last effect and the kill."""
    certain: bool
    """And there can't have been one: the worker was stopped, or the host held the answer back."""

    @property
    def remaining(self) -> int:
        """Effects that were not."""
        return EFFECTS - self.finished

    @property
    def halfway(self) -> bool:
        """Whether an effect was finished and one remained."""
        return self.finished >= 1 and self.remaining >= 1


def hits_of(kill: Kill, record: RunRecord) -> Hit | None:
    """Return how a kill hit a run, None if it did not."""
    if not record.run_id or not _was_live(kill, record) or not _was_in_reach(kill, record):
        return None
    done = [event for event in record.events if is_effect(event) and time_of(event) <= kill.at]
    if not done:
        return Hit(kill.number, kill.kind, record.label, kill.at, 0, False, False)
    last = done[-1]
    gap = not _went_on(record, last["seq"], time_of(last), kill.at)
    certain = gap and _was_held(kill, record, time_of(last))
    return Hit(kill.number, kill.kind, record.label, kill.at, len(done), gap, certain)


def _was_live(kill: Kill, record: RunRecord) -> bool:
    # From its submission on: its first event may be lost with its host, and then the next host's is later.
    ends = [time_of(event) for event in record.events if event["kind"] == "run.finished"]
    return record.submitted_at < kill.at and (not ends or ends[-1] > kill.at)


def _was_in_reach(kill: Kill, record: RunRecord) -> bool:
    if kill.kind in ("host", "both"):
        return True
    if kill.kind == "worker":
        return _worker_of(record, kill.at) in kill.pids
    return record.framework == kill.framework and _had_tool_in_flight(kill, record)


def _worker_of(record: RunRecord, at: float) -> int | None:
    """Return the worker that the run was in."""
    found = [event for event in record.events if event["kind"] == "attempt.started" and time_of(event) <= at]
    return int(found[-1]["data"]["pid"]) if found else None


def _had_tool_in_flight(kill: Kill, record: RunRecord) -> bool:
    before = [event for event in record.events if time_of(event) <= kill.at]
    called = {event["data"]["call_id"] for event in before if event["kind"] == "tool.called"}
    over = {event["data"]["call_id"] for event in before if event["kind"] in ("tool.returned", "tool.failed")}
    return bool(called - over)


def _went_on(record: RunRecord, seq: int, since: float, until: float) -> bool:
    """Whether the agent showed a sign of life between an effect's commit and a kill."""
    told = any(event["seq"] > seq and event["kind"] in _SIGNS and time_of(event) <= until for event in record.events)
    outside = [at for _, at in record.requests] + [line.at for line in record.lines]
    return told or any(since + _CLOCK_S < at <= until for at in outside)


def _was_held(kill: Kill, record: RunRecord, committed: float) -> bool:
    if kill.frozen_at is not None and kill.frozen_pid == _worker_of(record, kill.at):
        return kill.frozen_at < committed + 0.001
    return bool(kill.host_delay_ms) and kill.at < committed + kill.host_delay_ms / 1000
