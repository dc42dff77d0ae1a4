"""A host inside of the calling process, in a thread of its own: for CI, containers and programs."""

import asyncio
import concurrent.futures
import contextlib
import math
import os
import threading
from dataclasses import replace
from pathlib import Path

from agentforge.api.place import HostPlace, answers

__all__ = ["InlineHost", "has_inline_host"]

_guard = threading.Lock()
_hosts: dict[tuple[int, Path], "InlineHost"] = {}
"""The hosts in this process, by process (a fork has none of them) and project."""


class InlineHost:
    """Made by `InlineHost.join`, which returns once clients can connect; `leave` of the last who joined stops it.

    A project has one in a process: two would wait for each other. Where another process serves the project for
    itself alone, `join` waits for its end.
    """

    def __init__(self, place: HostPlace) -> None:
        self.place = place
        self._users = 0
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._unwanted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="agentforge-host", daemon=True)

    @classmethod
    async def join(cls, place: HostPlace) -> "InlineHost":
        """Return this process's host of the project, started at `place` if there is none.

        Raises what keeps it from starting: HostAlreadyRuns if there is one for all.
        """
        with _guard:
            host = _hosts.get(_key(place.root))
            if host is None or not host.usable:
                host = _hosts[_key(place.root)] = cls(place)
                host._thread.start()
            host._users += 1
        try:
            await asyncio.shield(asyncio.wrap_future(host._ready))
        except BaseException:
            host.leave()
            raise
        return host

    @property
    def usable(self) -> bool:
        """Whether clients can connect, or will be able to."""
        return self._thread.is_alive() and (not self._ready.done() or answers(self.place))

    def leave(self) -> None:
        """Give the host up. The last who does stops it and waits until its workers are gone."""
        with _guard:
            self._users -= 1
            if self._users:
                return
            if _hosts.get(_key(self.place.root)) is self:
                del _hosts[_key(self.place.root)]
        self._unwanted = True  # for a thread that has no loop yet
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)

    async def _serve(self) -> None:
        from agentforge.api.server import HostServer

        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._unwanted:
            self._stop.set()
        _remove_stale_sockets(self.place)
        server = HostServer(self.place, patience_s=math.inf, own_process=False)
        stopping = asyncio.create_task(self._stop.wait())
        stopping.add_done_callback(lambda _: server.stop())
        await server.serve(lambda: self._ready.set_result(None))
        stopping.cancel()


def has_inline_host(root: Path) -> bool:
    """Whether this process has a host of the project that clients can connect to, or will be able to."""
    with _guard:
        host = _hosts.get(_key(root))
        return host is not None and host.usable


def _key(root: Path) -> tuple[int, Path]:
    return os.getpid(), root.resolve()


def _remove_stale_sockets(place: HostPlace) -> None:
    """Remove what killed processes with a host inside have left of this project."""
    project = place.socket.stem.partition("-")[0]
    for path in place.socket.parent.glob(f"{project}-*.sock"):
        pid = path.stem.rpartition("-")[2]
        if pid.isdecimal() and not _lives(int(pid)) and not answers(replace(place, socket=path)):
            path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
