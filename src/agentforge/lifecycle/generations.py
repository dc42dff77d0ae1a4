"""The generations of a project's requests: which there are, and going back to an earlier one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentforge.engine import Engine
from agentforge.engine.provision import Provisioned
from agentforge.environments import Environment, LockEntry, Progress
from agentforge.environments.additions import asked
from agentforge.errors import AgentForgeError
from agentforge.errors.environments import (
    EnvironmentGone,
    GenerationUnknown,
    RequestAmbiguous,
    RequestUnknown,
)

__all__ = ["Generation", "Generations", "packages_of"]


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of a request, and where its environment is."""

    entry: LockEntry
    environment: str | None
    """Id that its environment has or would have; None if that can't be said."""
    built: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        entry = self.entry
        return {
            "request": entry.request,
            "requirements": packages_of(entry),
            "generation": entry.generation,
            "active": entry.active,
            "framework": entry.framework,
            "release": entry.release or None,
            "lock": entry.lock,
            "environment": self.environment,
            "built": self.built,
        }


def packages_of(entry: LockEntry) -> list[str]:
    """Return the additional packages of a request, as users know them."""
    return list(asked(entry.requirements))


class Generations:
    """Works on the `agentforge.lock` of the engine's project."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list(self) -> list[Generation]:
        """Return all generations of all requests, the tools' too. Raises ProjectLockInvalid."""
        pins = await self._engine.provision.pins()
        return await asyncio.to_thread(lambda: [self._placed(entry) for entry in pins])

    async def active(self, request: str, packages: Sequence[str] | None = None) -> LockEntry:
        """Return the active generation of a framework's request.

        Of a request that is there with several sets of additional packages `packages` says which; without them it is
        the one without any. Raises RequestUnknown, RequestAmbiguous.
        """
        found = [each for each in await self._engine.provision.pins() if each.request == request and each.release]
        entries = [each for each in found if each.active]
        if packages is not None:
            chosen = [each for each in entries if packages_of(each) == sorted(packages)]
        else:
            chosen = entries if len(entries) < 2 else [each for each in entries if not each.requirements]
        if chosen:
            return chosen[0]
        if not entries:
            known = sorted({each.request for each in await self._engine.provision.pins() if each.release})
            listed = ", ".join(f"`{each}`" for each in known) or "none"
            raise RequestUnknown(f"`agentforge.lock` has no request `{request}`; it has {listed}")
        sets = "; ".join(" ".join(f"`{line}`" for line in packages_of(each)) or "none" for each in entries)
        raise RequestAmbiguous(
            f"`{request}` is in `agentforge.lock` with several sets of additional packages: {sets}",
            hint="Name those that are meant with `--with PACKAGE`, once for each.",
        )

    async def rollback(
        self,
        request: str,
        to: int | None = None,
        packages: Sequence[str] | None = None,
        *,
        build: bool = False,
        progress: Progress | None = None,
    ) -> tuple[LockEntry, LockEntry, Environment]:
        """Make an earlier generation the active one again; return which was active, which is, and its environment.

        Runs under way go on where they are. `to` may name any generation, without it it is the one before.
        Raises RequestUnknown, RequestAmbiguous, GenerationUnknown, LockUnavailable, PinMoved, and EnvironmentGone where
        the environment is not built and `build` does not ask for it.
        """
        active = await self.active(request, packages)
        target = _target(active, await self._engine.provision.pins(), to)
        found = await asyncio.to_thread(self._engine.provision.generation, target)
        environment = await asyncio.to_thread(self._engine.environments.find, found.request)
        if environment is None:
            if not build:
                raise EnvironmentGone(
                    f"the environment of generation {target.generation} of `{request}` ({target.framework} "
                    f"{target.release}) is not built any more"
                )
            environment = await self._engine.builds.ensure(found.request, found.release, progress)
        return active, await self._engine.provision.activate(target, active), environment

    def _placed(self, entry: LockEntry) -> Generation:
        try:
            request = self._provisioned(entry)
            environment = self._engine.environments.identify(request.request) if request is not None else None
            built = request is not None and self._engine.environments.find(request.request) is not None
        except AgentForgeError:  # the lock, the release or the Python is not here any more: it can't be said
            return Generation(entry, None, False)
        return Generation(entry, environment, built)

    def _provisioned(self, entry: LockEntry) -> Provisioned | None:
        return self._engine.provision.generation(entry) if entry.release else None


def _target(active: LockEntry, pins: Sequence[LockEntry], to: int | None) -> LockEntry:
    history = [each for each in pins if each.key == active.key]
    if to is None:
        earlier = [each for each in history if each.generation < active.generation]
        if not earlier:
            raise GenerationUnknown(
                f"`{active.request}` has no generation before {active.generation}",
                hint="`agentforge env list` shows the generations that there are.",
            )
        return earlier[-1]
    found = next((each for each in history if each.generation == to), None)
    if found is None:
        there = ", ".join(str(each.generation) for each in history)
        raise GenerationUnknown(
            f"`{active.request}` has no generation `{to}`; it has {there}",
            hint=f"`agentforge env rollback {active.request} --to N` with one of them.",
        )
    return found
