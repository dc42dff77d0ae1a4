"""Whether an environment is still what was built, asked before a worker starts in it.

The staff asks, on the engine's loop. A look at the files takes 25 to 150 ms of processor time beside a start of
seconds, in a thread; workers that start at the same time share one. What a thorough probe has found counts until the
environment is built anew.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict

from agentforge.environments import Environment, Environments, Inspection, inspect
from agentforge.errors.environments import EnvironmentBroken

__all__ = ["Soundness", "broken"]

_SHOWN = 50


class Soundness:
    """What is known of the environments' files."""

    def __init__(self, environments: Environments, look: Callable[[Environment], Inspection] = inspect) -> None:
        """`look` blocks, and is called in a thread."""
        self._environments = environments
        self._look = look
        self._under_way: dict[Environment, asyncio.Future[Inspection]] = {}
        self._next: dict[Environment, asyncio.Future[Inspection]] = {}
        self._condemned: dict[str, tuple[Environment, Inspection]] = {}
        self.on_broken: Callable[[Environment, Inspection], None] = lambda environment, found: None
        """Called on the loop when a look finds one broken."""

    async def require(self, id: str) -> None:
        """Do nothing if the environment is what was built, by a look that begins after this call.

        Raises EnvironmentBroken. One that is not there is somebody else's to tell of.
        """
        environment = self._environments.standing(id)
        if environment is None:
            return
        condemned = self._condemned.get(id)
        if condemned is not None and condemned[0] == environment:
            raise broken(*condemned)
        found = await self._looked(environment)
        if found.broken and self._environments.standing(id) == environment:  # else it was built anew meanwhile
            self.on_broken(environment, found)
            raise broken(environment, found)

    async def _looked(self, environment: Environment) -> Inspection:
        """Return what the next look shows: the one under way may have passed what was damaged since it began."""
        if environment not in self._next:
            self._next[environment] = asyncio.ensure_future(self._look_after(environment))
        return await asyncio.shield(self._next[environment])

    async def _look_after(self, environment: Environment) -> Inspection:
        earlier = self._under_way.get(environment)
        if earlier is not None:
            await asyncio.wait([earlier])
        mine = self._under_way[environment] = self._next.pop(environment)
        try:
            return await asyncio.to_thread(self._look, environment)
        finally:
            if self._under_way.get(environment) is mine:
                del self._under_way[environment]

    def condemn(self, environment: Environment, found: Inspection) -> None:
        """Have no worker start in an environment with such damages; a look at its files need not show them."""
        self._condemned[environment.id] = environment, found

    def acquit(self, id: str) -> None:
        """Take that back: somebody repaired it."""
        self._condemned.pop(id, None)


def broken(environment: Environment, found: Inspection) -> EnvironmentBroken:
    """Return the error of a run that wants a broken environment."""
    return EnvironmentBroken(
        f"the environment `{environment.id}` is broken: {found.problem}",
        hint=f"`agentforge env build --rebuild {environment.id}` makes it anew; runs under way are not disturbed.",
        environment=environment.id,
        damages=[asdict(damage) for damage in found.broken[:_SHOWN]],
    )
