"""What can be set on the embedded model's process."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["EmbeddedSettings", "FirstStep"]

FirstStep = Literal["tool", "answer"]
"""What a request that leaves the choice to the model (`tool_choice: auto`) leads to while no tool has answered yet."""


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """How the process runs. The defaults suit two cores that frameworks need too."""

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
            f"--threads={self.threads}",
            f"--slots={self.slots}",
            f"--context={self.context}",
            f"--answer-tokens={self.answer_tokens}",
        ]
