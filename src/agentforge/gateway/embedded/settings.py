"""What can be set on the embedded model, and what a user is told about it."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["EmbeddedSettings", "FirstStep", "notice"]

FirstStep = Literal["tool", "answer"]
"""What a request that leaves the choice to the model (`tool_choice: auto`) leads to while no tool has answered yet."""


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """How the process runs. The defaults suit two cores that frameworks need too."""

    first_step: FirstStep = "tool"
    threads: int = 1
    """llama.cpp's threads wait for each other by spinning. With the cores busy elsewhere, as they are when frameworks
    start, two were four to six times slower than one; on idle cores they are up to twice as fast."""
    slots: int = 2
    """Requests computed at once; the others wait in the order they came."""
    context: int = 4096
    """Tokens that a request and its answer may have together."""
    answer_tokens: int = 512
    """The longest answer where the request names no limit: a tiny model may not find an end on its own."""

    def arguments(self) -> list[str]:
        """Return these settings as arguments of `python -m agentforge.gateway.embedded`."""
        return [
            f"--first-step={self.first_step}",
            f"--threads={self.threads}",
            f"--slots={self.slots}",
            f"--context={self.context}",
            f"--answer-tokens={self.answer_tokens}",
        ]


def notice() -> str:
    """Return the line that output and docs show wherever the embedded model answers."""
    return (
        "model `local` is tiny (SmolLM2, 135M parameters): for trying the machinery, not for real answers; to connect "
        "a real one set OPENAI_BASE_URL and OPENAI_API_KEY, or [models.default] in agentforge.toml"
    )
