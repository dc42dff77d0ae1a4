"""What a script says: one step per answer, as Python objects or as the same in JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

__all__ = ["CalledTool", "Json", "Script", "Step", "builtin_step"]

Json = Any
"""A value that JSON can hold."""


@dataclass(frozen=True)
class CalledTool:
    """A tool call that the model makes."""

    name: str
    arguments: Json = field(default_factory=dict)
    """A JSON value; a str goes over the wire as it is (also one that is no JSON)."""
    id: str = ""
    """Its id; without one it is numbered."""


@dataclass(frozen=True)
class Step:
    """One answer. Without `text`, `calls`, `value` and `status` it is the default script's answer.

    The rest says how it is given, and combines: `Step(delay_s=0.5, barrier=10, text="hi", cut_after=2)`.
    """

    text: str | None = None
    """Answer with this text. `{tool}` stands for the last tool result, `{tools}` for all of them in order, `{user}` for
    the last user text."""
    calls: Sequence[CalledTool] = ()
    """Call these tools (with `text` as content beside them)."""
    value: Json = None
    """Answer with this value as JSON text."""
    structured: bool = False
    """Answer with a value made from the schema in the request's `response_format`."""
    echo: bool = False
    """Add the last user text to the default script's final answer."""
    status: int = 200
    """Answer with this error."""
    message: str = ""
    """The error's message."""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    """Wait before the answer begins."""
    chunk_delay_s: float = 0.0
    """Wait before each chunk of a stream but the first."""
    barrier: int = 0
    """Hold the answer until this many requests have come to barriers of this size."""
    gate: int = 0
    """Hold the answer until this many requests at gates of this size are open at the same time; from then on none."""
    cut_after: int | None = None
    """Break the connection after so many chunks; a plain answer in the middle of its body."""
    silent_after: int | None = None
    """Say nothing more after so many chunks; 0: not even headers."""

    @classmethod
    def parse(cls, data: Mapping[str, Json]) -> "Step":
        """Read a step from JSON. Raises ValueError for an unknown field."""
        known = {f.name for f in fields(cls)}
        if unknown := set(data) - known:
            raise ValueError(f"unknown field {sorted(unknown)[0]!r}; a step has {', '.join(sorted(known))}")
        calls = [CalledTool(call["name"], call.get("arguments", {})) for call in data.get("calls", ())]
        return cls(**{**data, "calls": calls})


@dataclass(frozen=True)
class Script:
    """The steps of a model."""

    steps: Sequence[Step]
    per: Literal["request", "conversation"] = "request"
    """Which step answers: the n-th for the n-th request, or (many runs at once) the n-th for a conversation that
    holds n-1 answers of the model."""
    after: Literal["last", "cycle", "default"] = "last"
    """What follows the last step: it again, the first again, or the default script."""

    @classmethod
    def parse(cls, data: Mapping[str, Json]) -> "Script":
        """Read a script from JSON: `{"steps": [...], "per": ..., "after": ...}`."""
        options = {name: data[name] for name in ("per", "after") if name in data}
        return cls([Step.parse(step) for step in data["steps"]], **options)

    def one_call_each(self) -> "Script":
        """Return the script for a model that makes one call with each answer: a step with two calls becomes two."""
        steps: list[Step] = []
        for step in self.steps:
            steps += [replace(step, calls=[call]) for call in step.calls] or [step]
        return replace(self, steps=steps)

    def step(self, position: int) -> Step:
        """Return the step at a position, counted from 0."""
        if position < len(self.steps):
            return self.steps[position]
        if self.after == "default" or not self.steps:
            return Step()
        return self.steps[position % len(self.steps)] if self.after == "cycle" else self.steps[-1]


def builtin_step(model: str) -> Step:
    """Return how a model behaves that has no script: its name says it.

    `fail-<status>`, `cut-stream`, `silent`, `silent-stream`, `slow-<seconds>`, `slow-stream-<seconds>`,
    `barrier-<count>`, `gate-<count>`, `echo`, `json`; every other name is the default script.
    """
    name = model.rpartition("/")[2]
    if name in _NAMED:
        return _NAMED[name]
    kind, _, number = name.rpartition("-")
    try:
        match kind:
            case "fail":
                return _failing(int(number))
            case "slow":
                return Step(delay_s=float(number))
            case "slow-stream":
                return Step(chunk_delay_s=float(number))
            case "barrier":
                return Step(barrier=int(number))
            case "gate":
                return Step(gate=int(number))
    except ValueError:
        pass
    return Step()


_NAMED = {
    "cut-stream": Step(cut_after=2),
    "silent": Step(silent_after=0),
    "silent-stream": Step(silent_after=2),
    "echo": Step(echo=True),
    "json": Step(structured=True),
}


def _failing(status: int) -> Step:
    headers = {"Retry-After": "1"} if status == 429 else {}
    return Step(status=status, message=f"scripted failure {status}", headers=headers)
