"""The response cache: an identical request to the same model gets the answer that was recorded for an earlier one.

The journal asks it before a request goes upstream, and hands over each complete answer. Identical means: the same
upstream, address and model, and the same request hash, so the same body down to `stream` and sampling settings (a
stream is kept as the stream it was). A hit costs no tokens. The cache belongs to the project, not to the run, and
nothing depends on it: where the store fails, the model is asked.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import msgspec

from agentforge.config import ProjectConfig
from agentforge.gateway import ModelResponse, Upstream, Usage, request_hash
from agentforge.store import ProjectId

__all__ = ["ResponseCache", "ResponseStore", "cache_ttl_s", "response_key"]

_DEFAULT_TTL_S = 3600.0
"""For agents that ask for the cache where their model's alias says nothing of it."""
_log = logging.getLogger(__name__)


class ResponseStore(Protocol):
    """The part of the store that keeps answers: bytes by key, until they expire."""

    async def cached_response(self, project: ProjectId, key: str, now: float) -> bytes | None:
        """Return what is kept and has not expired."""
        ...

    async def cache_response(
        self, project: ProjectId, key: str, response: bytes, created_at: float, expires_at: float
    ) -> None:
        """Keep an answer in place of an earlier one."""
        ...

    async def prune_responses(self, project: ProjectId, now: float) -> object:
        """Delete what has expired."""
        ...

    async def clear_responses(self, project: ProjectId) -> object:
        """Delete everything."""
        ...


class _Kept(msgspec.Struct):
    """What the store gets: its own time too, so that a shorter time to live holds for what is kept already."""

    created_at: float
    response: msgspec.Raw


def response_key(upstream: Upstream, request_hash_: str) -> str:
    """Return the key (SHA-256, hex) of what a model answers to a request."""
    return request_hash("response", [upstream.kind, upstream.base_url, upstream.model, request_hash_])


def cache_ttl_s(config: ProjectConfig, alias: str, agent: bool | None, run: bool | None = None) -> float:
    """Return for how many seconds answers serve a run's calls, 0 for not at all.

    `agent` is `cache` of the agent file, `run` that of the run's submission, which overrides it.
    """
    wanted = agent if run is None else run
    if wanted is False:
        return 0.0
    model = config.models.get(alias)
    ttl_s = model.cache_ttl_s if model is not None else 0.0
    return ttl_s or (_DEFAULT_TTL_S if wanted else 0.0)


class ResponseCache:
    """The cache of one project. All methods on the engine's loop."""

    def __init__(self, store: ResponseStore, project: ProjectId, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._project = project
        self._clock = clock
        self._writes: set[asyncio.Task[None]] = set()

    async def find(self, key: str, ttl_s: float) -> ModelResponse | None:
        """Return an answer that is younger than `ttl_s`; its usage is zero, since nothing was used."""
        if ttl_s <= 0:
            return None
        now = self._clock()
        try:
            record = await self._store.cached_response(self._project, key, now)
            return None if record is None else _read(record, now, ttl_s)
        except Exception as error:
            _log.warning("the response cache can't be read, the model is asked: %s", error)
            return None

    def keep(self, key: str, response: ModelResponse, ttl_s: float) -> None:
        """Keep a complete answer for `ttl_s`. Nobody waits for it."""
        if ttl_s <= 0:
            return
        write = asyncio.ensure_future(self._keep(key, response, ttl_s))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def prune(self) -> None:
        """Delete what has expired."""
        await self._store.prune_responses(self._project, self._clock())

    async def clear(self) -> None:
        """Delete everything, also what is being kept just now."""
        await self.close()
        await self._store.clear_responses(self._project)

    async def close(self) -> None:
        """Wait for what is being kept; before the store is closed."""
        await asyncio.gather(*self._writes)

    async def _keep(self, key: str, response: ModelResponse, ttl_s: float) -> None:
        now = self._clock()
        record = msgspec.json.encode(_Kept(now, msgspec.Raw(response.to_record())))
        try:
            await self._store.cache_response(self._project, key, record, now, now + ttl_s)
        except Exception as error:
            _log.warning("an answer could not be put into the response cache: %s", error)


def _read(record: bytes, now: float, ttl_s: float) -> ModelResponse | None:
    kept = msgspec.json.decode(record, type=_Kept)
    if not 0 <= now - kept.created_at < ttl_s:
        return None
    return replace(ModelResponse.from_record(bytes(kept.response)), usage=Usage(0, 0))
