"""The host as a process (`python -m agentforge.api.server`), or inside of a command: engine plus HTTP on a socket."""

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import uvicorn

from agentforge import __version__
from agentforge.api.app import make_app
from agentforge.api.place import HostPlace, answers, host_place
from agentforge.api.problems import problem
from agentforge.api.starting import make_state_folder
from agentforge.engine import Engine
from agentforge.errors import AgentForgeError, InternalError
from agentforge.errors.host import HostAlreadyRuns
from agentforge.gateway.embedded import EmbeddedModel

__all__ = ["HostServer", "main"]

_log = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
AsgiApp = Callable[[Scope, Callable[..., Awaitable[Any]], Callable[..., Awaitable[Any]]], Awaitable[None]]


class HostServer:
    """One project's host. `serve` runs it until `stop` is called or it has been idle for long enough."""

    def __init__(
        self,
        place: HostPlace,
        environ: Mapping[str, str] = os.environ,
        catalogue_folders: tuple[Path, ...] = (),
        patience_s: float = 30.0,
        leaves_when_idle: bool = True,
    ) -> None:
        """`patience_s`: how long to wait for another host of the project to leave."""
        self._place = place
        self._patience_s = patience_s
        self._leaves_when_idle = leaves_when_idle
        self._environ = environ
        self._catalogue_folders = catalogue_folders
        self._stopping = asyncio.Event()
        self._started = time.time()
        self._requests = _Requests()
        self._engine: Engine

    def stop(self) -> None:
        """Have `serve` return soon; runs under way end as failed. Call it on the host's loop."""
        self._stopping.set()

    async def serve(self, ready: Callable[[], None]) -> None:
        """Serve until the end; `ready` is called once clients can connect. Raises HostAlreadyRuns, AF1xx, AF8xx."""
        state = self._place.lock.parent
        make_state_folder(self._place.root)
        async with self._only_host() as lock:
            embedded = EmbeddedModel(state / "embedded")
            try:
                async with Engine(
                    self._place.root,
                    embedded=embedded,
                    catalogue_folders=self._catalogue_folders,
                    environ=self._environ,
                ) as self._engine:
                    await self._serve_http(ready, lock)
            finally:
                await embedded.close()

    @contextlib.asynccontextmanager
    async def _only_host(self) -> AsyncIterator[IO[bytes]]:
        """Hold the project. A host that is about to leave, or serves one command only, is waited for."""
        root = self._place.root
        deadline = time.monotonic() + self._patience_s
        with self._place.lock.open("ab+") as lock:
            while not _taken(lock):
                if answers(host_place(root)) or self._stopping.is_set() or time.monotonic() > deadline:
                    raise HostAlreadyRuns(f"another host already serves `{root}`")
                await asyncio.sleep(0.05)
            yield lock

    async def _serve_http(self, ready: Callable[[], None], lock: IO[bytes]) -> None:
        app = make_app(self._engine, self._describe, self.stop)
        config = uvicorn.Config(
            self._requests.counted(app),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            ws="none",
        )
        server = _Server(config)
        with _listening(self._place.socket) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            idle = asyncio.create_task(self._leave_when_idle())
            _tell_where(self._place, lock)
            ready()
            await self._stopping.wait()
            idle.cancel()
            await self._engine.end_runs()
            server.should_exit = True
            await serving

    async def _leave_when_idle(self) -> None:
        """Leave when there was nothing to do for long enough, or when the project's state or the socket is gone."""
        limit = self._engine.project.config.host.idle_s
        while True:
            await asyncio.sleep(min(limit, 2.0) / 2)
            if not self._place.lock.exists():
                _log.warning("the project's state was deleted, leaving")
                self.stop()
                return
            if self._engine.active or self._requests.active:
                continue
            if not self._place.socket.exists():
                _log.warning("the socket was deleted, leaving")
                self.stop()
                return
            idle_s = time.monotonic() - max(self._requests.last, self._engine.last_active)
            if self._leaves_when_idle and idle_s >= limit:
                _log.info("idle for %g s, leaving", limit)
                self.stop()

    def _describe(self) -> dict[str, Any]:
        workers = [
            {
                "id": worker.id,
                "kind": worker.spec.kind,
                "label": worker.spec.label,
                "environment": worker.spec.environment,
                "pid": worker.pid,
                "runs": runs,
                "rss_mib": round(worker.rss_mib, 1),
            }
            for worker, runs in self._engine.staff.workers()
        ]
        return {
            "version": __version__,
            "pid": os.getpid(),
            "project": str(self._place.root),
            "socket": str(self._place.socket),
            "started_at": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
            "active_runs": self._engine.active,
            "idle_s": self._engine.project.config.host.idle_s,
            "workers": workers,
        }


class _Server(uvicorn.Server):
    """Signals are the host's to handle: runs end before connections do."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Requests:
    """Counts requests under way and remembers when the last one ended."""

    def __init__(self) -> None:
        self.active = 0
        self.last = time.monotonic()

    def counted(self, app: Any) -> AsgiApp:
        async def counting(scope: Scope, receive: Any, send: Any) -> None:
            self.active += 1
            try:
                await app(scope, receive, send)
            finally:
                self.active -= 1
                self.last = time.monotonic()

        return counting


def _taken(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _tell_where(place: HostPlace, lock: IO[bytes]) -> None:
    """Write into the lock file where this host listens, for clients with another runtime folder."""
    lock.truncate(0)
    lock.write(os.fsencode(place.socket) if place.shared else b"")
    lock.flush()


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(1024)
        yield listener
    finally:
        path.unlink(missing_ok=True)
        listener.close()


def main() -> int:
    """Run a host until it leaves: started by `agentforge.api.starting`, which waits on `--ready-fd`."""
    parser = argparse.ArgumentParser(prog="agentforge-host")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int, default=None, help="descriptor that gets one line of JSON")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    tell = _Tell(options.ready_fd)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(options.project, tell))
    except AgentForgeError as error:
        _log.error("%s: %s", error.code, error.message)
        tell(problem(error))
        return error.exit_code
    except Exception as error:
        _log.exception("the host failed")
        tell(problem(InternalError(f"`{type(error).__name__}`: {error}")))
        return InternalError.exit_code
    return 0


async def _serve(root: Path, tell: "_Tell") -> None:
    server = HostServer(host_place(root))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, server.stop)
    await server.serve(lambda: tell({"ready": True, "pid": os.getpid()}))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop

    return uvloop.new_event_loop


class _Tell:
    """Writes one line to whoever started this host."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def __call__(self, message: Mapping[str, Any]) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError), os.fdopen(self._descriptor, "w") as pipe:
                pipe.write(json.dumps(message) + "\n")
            self._descriptor = None


if __name__ == "__main__":
    sys.exit(main())
