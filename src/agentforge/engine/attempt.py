"""One try of a run in one worker, as the engine sees it: what it asked for so far and what it is answered from."""

import asyncio
from collections import Counter
from typing import Any

from agentforge.engine.record import Record
from agentforge.engine.replay import Replay
from agentforge.errors import AgentForgeError
from agentforge.store import Effect, EffectKind

__all__ = ["OngoingAttempt"]


class OngoingAttempt:
    """The state that begins anew with every attempt. Lives on the engine's loop."""

    def __init__(self, number: int, record: Record) -> None:
        self.number = number
        self.record = record
        self.replay = Replay(record.effects)
        self.worker_id = ""
        self.token = ""
        self.tool_calls: list[dict[str, Any]] = []
        """The contract's list: name, arguments, result or error."""
        self.model_failure: AgentForgeError | None = None
        """The last model call's failure; None again after one that succeeded."""
        self.retries: Counter[str] = Counter()
        """By request hash, failed model calls that the framework's client may try again."""
        self.diverging = asyncio.Lock()
        self.over = asyncio.Event()
        """Set when nothing that it still asks for matters."""
        self.connections = 0
        """Attempts to connect that the run's events tell of."""
        self.left = False
        """Whether its worker has answered for it, or was given up: it says nothing more of it."""
        self.open_effects: dict[str, Any] = {}
        """A native agent's own tool calls that are under way in the worker."""
        self._asked: Counter[tuple[EffectKind, str]] = Counter()
        self._silent = Counter(record.said)

    def occurrence(self, kind: EffectKind, request_hash: str) -> int:
        """Count a request; return how many equal ones there were before."""
        count = self._asked[kind, request_hash]
        self._asked[kind, request_hash] = count + 1
        return count

    async def recorded(self, kind: EffectKind, request_hash: str, occurrence: int = 0) -> Effect | None:
        """Return the recorded effect for a request when it is its turn, None if there is none."""
        effect = self.replay.find(kind, request_hash, occurrence)
        if effect is not None:
            await self.replay.give(effect)
        return effect

    def says_again(self, what: str) -> bool:
        """Whether the next event of the adapter (`events`), or line of a stream, is recorded already."""
        if self._silent[what] <= 0:
            return False
        self._silent[what] -= 1
        return True

    def goes_on_in(self, worker_id: str, number: int) -> bool:
        """Whether this is the attempt with this number, and under way in this worker: it may speak of it then."""
        return self.worker_id == worker_id and self.number == number and not self.left

    async def never(self) -> None:
        """Wait for the end of the attempt: for who asked for something that the run has to wait for."""
        await self.over.wait()
        raise asyncio.CancelledError
