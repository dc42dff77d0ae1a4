"""Runs that a run starts: submitted once, whatever happens to their parent, and waited for.

What is asked for comes from a worker: nothing of it may widen the fence that the worker is in. A child is an agent
file of its parent's own agent version, or an agent that is given as a value, within its parent's fence.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentforge.engine.execution import Execution
from agentforge.engine.preparing import Submission
from agentforge.errors.runs import ChildRefused
from agentforge.store import FINISHED, JsonObject, Run

if TYPE_CHECKING:
    from agentforge.engine.engine import Engine

__all__ = ["Children"]

_LOOK_S = 0.25
_MOST_AT_ONCE = 1000
"""Children of one run that it may have at once."""
_DEEPEST = 8
"""Generations below a run that nobody started as a child."""
_INHERITED = frozenset(("network", "permissions", "requirements", "sandbox"))
"""Keys of an agent file that an agent which is given as a value can't have: they are its parent's."""
_LIMITS = frozenset(("steps", "time_s", "tokens", "cost_usd"))


class Children:
    """Starts child runs on the engine of their parent."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._under_way: Counter[str] = Counter()
        self._ends: set[asyncio.Future[None]] = set()

    async def call(self, execution: Execution, params: dict[str, Any], key: str) -> JsonObject:
        """Return the result object of the child run with this key, started now or by an earlier attempt.

        Raises ChildRefused, and what submitting a run raises.
        """
        folder = await self._engine.versions.folder(execution.prepared.version)
        submission = self._submission(execution, params, key, folder)
        run = await self._submit(execution.run, submission)
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

    async def _submit(self, parent: Run, submission: Submission) -> Run:
        """Start a child, and count it until it is not executed any more, whoever waits for it. Raises ChildRefused."""
        if submission.generation > _DEEPEST:
            raise ChildRefused(
                f"the run is {_DEEPEST} generations below the one that was asked for: it has no children"
            )
        if self._under_way[parent.run_id] >= _MOST_AT_ONCE:
            raise ChildRefused(f"the run has {_MOST_AT_ONCE} children under way already")
        self._under_way[parent.run_id] += 1
        try:
            run = await self._engine.submit(submission)
        except BaseException:
            self._discount(parent)
            raise
        ended = asyncio.ensure_future(self._engine.ended(run.run_id))
        self._ends.add(ended)
        ended.add_done_callback(self._ends.discard)
        ended.add_done_callback(lambda _: self._discount(parent))
        return run

    def _discount(self, parent: Run) -> None:
        self._under_way[parent.run_id] -= 1
        if not self._under_way[parent.run_id]:
            del self._under_way[parent.run_id]

    def _submission(self, execution: Execution, params: dict[str, Any], key: str, folder: Path) -> Submission:
        """Return the child as the parent's agent version means it: its files are those of that version."""
        return Submission(
            agent=_agent(params["agent"], execution, folder),
            input=params.get("input", ""),
            base_dir=folder,
            on=params.get("on"),
            model=params.get("model"),
            labels=execution.run.labels,
            principal=execution.run.principal,
            variables=execution.prepared.variables,
            submit_key=key,
            parent=execution.run.run_id,
            generation=execution.run.options.get("generation", 0) + 1,
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


def _agent(asked: str | Mapping[str, Any], execution: Execution, folder: Path) -> str | Mapping[str, Any]:
    """Return the agent that a run asks for. Raises ChildRefused for one that it may not have."""
    if isinstance(asked, str):
        path = (folder / asked).resolve()
        if "\0" in asked or not path.is_relative_to(folder.resolve()):
            raise ChildRefused(f"`{asked}` is not in the agent's own folder")
        return asked
    limits = asked["limits"] if isinstance(asked.get("limits"), dict) else {}
    wider = {*asked} & _INHERITED | {f"limits.{name}" for name in {*limits} - _LIMITS}
    if wider:
        named = ", ".join(f"`{str(key)[:50]}`" for key in sorted(wider)[:10])
        raise ChildRefused(f"an agent that a run gives as a value has no {named}: they are its parent's")
    own = execution.prepared.definition.file.model_dump(
        mode="json", include={*_INHERITED, "limits"}, exclude_defaults=True
    )
    inherited = {name: value for name, value in own.pop("limits", {}).items() if name not in _LIMITS}
    if inherited:
        own["limits"] = {**inherited, **limits}
    return {**asked, **own}
