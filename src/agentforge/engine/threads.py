"""Conversations over several runs, on whichever frameworks: listed, read, taken away, deleted.

Who calls it: the API, for `agentforge threads`. Messages are in the neutral form that any framework continues.
"""

import builtins
from collections.abc import Sequence

from agentforge.engine.times import iso
from agentforge.errors.runs import RunUnderWay, ThreadUnknown
from agentforge.store import JsonObject, ProjectId, Run, Store, Thread

__all__ = ["Threads"]

_RUNS = 200
"""Of a thread's runs, how many of the newest are looked at for the frameworks that it used."""


class Threads:
    """The threads of the projects in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, project: ProjectId) -> list[JsonObject]:
        """Return the project's threads, the one used last first: `messages` is how many, `frameworks` ran in it."""
        return [_summary(each, await self._runs(each)) for each in await self._store.list_threads(project)]

    async def show(self, project: ProjectId, name: str) -> JsonObject:
        """Return a thread with its `messages`, each with its number, its time and its run. Raises ThreadUnknown."""
        thread = await self._known(project, name)
        messages = [
            {**each.message, "seq": each.seq, "at": iso(each.at), "run_id": each.run_id}
            for each in await self._store.list_messages(project, name, limit=None)
        ]
        return {**_summary(thread, await self._runs(thread)), "messages": messages}

    async def export(self, project: ProjectId, name: str) -> JsonObject:
        """Return a thread as a value of its own: its messages and which run on which release said what.

        Raises ThreadUnknown.
        """
        thread = await self._known(project, name)
        runs = {run.run_id: run for run in await self._runs(thread, limit=None)}
        kept = await self._store.list_messages(project, name, limit=None)
        return {
            "format": "agentforge-thread",
            "version": 1,
            "thread": name,
            "messages": [each.message for each in kept],
            "runs": [
                {"run_id": run_id, "agent": run.agent_name, "framework": run.framework, "release": run.release}
                for run_id in dict.fromkeys(each.run_id for each in kept)
                if (run := runs.get(run_id)) is not None
            ],
        }

    async def delete(self, project: ProjectId, name: str, epoch: int) -> int:
        """Delete a thread's messages and return how many there were; its runs stay.

        Raises ThreadUnknown, RunUnderWay (a run of it would begin it anew), LeaseLost.
        """
        await self._known(project, name)
        for status in ("running", "queued"):
            found, _ = await self._store.list_runs(project, thread=name, status=status, limit=1)
            if found:
                raise RunUnderWay(f"the run `{found[0].run_id}` of the thread `{name}` is {status}")
        return await self._store.delete_thread(project, name, epoch)

    async def _known(self, project: ProjectId, name: str) -> Thread:
        for thread in await self._store.list_threads(project):
            if thread.thread == name:
                return thread
        raise ThreadUnknown(f"there is no thread `{name}` in this project")

    async def _runs(self, thread: Thread, limit: int | None = _RUNS) -> Sequence[Run]:
        """Return the thread's runs, newest first."""
        runs: builtins.list[Run] = []
        cursor: str | None = None
        while limit is None or len(runs) < limit:
            page, cursor = await self._store.list_runs(thread.project, thread=thread.thread, before=cursor, limit=_RUNS)
            runs += page
            if cursor is None:
                break
        return runs


def _summary(thread: Thread, runs: Sequence[Run]) -> JsonObject:
    return {
        "thread": thread.thread,
        "messages": thread.messages,
        "updated_at": iso(thread.updated_at),
        "last_run": runs[0].run_id if runs else None,
        "frameworks": sorted({run.framework for run in runs}),
    }
