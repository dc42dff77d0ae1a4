"""When to kill what: drawn at random, before the trial begins."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from chaos_trials.records import KillKind, Moment
from chaos_trials.story import MODEL_STEPS, TOOL_STEPS
from chaos_trials.world import Way

__all__ = ["Plan", "acts", "draw"]

_KINDS: dict[KillKind, int] = {"worker": 33, "tools": 14, "host": 32, "both": 21}
_MOMENTS: dict[Moment, int] = {"delay": 42, "request": 10, "answer": 12, "tool": 12, "commit": 19, "recovery": 5}
_TOOL_WORKER_MOMENTS: dict[Moment, int] = {"answer": 50, "tool": 50}
"""A tool worker is killed when it has something to do: right after the model has asked for it, or after its line."""
_LONGEST_ACT = 12
"""Trials on the same frameworks."""
_DELAYING_HOSTS = 0.35
"""Share of the hosts that wait after each commit."""


@dataclass(frozen=True)
class Plan:
    """One trial as it is meant."""

    kind: KillKind
    moment: Moment
    framework: str
    share: float
    """For `delay`: the part of a run's usual length after which to kill."""
    effect: str
    """For the other moments: what to wait for, `model` or `tool`."""
    step: int
    """And which of them."""
    lag_s: float
    """From the sign that was waited for to the kill."""
    way: Way
    """How the host is started again."""
    delay_ms: int
    """How long the next host waits after each commit."""


def acts(rng: random.Random, frameworks: Sequence[str], trials: int) -> list[Sequence[str]]:
    """Return on which frameworks the runs of each trial are: one at a time, then all at once, and again.

    A host that is killed takes all workers along; starting those of all frameworks each time would take most of the
    time.
    """
    length = min(_LONGEST_ACT, max(1, trials // (len(frameworks) + 1)))
    found: list[Sequence[str]] = []
    while len(found) < trials:
        alone = rng.sample(list(frameworks), len(frameworks))
        for cast in [*([each] for each in alone), list(frameworks)]:
            found += [cast] * length
    return found


def draw(rng: random.Random, frameworks: Sequence[str]) -> Plan:
    """Return what to do next."""
    (kind,) = rng.choices(list(_KINDS), list(_KINDS.values()))
    moments = _TOOL_WORKER_MOMENTS if kind == "tools" else _MOMENTS
    (moment,) = rng.choices(list(moments), list(moments.values()))
    effect = {"request": "model", "answer": "model", "tool": "tool"}.get(moment) or rng.choice(["model", "tool"])
    return Plan(
        kind=kind,
        moment=moment,
        framework=rng.choice(list(frameworks)),
        share=rng.uniform(0, 1),
        effect=effect,
        step=rng.randint(1, _last_step(kind, effect)),
        lag_s=rng.uniform(0.005, 0.035) if moment == "answer" else rng.choice([0.0, rng.uniform(0, 0.008)]),
        way=rng.choice(["command", "client", "client"]),
        delay_ms=rng.randint(15, 40) if rng.random() < _DELAYING_HOSTS else 0,
    )


def _last_step(kind: KillKind, effect: str) -> int:
    if effect == "tool":
        return TOOL_STEPS
    return MODEL_STEPS - 1 if kind == "tools" else MODEL_STEPS  # the last model step asks for no tool
