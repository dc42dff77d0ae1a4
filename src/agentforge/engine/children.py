"""Runs that a run starts: submitted once, whatever happens to their parent, and waited for."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentforge.engine.execution import Execution
from agentforge.engine.preparing import Submission
from agentforge.store import FINISHED, JsonObject

if TYPE_CHECKING:
    from agentforge.engine.engine import Engine

__all__ = ["Children"]

_LOOK_S = 0.25


class Children:
    """Starts child runs on the engine of their parent."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    async def call(self, execution: Execution, params: dict[str, Any], key: str) -> JsonObject:
        """Return the result object of the child run with this key, started now or by an earlier attempt."""
        folder = await self._engine.versions.folder(execution.prepared.version)
        run = await self._engine.submit(self._submission(execution, params, key, folder))
        try:
            async with asyncio.timeout(params.get("timeout_s")):
                await self._end(execution, run.run_id)
        except TimeoutError:
            await self._engine.cancel(run.run_id)
        except asyncio.CancelledError:
            if execution.cancel_requested.is_set() or execution.failure is not None:
                await self._engine.cancel(run.run_id)
            raise  # else it goes on, and the parent's next attempt finds it
        return await self._engine.result(run.run_id)

    def _submission(self, execution: Execution, params: dict[str, Any], key: str, folder: Path) -> Submission:
        """Return the child as the parent's agent version means it: its files are those of that version."""
        return Submission(
            agent=params["agent"] if isinstance(params.get("agent"), dict) else str(params.get("agent")),
            input=params.get("input", ""),
            base_dir=folder,
            on=params.get("on"),
            model=params.get("model"),
            labels=execution.run.labels,
            principal=execution.run.principal,
            variables=execution.prepared.variables,
            submit_key=key,
            parent=execution.run.run_id,
        )

    async def _end(self, execution: Execution, run_id: str) -> None:
        """Wait for the end of a run, past everything that it waits for itself."""
        while True:
            await self._engine.ended(run_id)
            if self._engine.closing:
                await execution.attempt.never()
            if (await self._engine.get(run_id)).status in FINISHED:
                return
            await asyncio.sleep(_LOOK_S)
