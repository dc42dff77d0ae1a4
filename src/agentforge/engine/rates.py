"""How often a model is asked: requests per minute and tokens per minute, by alias.

The journal acquires before a request goes to its upstream, and charges the tokens once the answer is there: nobody
knows them earlier. Requests are counted exactly, never more than the limit in any 60 seconds. Tokens are an account
that fills by the limit each minute and holds no more than that: an answer may overdraw it, and the next requests wait
until it is in credit again, so that the limit holds on average however large or many the answers were.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from agentforge.config import ProjectConfig

__all__ = ["RateLimit", "Rates", "rate_limits"]

_MINUTE_S = 60.0
_NAP_S = (0.001, 1.0)
"""How long, at least and at most, a wait goes on before clock, account and limit are looked at again."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a model may be asked; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


def rate_limits(config: ProjectConfig) -> dict[str, RateLimit]:
    """Return the limits that a project's configuration sets, by alias."""
    return {
        alias: RateLimit(model.requests_per_minute, model.tokens_per_minute)
        for alias, model in config.models.items()
        if model.requests_per_minute is not None or model.tokens_per_minute is not None
    }


class Rates:
    """The rates of one host. All methods on the engine's loop; `clock` and `sleep` are in seconds."""

    def __init__(
        self,
        limits: Mapping[str, RateLimit] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._meters: dict[str, _Meter] = {}
        self.set_limits(limits or {})

    def set_limits(self, limits: Mapping[str, RateLimit]) -> None:
        """Go by other limits from now on; what was used in the last minute still counts."""
        now = self._clock()
        for alias in limits.keys() | self._meters.keys():
            meter = self._meters.setdefault(alias, _Meter(now))
            meter.set_limit(limits.get(alias, RateLimit()), now)

    async def acquire(self, alias: str) -> float:
        """Wait until a request may be sent, and count it; return the seconds waited, 0 for not at all.

        First come, first served.
        Who is cancelled while waiting has used nothing.
        """
        meter = self._meters.get(alias)
        if meter is None:
            return 0.0
        started = self._clock()
        if not meter.waiting and meter.wait_s(started) <= 0:
            meter.count_request(started)
            return 0.0
        meter.waiting += 1
        try:
            async with meter.turn:
                while (wait_s := meter.wait_s(self._clock())) > 0:
                    await self._sleep(min(max(wait_s, _NAP_S[0]), _NAP_S[1]))
                meter.count_request(self._clock())
        finally:
            meter.waiting -= 1
        return self._clock() - started

    def charge(self, alias: str, tokens: int) -> None:
        """Take the tokens of an answer, input and output together, off the account of its model."""
        meter = self._meters.get(alias)
        if meter is not None:
            meter.charge(tokens, self._clock())


class _Meter:
    """What one model was asked lately."""

    def __init__(self, now: float) -> None:
        self.turn = asyncio.Lock()
        """Held by the request that waits for its moment; those behind it wait for the lock, in their order."""
        self.waiting = 0
        self._limit = RateLimit()
        self._sent: deque[float] = deque()
        """When requests of the last minute were let through."""
        self._credit = 0.0
        self._credited = now

    def set_limit(self, limit: RateLimit, now: float) -> None:
        self._fill(now)
        before, after = self._limit.tokens_per_minute, limit.tokens_per_minute
        self._limit = limit
        if after is not None:
            self._credit = float(after) if before is None else min(self._credit, float(after))
        if limit.requests_per_minute is None:
            self._sent.clear()

    def wait_s(self, now: float) -> float:
        """Return how long the next request has to wait as things stand; 0 if it may go."""
        return max(self._requests_wait_s(now), self._tokens_wait_s(now))

    def count_request(self, now: float) -> None:
        if self._limit.requests_per_minute is not None:
            self._sent.append(now)

    def charge(self, tokens: int, now: float) -> None:
        self._fill(now)
        self._credit -= tokens

    def _requests_wait_s(self, now: float) -> float:
        limit = self._limit.requests_per_minute
        while self._sent and self._sent[0] + _MINUTE_S <= now:
            self._sent.popleft()
        if limit is None or len(self._sent) < limit:
            return 0.0
        return self._sent[-limit] + _MINUTE_S - now

    def _tokens_wait_s(self, now: float) -> float:
        limit = self._limit.tokens_per_minute
        self._fill(now)
        if limit is None or self._credit >= 1:
            return 0.0
        return (1 - self._credit) * _MINUTE_S / limit

    def _fill(self, now: float) -> None:
        limit = self._limit.tokens_per_minute
        if limit is not None:
            self._credit = min(float(limit), self._credit + (now - self._credited) * limit / _MINUTE_S)
        self._credited = now
