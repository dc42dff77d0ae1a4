"""Run tokens: what the framework holds in place of a key."""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agentforge.gateway.types import Grant, Upstream

__all__ = ["TOKEN_PREFIX", "LiveGrant", "TokenTable", "token_in"]

TOKEN_PREFIX = "af-run-"  # noqa: S105  the prefix of tokens, not one


@dataclass(eq=False, slots=True)
class LiveGrant:
    """A grant whose token is valid, and what is under way for it."""

    token: str
    grant: Grant
    calls: set["asyncio.Task[object]"] = field(default_factory=set)
    """The handlers of its calls: cancelling one aborts the call."""
    reports: set["asyncio.Task[None]"] = field(default_factory=set)
    """Observer calls that outlive their handler."""

    def upstream(self, model: str) -> Upstream | None:
        """Return the upstream that a request's `model` means: an alias, else a wire model name."""
        upstreams = self.grant.upstreams
        if found := upstreams.get(model):
            return found
        return next((u for u in upstreams.values() if u.model == model), None)

    async def drain(self) -> None:
        """Abort what is under way and return once every call has been reported."""
        current = asyncio.current_task()
        calls = self.calls - {current}
        for task in calls:
            task.cancel()
        # One after the other: a call that was cancelled while it committed leaves its report behind.
        await _ended(calls)
        await _ended(self.reports - {current})


class TokenTable:
    """All valid tokens. One is good on the door of its own worker only."""

    def __init__(self) -> None:
        self._live: dict[bytes, LiveGrant] = {}
        """By digest: how long a look-up takes says nothing of how much of a guessed token is right."""

    def add(self, token: str, grant: Grant) -> None:
        """Make a token valid."""
        self._live[_digest(token)] = LiveGrant(token, grant)

    def remove(self, token: str) -> LiveGrant | None:
        """Make a token invalid; return its grant, or None if it wasn't valid."""
        return self._live.pop(_digest(token), None)

    def find(self, token: str, worker: str) -> LiveGrant | None:
        """Return what a token allows on the door of `worker`."""
        live = self._live.get(_digest(token))
        return live if live is not None and live.grant.worker == worker else None

    def live(self, worker: str | None = None) -> list[LiveGrant]:
        """Return the valid grants, all or those of a worker."""
        return [live for live in self._live.values() if worker is None or live.grant.worker == worker]


def token_in(headers: Mapping[str, str]) -> str:
    """Return the token of a request as OpenAI's clients send it (bearer) or Azure's (`api-key`); empty if none."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return headers.get("api-key", "") or headers.get("x-api-key", "")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


async def _ended(tasks: Iterable["asyncio.Task[object]"] | Iterable["asyncio.Task[None]"]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
