"""What a host tidies up in its project's store: runs past their time, expired answers, files that nothing names."""

import asyncio
import logging
import time
from collections.abc import Callable

from agentforge.engine.responses import ResponseCache
from agentforge.errors import AgentForgeError
from agentforge.store import FINISHED, ProjectId, Store

__all__ = ["Upkeep"]

_log = logging.getLogger(__name__)
_FIRST_S = 30.0
_EVERY_S = 3600.0
_YOUNG_BLOB_S = 3600.0
"""A blob is written before the row that names it."""
_PAGE = 500


class Upkeep:
    """Tidies in the background. Lives on the engine's loop."""

    def __init__(
        self, store: Store, responses: ResponseCache, project: ProjectId, epoch: int, retain_days: float | None,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._store = store
        self._responses = responses
        self._project = project
        self._epoch = epoch
        self._retain_s = None if retain_days is None else retain_days * 86400
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Tidy soon, and every hour then."""
        self._task = asyncio.create_task(self._go_on())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def tidy(self) -> int:
        """Delete what is past its time; return how many runs that were."""
        await self._responses.prune()
        deleted = 0 if self._retain_s is None else await self._delete_runs(self._clock() - self._retain_s)
        if deleted:
            await self._store.collect_blobs(_YOUNG_BLOB_S)
        return deleted

    async def _delete_runs(self, before: float) -> int:
        deleted, cursor = 0, None
        while True:
            runs, cursor = await self._store.list_runs(self._project, before=cursor, limit=_PAGE)
            for run in runs:
                if run.status in FINISHED and (run.finished_at or run.created_at) < before:
                    await self._store.delete_run(run.run_id, self._epoch)
                    deleted += 1
            if cursor is None:
                return deleted

    async def _go_on(self) -> None:
        await asyncio.sleep(_FIRST_S)
        while True:
            try:
                deleted = await self.tidy()
                if deleted:
                    _log.info("deleted %d runs past their time", deleted)
            except AgentForgeError as error:
                _log.warning("the store could not be tidied: %s", error)
            await asyncio.sleep(_EVERY_S)
