"""What a run waits for: the open questions of a run, how they are kept, and which answers fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from agentforge.engine.conforming import mismatch_of_untrusted
from agentforge.errors.runs import AnswerUnfit

__all__ = ["ANSWERS", "Interrupt", "InterruptKind", "chosen", "fitting", "open_interrupts"]

InterruptKind = Literal["question", "approval", "tool", "divergence", "recovery", "rollback"]
ANSWERS: Mapping[InterruptKind, tuple[str, ...]] = {
    "question": ("answer", "fail"),
    "approval": ("approve", "reject", "fail"),
    "tool": ("retry", "result", "fail"),
    "divergence": ("continue", "fail"),
    "recovery": ("retry", "fail"),
    "rollback": (),
}
"""The decisions that each kind of interrupt takes."""


@dataclass(frozen=True)
class Interrupt:
    """One thing that a run waits for."""

    kind: InterruptKind
    message: str
    request_hash: str = ""
    occurrence: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    """What the human needs to know: the question and its options, or the tool's name and arguments."""
    schema: dict[str, Any] | None = None
    """JSON Schema of a question's answer."""
    expires_at: float | None = None
    default: Any = None
    has_default: bool = False
    id: str = ""
    raised_at: float = 0.0

    @property
    def answers(self) -> tuple[str, ...]:
        """The decisions it takes."""
        return ANSWERS[self.kind]

    def numbered(self, number: int, raised_at: float) -> "Interrupt":
        """Return it as it is kept: with its name within the run."""
        return replace(self, id=f"i{number}", raised_at=raised_at)

    def to_json(self) -> dict[str, Any]:
        """Return the object that users see and the store keeps."""
        return {**vars(self), "answers": list(self.answers)}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Interrupt":
        """Read what `to_json` wrote."""
        return msgspec.convert({key: value for key, value in kept.items() if key != "answers"}, cls)


def open_interrupts(options: Mapping[str, Any]) -> list[Interrupt]:
    """Return what a run waits for, from its `options`."""
    return [Interrupt.from_json(each) for each in options.get("interrupts", [])]


def chosen(interrupts: list[Interrupt], name: str | None) -> Interrupt:
    """Return the interrupt that an answer is for. Raises AnswerUnfit."""
    if not interrupts:
        raise AnswerUnfit("the run waits for no answer")
    if name is not None:
        found = next((each for each in interrupts if each.id == name), None)
        if found is None:
            raise AnswerUnfit(f"the run has no open interrupt `{name}`; it has {_names(interrupts)}")
        return found
    if len(interrupts) > 1:
        hint = f"Say which one: `--interrupt {interrupts[0].id}`."
        raise AnswerUnfit(f"the run waits for {len(interrupts)} answers: {_names(interrupts)}", hint=hint)
    return interrupts[0]


async def fitting(interrupt: Interrupt, decision: str, value: Any) -> Any:
    """Return the value of an answer if it fits the interrupt. Raises AnswerUnfit."""
    if not interrupt.answers:
        raise AnswerUnfit(f"the run waits because it was {interrupt.message}: resume it")
    if decision not in interrupt.answers:
        allowed = ", ".join(f"`{each}`" for each in interrupt.answers)
        raise AnswerUnfit(f"`{decision}` is no answer to a {interrupt.kind}; it takes {allowed}")
    if interrupt.kind == "question" and decision == "answer":
        await _check_value(interrupt, value)
    return value


async def _check_value(interrupt: Interrupt, value: Any) -> None:
    options = interrupt.data.get("options")
    if options and value not in options:
        raise AnswerUnfit(f"`{value}` is none of the options {options}")
    if interrupt.schema is None:
        return
    found = await mismatch_of_untrusted(interrupt.schema, value)
    if found is not None and found.wrong:
        raise AnswerUnfit(f"the question's schema is wrong: {found.wrong}")
    if found is not None:
        raise AnswerUnfit(f"the answer does not match the question's schema at `{found.path}`: {found.message}")


def _names(interrupts: list[Interrupt]) -> str:
    return ", ".join(f"`{each.id}` ({each.kind})" for each in interrupts)
