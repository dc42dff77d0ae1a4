"""The host as a process (`python -m agentforge.api.server`), or inside of a command: engine plus HTTP on a socket."""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn

from agentforge import __version__
from agentforge.api.app import make_app
from agentforge.api.holding import HostLock, hold
from agentforge.api.place import HostPlace, Told, host_place
from agentforge.api.problems import problem
from agentforge.api.starting import make_state_folder
from agentforge.api.submitting import AsgiApp, DirectSubmit
from agentforge.config import load_project
from agentforge.engine import Engine
from agentforge.errors import AgentForgeError, InternalError
from agentforge.errors.host import SocketUnusable
from agentforge.errors.store import LeaseLost, StoreLocked
from agentforge.gateway.embedded import EmbeddedModel
from agentforge.lifecycle import Health
from agentforge.workers.identity import ProcessId

__all__ = ["HostServer", "main"]

_log = logging.getLogger(__name__)
_DESCRIPTORS = 1 << 17
Scope = MutableMapping[str, Any]


class HostServer:
    """One project's host. `serve` runs it until `stop` is called or it has been idle for long enough."""

    def __init__(
        self,
        place: HostPlace,
        environ: Mapping[str, str] = os.environ,
        catalogue_folders: tuple[Path, ...] = (),
        patience_s: float = 30.0,
        own_process: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`patience_s`: how long to wait for another host of the project to leave.

        A host in an `own_process` leaves when it is idle, and gives runs time to end when it is stopped.
        """
        self._place = place
        self._patience_s = patience_s
        self._own_process = own_process
        self._environ = environ
        self._catalogue_folders = catalogue_folders
        self._clock = clock
        self._config = load_project(place.root, environ).config.host
        self._stopping = asyncio.Event()
        self._leaving_at_once = asyncio.Event()
        self._lost = asyncio.Event()
        self._started = clock()
        self._requests = _Requests()
        self._engine: Engine

    def stop(self) -> None:
        """Have `serve` return once runs under way have ended, or been handed over; a second call has it return soon.

        Call it on the host's loop.
        """
        if self._stopping.is_set():
            self._leaving_at_once.set()
        self._stopping.set()

    async def serve(self, ready: Callable[[], None]) -> None:
        """Serve until the end; `ready` is called once clients can connect.

        Raises StateNotWritable, HostAlreadyRuns, HostGone, RemainsAlive, AF1xx, AF8xx; LeaseLost if another host has
        taken the project.
        """
        make_state_folder(self._place.root)
        async with contextlib.AsyncExitStack() as stack:
            lock = await hold(
                self._place,
                self._told(),
                patience_s=self._patience_s + self._config.lease_s,
                given_up=self._stopping.is_set,
                clock=self._clock,
            )
            stack.callback(lock.close)
            await stack.enter_async_context(_meanwhile(self._beat(lock)))
            embedded = EmbeddedModel(self._place.lock.parent / "embedded")
            stack.push_async_callback(embedded.close)
            self._engine = await self._open_engine(stack, embedded, lock)
            await self._serve_http(ready, lock)

    def _told(self) -> Told:
        process = str(ProcessId.of(os.getpid()))
        return Told(process, self._place.socket, self._place.shared, self._own_process, self._config.lease_s)

    async def _open_engine(self, stack: contextlib.AsyncExitStack, embedded: EmbeddedModel, lock: HostLock) -> Engine:
        """Open the engine. A host that was stopped in the middle of a write is ended first: else nobody could write."""

        def engine() -> Engine:
            return Engine(
                self._place.root,
                embedded=embedded,
                catalogue_folders=self._catalogue_folders,
                environ=self._environ,
                private=(self._place.socket.parent,),
            )

        try:
            return await stack.enter_async_context(engine())
        except StoreLocked:
            if not lock.end_ousted():
                raise
            _log.warning("the host that does not answer was in the middle of a write: it was killed")
            return await stack.enter_async_context(engine())

    async def _serve_http(self, ready: Callable[[], None], lock: HostLock) -> None:
        health = Health(self._engine, self._environ, self._clock)
        routes = make_app(self._engine, self._describe, self.stop, self._stopping.is_set, health=health)
        app = DirectSubmit(routes, self._engine, self._stopping.is_set)
        config = uvicorn.Config(
            self._requests.counted(app),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            ws="none",
            proxy_headers=False,
        )
        server = _Server(config)
        with _listening(self._place.socket) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            async with _meanwhile(self._renew(lock)):
                async with _meanwhile(self._leave_when_idle(lock)):
                    health.begin()
                    ready()
                    await _first(self._stopping, self._lost)
                await health.close()
                await self._end_runs(server)
            server.should_exit = True
            await serving
        if self._lost.is_set():
            raise LeaseLost(f"another host has taken over the project `{self._place.root}`.")

    async def _end_runs(self, server: uvicorn.Server) -> None:
        """Wait for runs under way for some time and hand over the rest; without the lease there is nothing to do."""
        if not self._lost.is_set():
            grace_s = self._config.drain_s if self._own_process else 0.0
            if self._engine.active:
                _log.info("stopping: waiting for %d run(s), %g s at most", self._engine.active, grace_s)
            handing_over = asyncio.create_task(self._engine.hand_over(grace_s))
            await _first(self._leaving_at_once, self._lost, handing_over)
            handing_over.cancel()
            (failure,) = await asyncio.gather(handing_over, return_exceptions=True)
            if failure is None:
                return
            if isinstance(failure, LeaseLost):
                self._lost.set()
            elif isinstance(failure, Exception):
                _log.error("runs under way could not be handed over", exc_info=failure)
        for connection in list(server.server_state.connections):  # who waits here learns it by the end of this
            connection.transport.abort()
        await self._engine.abandon()

    # ---- signs of life

    async def _beat(self, lock: HostLock) -> None:
        """Show other hosts of this machine that this one is there, from the first moment to the last."""
        while True:
            lock.beat(self._clock())
            await asyncio.sleep(self._config.lease_s / 3)

    async def _renew(self, lock: HostLock) -> None:
        """Renew the lease, and learn that it is lost: from the store, from any write of a run, from the lock file."""
        lost = asyncio.create_task(self._engine.lease_lost.wait())
        try:
            while not lost.done() and (lock.held or lock.deleted):
                try:
                    await self._engine.renew_lease()
                except LeaseLost:
                    break
                except AgentForgeError as error:  # a full disk, say: runs fail by it, the host need not
                    _log.warning("the lease can't be renewed: %s", error.message)
                await asyncio.wait([lost], timeout=self._config.lease_s / 3)
        finally:
            lost.cancel()
        _log.warning("another host has taken over the project, leaving")
        self._lost.set()

    async def _leave_when_idle(self, lock: HostLock) -> None:
        """Leave when there was nothing to do for long enough, or when the project's state or the socket is gone."""
        limit = self._config.idle_s
        while True:
            await asyncio.sleep(min(limit, 2.0) / 2)
            if lock.deleted:
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
            if self._own_process and idle_s >= limit:
                _log.info("idle for %g s, leaving", limit)
                self.stop()
                return

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
            "idle_s": self._config.idle_s,
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


@contextlib.asynccontextmanager
async def _meanwhile(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do what never ends for as long as the context lasts."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _first(*awaited: "asyncio.Event | asyncio.Task[None]") -> None:
    """Wait for the first of these."""
    tasks = [asyncio.ensure_future(each.wait()) for each in awaited if isinstance(each, asyncio.Event)]
    given = [each for each in awaited if not isinstance(each, asyncio.Event)]
    try:
        await asyncio.wait([*tasks, *given], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    inode = None
    try:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        except OSError as error:
            raise SocketUnusable(f"nothing can listen on `{path}`: {error.strerror}") from None
        finally:
            os.umask(before)
        inode = path.stat().st_ino
        listener.listen(4096)
        yield listener
    finally:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == inode:  # else it is the one of a host that has taken over
                path.unlink()
        listener.close()


def main() -> int:
    """Run a host until it leaves: started by `agentforge.api.starting`, which waits on `--ready-fd`."""
    parser = argparse.ArgumentParser(prog="agentforge-host")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int, default=None, help="descriptor that gets one line of JSON")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    tell = _Tell(options.ready_fd)
    _allow_descriptors()
    _tune_garbage_collection()
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


def _allow_descriptors() -> None:
    """Take as many descriptors as may be had, for this process and its workers: a run needs two of them here.

    But not a thousand millions, as containers allow: there are programs that try to close each one there could be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _tune_garbage_collection() -> None:
    """Collect less often, and never look at what is imported again: a tenth of a small run's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


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
