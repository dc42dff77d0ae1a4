"""The watch over a host's sandboxes: sees to the limits that the kernel does not hold them to by itself.

One for each host. It looks at the processes of every worker a few times a second, and every few seconds at the
workspaces of the runs under way and at what else their workers may write, in threads of its own.
"""

import asyncio
import collections
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

from agentforge.errors.sandbox import CommonsExceeded, DiskExceeded, LimitExceeded
from agentforge.sandbox.cgroups import Cgroups
from agentforge.sandbox.fence import Fence
from agentforge.sandbox.guard import Commons, Guard
from agentforge.sandbox.hierarchies import Controller
from agentforge.sandbox.processes import forks, tree
from agentforge.sandbox.ward import Ward

__all__ = ["Watch"]

_log = logging.getLogger(__name__)
T = TypeVar("T")
_LOOK_S = 0.25
_HURRY_S = 0.05
_TICK_S = 0.1


class Watch:
    """Watches the workers of one host, from `begin` to `close`. Its methods are for the host's loop."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._wards: set[Ward] = set()
        self._guards: set[Guard] = set()
        self._guarded: collections.Counter[Path] = collections.Counter()
        self._commons: dict[Path, Commons] = {}
        self._measured = asyncio.Event()
        self._looking = ThreadPoolExecutor(1, "watch")
        self._measuring = ThreadPoolExecutor(1, "measure")
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving: set[asyncio.Future[None]] = set()

    @classmethod
    async def of(cls, state: Path, epoch: int) -> Self:
        """Return the watch of a host that has a project's lease, once what an earlier host has left is removed."""
        cgroups = await asyncio.to_thread(Cgroups.find, state, epoch, move=True)
        for folder in await asyncio.to_thread(cgroups.clear):
            _log.warning("the cgroup `%s`, which an earlier host has left, can't be removed", folder)
        return cls(cgroups)

    def begin(self) -> None:
        """Begin to look."""
        self._tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._measure())]

    async def close(self) -> None:
        """Let go of all workers, which have ended by then; returns once their cgroups are removed."""
        for task in self._tasks:
            task.cancel()
        for ward in list(self._wards):
            self._let_go(ward)
        await asyncio.gather(*self._tasks, *self._leaving, return_exceptions=True)
        self._looking.shutdown()
        self._measuring.shutdown()

    @property
    def cgroups(self) -> Mapping[Controller, str]:
        """The controllers that this host can make groups for, each with its kind."""
        return self._cgroups.held

    async def admit(
        self,
        worker: str,
        root: int,
        fence: Fence,
        exceeded: Callable[[LimitExceeded], None],
        scratch: Sequence[Path] = (),
    ) -> Ward:
        """Hold a worker that was just started to its limits; `root` is its outermost process, the host's child.

        `exceeded` is called with what it has to be ended for; `scratch` are folders of its own that are on the disk.
        """

        def make() -> Ward:
            cgroup = self._cgroups.make(worker, fence.limits)
            cgroup.take(lambda: tree(root))
            return Ward(worker, root, fence, cgroup, exceeded)

        making = asyncio.get_running_loop().run_in_executor(self._looking, make)
        making.add_done_callback(lambda made: self._wards.add(made.result()))
        try:
            ward = await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(lambda made: self._let_go(made.result()))
            raise
        for folder in scratch if ward.held["scratch_mib"] == "watch" else ():
            full = functools.partial(self._end, ward, _scratch_full(fence))
            ward.guards.append(self.guard(folder, fence.limits.scratch_mib, full))
        return ward

    async def settle(self, ward: Ward) -> None:
        """Return once it is known what was in the workspaces before a worker came, unless it has ended."""
        while ward in self._wards and not self._knows(ward.workspaces):
            self._measured.clear()
            await self._measured.wait()

    async def dismiss(self, ward: Ward) -> None:
        """Let go of a worker that has ended; returns once its cgroup is removed."""
        await self._let_go(ward)

    def guard(self, folder: Path, limit_mib: int, exceeded: Callable[[], None]) -> Guard:
        """Call `exceeded` when a folder grows beyond a size, until the guard is closed."""
        guard = Guard(folder, limit_mib, exceeded)
        self._guards.add(guard)
        self._guarded[folder] += 1
        return guard

    # ---- inside

    def _knows(self, workspaces: Path | None) -> bool:
        if workspaces is None:
            return True
        commons = self._commons.get(workspaces)
        return commons is not None and commons.known and not (commons.closed or commons.over)

    def _let_go(self, ward: Ward) -> "asyncio.Future[None]":
        self._wards.discard(ward)
        for guard in ward.guards:
            guard.close()
        leaving = asyncio.ensure_future(asyncio.to_thread(ward.release))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        return leaving

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_HURRY_S if any(ward.hurry for ward in self._wards) else _LOOK_S)
            wards = [ward for ward in self._wards if not ward.over]
            if not wards:
                continue
            for ward, error in await loop.run_in_executor(self._looking, _looked_at, wards):
                self._end(ward, error)

    def _end(self, ward: Ward, error: LimitExceeded) -> None:
        if not ward.over:
            ward.over = True
            _log.warning("worker %s is ended: %s", ward.worker, error.message)
            _tried(lambda: ward.exceeded(error))

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            self._renew_commons()
            watched = (*self._guards, *self._commons.values())
            guards = [guard for guard in watched if guard.due <= now or guard.closed or guard.over]
            self._forget({guard for guard in guards if guard.closed or guard.over})
            for guard in await loop.run_in_executor(self._measuring, _measured, guards) if guards else ():
                guard.over = True
                if not guard.closed:
                    _tried(guard.exceeded)
            self._measured.set()
            wards = [ward for ward in self._wards if ward.search_due <= now and not ward.over]
            for ward, error in await loop.run_in_executor(self._measuring, _searched, wards) if wards else ():
                self._end(ward, error)

    def _renew_commons(self) -> None:
        """Have workspaces guarded for as long as there is a worker that may write them."""
        wards = [(ward.workspaces, ward.limits.disk_mib) for ward in self._wards if not ward.over]
        used = {folder: limit_mib for folder, limit_mib in wards if folder is not None}
        for unused in self._commons.keys() - used.keys():
            self._commons[unused].close()
        for new in used.keys() - self._commons.keys():
            exceeded = functools.partial(self._end_all, new, used[new])
            self._commons[new] = Commons(new, used[new], self._guarded, exceeded)

    def _end_all(self, folder: Path, limit_mib: int) -> None:
        """End whoever may have made a folder of workspaces grow."""
        error = CommonsExceeded(
            f"workspaces of its agent grew, beside those of the runs under way, by more than `disk_mib: {limit_mib}`"
        )
        for ward in [each for each in self._wards if each.workspaces == folder]:
            self._end(ward, error)

    def _forget(self, ended: Set[Guard]) -> None:
        """Let go of guards; what their folders hold comes to the commons that they are in."""
        for commons in [each for each in ended if self._commons.get(each.folder) is each]:
            del self._commons[commons.folder]
        for guard in ended & self._guards:
            self._guards.remove(guard)
            self._guarded[guard.folder] -= 1
            if self._guarded[guard.folder]:
                continue
            del self._guarded[guard.folder]
            for folder in (guard.folder, guard.folder.parent):
                if folder in self._commons:
                    self._commons[folder].receive(guard)


def _looked_at(wards: Sequence[Ward]) -> list[tuple[Ward, LimitExceeded]]:
    started = forks()
    found = [(ward, _tried(functools.partial(ward.look, started))) for ward in wards]
    return [(ward, error) for ward, error in found if error is not None]


def _searched(wards: Sequence[Ward]) -> list[tuple[Ward, LimitExceeded]]:
    found = [(ward, _tried(ward.search)) for ward in wards]
    return [(ward, error) for ward, error in found if error is not None]


def _measured(guards: Sequence[Guard]) -> list[Guard]:
    for guard in guards:
        if guard.closed or guard.over:
            _tried(guard.drop)
    return [guard for guard in guards if not (guard.closed or guard.over) and _tried(guard.measure)]


def _tried(look: Callable[[], T]) -> T | None:
    """Return what a look at one worker gives; None if it failed: the watch goes on, for that one and all others."""
    try:
        return look()
    except (OSError, ValueError, IndexError):
        return None  # processes and files that come and go
    except Exception:
        _log.exception("a worker could not be looked at")
        return None


def _scratch_full(fence: Fence) -> DiskExceeded:
    return DiskExceeded(f"its HOME or its temporary folder grew beyond `scratch_mib: {fence.limits.scratch_mib}`")
