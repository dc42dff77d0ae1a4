"""Sampling settings of a model, written in agent files and in `[models.<alias>]` alike."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, Strict

from agentforge.config.checking import Section

__all__ = ["ModelSettings", "Texts", "one_or_many"]


def one_or_many(value: object) -> object:
    """Let a single value stand for a list of one."""
    return (value,) if isinstance(value, str) else value


Texts = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Strict(False),
    BeforeValidator(one_or_many, json_schema_input_type=str | list[str]),
]


class ModelSettings(Section):
    """Sampling settings; each one that is set reaches the wire, or the run warns by name."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Randomness of the answer, from 0 (least) to 2."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of one answer of the model."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the probability that the model picks from, from 0 to 1."""
    stop: Texts = ()
    """Texts that end the model's answer: one, or a list."""
    seed: int | None = None
    """Number that makes sampling repeatable where the model supports it."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Penalty on words by how often they came up, from -2 to 2."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Penalty on words that came up at all, from -2 to 2."""

    def given(self) -> dict[str, Any]:
        """Return the settings that were set, as they go over the wire."""
        values = self.model_dump(exclude_none=True)
        values.pop("stop")
        return {**values, "stop": list(self.stop)} if self.stop else values
