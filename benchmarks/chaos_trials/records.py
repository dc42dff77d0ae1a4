"""What the harness notes down: each kill, and each run with all that is known of it in the end."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from chaos_trials.sightings import Line
from chaos_trials.story import Story

__all__ = ["DYING_S", "EFFECT_EVENTS", "Answer", "Kill", "KillKind", "Moment", "RunRecord", "is_effect", "time_of"]

KillKind = Literal["worker", "tools", "host", "both"]
"""What dies: an agent worker, a tool worker, the host, or the host and an agent worker."""
Moment = Literal["delay", "request", "answer", "tool", "commit", "recovery"]
"""`delay`: after a random time of the target's life. `request`, `answer`: when its k-th request reaches the model, has
been answered. `tool`: when its tool has written its line. `commit`: after the commit of an effect, before the worker
can act on it. `recovery`: while the runs come back from the kill before."""
EFFECT_EVENTS = ("model.responded", "tool.returned")
"""Those that tell of an effect that was made; a result that a human gave is one too, see `is_effect`."""
DYING_S = 0.25
"""How long what dies with a killed host may go on: its children are killed when the kernel has done away with it."""


@dataclass
class Kill:
    """One trial."""

    number: int
    kind: KillKind
    moment: Moment
    framework: str
    target: str
    """Label of the run that it was aimed at."""
    at: float
    pids: tuple[int, ...]
    frozen_pid: int | None = None
    frozen_at: float | None = None
    """When the worker of the target was stopped (SIGSTOP): from then on no answer reached it."""
    host_delay_ms: int = 0
    """How long this host waited after each commit before it gave the answer."""


@dataclass(frozen=True)
class Answer:
    """What the harness, as a careful human, said of a tool call that had been in flight."""

    step: int
    decision: str


@dataclass
class RunRecord:
    """One run: what it was to do, and what became of it."""

    story: Story
    framework: str
    submitted_at: float
    model: str = ""
    run_id: str = ""
    ended_at: float | None = None
    result: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[int, float]] = field(default_factory=list)
    """(model step, time) of each request that reached the model."""
    lines: list[Line] = field(default_factory=list)
    journal: list[tuple[str, int, bool]] = field(default_factory=list)
    """(kind, position, voided) of its effects."""
    answers: list[Answer] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Codes of errors that answers met."""
    trouble: list[str] = field(default_factory=list)
    """What went wrong while the harness dealt with it."""

    @property
    def label(self) -> str:
        """The story's label."""
        return self.story.label


def is_effect(event: dict[str, Any]) -> bool:
    """Whether an event tells of an effect: made, or put in by a human."""
    return event["kind"] in EFFECT_EVENTS or (event["kind"] == "interrupt.answered" and "effect" in event["data"])


def time_of(event: dict[str, Any]) -> float:
    """Return an event's time in epoch seconds."""
    return datetime.fromisoformat(event["at"]).timestamp()
