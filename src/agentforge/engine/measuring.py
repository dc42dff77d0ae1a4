"""What is measured of releases on this machine, by the way: sizes when somebody asks for them, the rest by probes."""

import asyncio
import contextlib
from collections.abc import Callable

from agentforge.engine.provision import Provision
from agentforge.environments import Environment
from agentforge.errors import AgentForgeError
from agentforge.frameworks import Release
from agentforge.store import Measurement, Store

__all__ = ["Measuring"]

_MIB = 2**20


class Measuring:
    """Keeps measurements in the store. Only environments without additional packages say something of a release."""

    def __init__(self, provision: Provision, store: Store, machine: str, clock: Callable[[], float]) -> None:
        self._provision, self._store, self._machine, self._clock = provision, store, machine, clock

    async def known(self, release: Release) -> list[Measurement]:
        """Return what is known of a release; the size of what is built is measured when it is first asked for."""
        found = await self._store.list_measurements(release.framework.name, release.version, self._machine)
        built = max(await self._plain(release), key=lambda each: each.built_at, default=None)
        size = next((each for each in found if each.name == "size"), None)
        if built is None or (size is not None and size.at >= built.built_at):
            return found
        try:
            mib = round(await asyncio.to_thread(lambda: built.size_bytes) / _MIB, 1)
        except OSError:  # it has been removed meanwhile
            return found
        fresh = self._measurement(release, "size", mib, "MiB", f"agentforge framework compare {release.reference}")
        await self._store.record_measurements([fresh])
        return [*(each for each in found if each.name != "size"), fresh]

    async def probed(
        self, environment: Environment, release: Release, start_s: float | None, memory_mib: float | None, *, busy: bool
    ) -> None:
        """Keep what a probe has measured; a time of a `busy` machine only where there is none."""
        if environment not in await self._plain(release):
            return
        command, found = f"agentforge framework health {release.reference} --probe", []
        if start_s is not None and not (busy and await self._has(release, "import")):
            found.append(self._measurement(release, "import", round(start_s * 1000), "ms", command))
        if memory_mib is not None:
            found.append(self._measurement(release, "memory", memory_mib, "MiB", command))
        if found:
            await self._store.record_measurements(found)

    async def _has(self, release: Release, name: str) -> bool:
        found = await self._store.list_measurements(release.framework.name, release.version, self._machine)
        return any(each.name == name for each in found)

    async def _plain(self, release: Release) -> list[Environment]:
        """Return the environments of a release that nobody added packages to, as far as that is known."""
        locks: set[str] = set()
        added: set[str] = set()
        with contextlib.suppress(AgentForgeError):
            for entry in await self._provision.pins():
                if (entry.framework, entry.release) == (release.framework.name, release.version):
                    (added if entry.requirements else locks).add(entry.lock)
        if release.tested:
            with contextlib.suppress(AgentForgeError):
                locks.add((await self._provision.environments.lock(release)).digest)
        return [
            each
            for each in await asyncio.to_thread(self._provision.environments.list_standing)
            if (each.framework, each.release) == (release.framework.name, release.version)
            and (each.lock_digest in locks or not (release.tested or each.lock_digest in added))
        ]

    def _measurement(self, release: Release, name: str, value: float, unit: str, command: str) -> Measurement:
        at = self._clock()
        return Measurement(release.framework.name, release.version, self._machine, name, value, unit, at, command)
