"""Answers from the journal: what an attempt asks for again gets what was recorded, in the recorded order.

Matching is by the canonical hash of a request. Of equal model requests the n-th gets the n-th recorded answer; other
effects are matched by hash and occurrence, because a tool's idempotency key depends on both. An answer waits until all
those recorded before it were given, as long as the run asks for them: a run with parallel branches takes the same way
again. The wait is bounded, so an effect that is not asked for any more holds nothing up for long.
"""

import asyncio
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterable

import msgspec

from agentforge.engine.record import Outcome
from agentforge.store import Effect, EffectKind

__all__ = ["Replay"]

_PATIENCE_S = 0.5
"""How long an answer waits for those recorded before it, and a new request for those still to be asked for."""


class Replay:
    """The recorded effects of one run, as one attempt goes through them. Lives on one event loop."""

    def __init__(self, effects: Iterable[Effect], patience_s: float = _PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._effects = {effect.position: effect for effect in effects}
        self._models: dict[str, deque[Effect]] = defaultdict(deque)
        self._others: dict[tuple[EffectKind, str, int], Effect] = {}
        for effect in sorted(self._effects.values(), key=lambda effect: effect.position):
            if effect.kind == "model":
                self._models[effect.request_hash].append(effect)
            else:
                self._others[effect.kind, effect.request_hash, effect.occurrence] = effect
        self._inside = {effect.position: _inside(effect) for effect in self._effects.values()}
        self._waited_for = sorted(self._effects)
        """Positions that have not been given and are still waited for."""
        self._given: set[int] = set()
        self._changed = asyncio.Event()

    @property
    def recorded(self) -> int:
        """How many effects there are to answer from."""
        return len(self._effects)

    @property
    def given(self) -> int:
        """How many of them were asked for and given."""
        return len(self._given)

    @property
    def rest(self) -> list[Effect]:
        """The effects that were not given (yet), in their order."""
        return [effect for position, effect in sorted(self._effects.items()) if position not in self._given]

    @property
    def over(self) -> bool:
        """Whether the frontier is passed: everything recorded was given."""
        return len(self._given) == len(self._effects)

    def find(self, kind: EffectKind, request_hash: str, occurrence: int = 0) -> Effect | None:
        """Return the recorded effect for a request, and count it as asked for; None if there is none.

        `occurrence` is how many equal requests this attempt made before; a model request's does not matter.
        """
        if kind == "model":
            queue = self._models.get(request_hash)
            return queue.popleft() if queue else None
        return self._others.pop((kind, request_hash, occurrence), None)

    async def give(self, effect: Effect) -> None:
        """Return when it is this effect's turn; from then on it is given, and what it was made of need not be."""
        inside = self._inside.get(effect.position, range(0))
        first = inside.start if inside else effect.position
        await self._until(lambda: not self._waited_for or self._waited_for[0] >= first)
        del self._waited_for[: bisect_left(self._waited_for, effect.position)]  # those were waited for long enough
        if self._waited_for and self._waited_for[0] == effect.position:
            del self._waited_for[0]
        self._given.add(effect.position)
        self._given.update(position for position in inside if position in self._effects)
        self._tell()

    async def passed(self) -> bool:
        """Wait a little for what is still to be asked for; return whether the frontier is passed.

        For a request that nothing was recorded for: with parallel branches it may come before others' recorded ones.
        """
        while not self.over:
            before = len(self._given)
            await self._until(lambda: len(self._given) > before)  # noqa: B023  called within the iteration
            if len(self._given) == before:
                return False
        return True

    def leave(self) -> list[Effect]:
        """Give up what was not given: the run takes another way. Returns those effects."""
        left = self.rest
        for effect in left:
            del self._effects[effect.position]
        self._models.clear()
        self._others.clear()
        self._waited_for.clear()
        self._tell()
        return left

    async def _until(self, true: Callable[[], bool]) -> None:
        """Wait for a condition, for as long as the patience lasts."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_s
        while not true() and (left_s := deadline - loop.time()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _inside(effect: Effect) -> range:
    """Return the positions between the beginning of a native agent's own tool call and its end.

    A tool may ask models and call tools itself; those it made are its result's making.
    """
    if effect.kind != "tool":
        return range(0)
    since = msgspec.json.decode(effect.response, type=Outcome).since
    return range(0) if since is None else range(since, effect.position)
