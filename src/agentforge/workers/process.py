"""One worker: from the started process through the handshake to its end."""

import asyncio
import contextlib
import functools
import os
import shutil
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from agentforge.errors.workers import HandshakeFailed, WorkerDied, WorkerSilent, WorkerStartFailed
from agentforge.workers.launch import Launched, launch
from agentforge.workers.remains import WorkersFolder
from agentforge.workers.spec import WorkerSpec
from agentforge_worker.wire import (
    PROTOCOL_VERSION,
    DoorError,
    Method,
    Peer,
    PeerGone,
    RpcError,
    compatible,
    receive_preamble,
)

__all__ = ["Handlers", "Worker", "WorkerTimeouts"]

Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkerTimeouts:
    """Seconds granted to a worker for what it has to do."""

    start_s: float = 120.0
    heartbeat_s: float = 2.0
    silence_s: float = 60.0
    shutdown_s: float = 2.0
    terminate_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Handlers:
    """What a worker may ask of its host, given by the engine. The first argument is the worker."""

    tool_call: Callable[["Worker", Params], Awaitable[Any]] | None = None
    event: Callable[["Worker", Params], None] | None = None
    log: Callable[["Worker", Params], None] | None = None
    warn: Callable[["Worker", Params], None] | None = None
    effects: Mapping[str, Callable[["Worker", Params], Awaitable[Any]]] = field(default_factory=dict)
    """By method, the effects other than tool calls."""


class Worker:
    """A live worker. Made by `Worker.start`; `ended` is done once its process is gone."""

    def __init__(self, worker_id: str, spec: WorkerSpec, launched: Launched, timeouts: WorkerTimeouts) -> None:
        self.id = worker_id
        self.spec = spec
        self.pid = launched.process.pid
        self.home = launched.home
        self.door: socket.socket | None = None
        self.hello: Params = {}
        self.rss_mib = 0.0
        self.opened: dict[str, list[str]] = {}
        """The agents that it has built, each with what was warned of then."""
        self.native_token = ""
        """The key of a native agent's own clients, the same for all its runs, which go one at a time."""
        self.started_at = time.time()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._launched = launched
        self._timeouts = timeouts
        self._peer: Peer | None = None
        self._last_seen = time.monotonic()
        self._reason = ""
        self._last_words = ""
        self._watchers: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls,
        worker_id: str,
        spec: WorkerSpec,
        *,
        pyz: Path,
        folder: Path,
        handlers: Handlers,
        timeouts: WorkerTimeouts = WorkerTimeouts(),
        workers: WorkersFolder | None = None,
    ) -> "Worker":
        """Start a worker and shake hands with it; `workers` is where those of a host are.

        Raises WorkerStartFailed when the process does not come up, HandshakeFailed when it comes up wrong, LeaseLost
        when a later host serves the project.
        """
        try:
            launched = await launch(spec, pyz, folder, workers)
        except OSError as error:
            raise WorkerStartFailed(f"`{spec.python}` can't be started: {error.strerror}") from error
        worker = cls(worker_id, spec, launched, timeouts)
        worker._watchers.append(asyncio.create_task(worker._reap()))
        try:
            async with asyncio.timeout(timeouts.start_s):
                await worker._shake_hands(handlers)
        except TimeoutError:
            await worker.kill(f"no handshake within {timeouts.start_s:g} s")
            raise WorkerStartFailed(f"worker `{spec.label}` did not answer within {timeouts.start_s:g} s") from None
        except BaseException:
            await worker.kill("handshake failed")
            raise
        worker._watchers.append(asyncio.create_task(worker._watch()))
        return worker

    # ---- what the engine uses

    async def call(self, method: str, params: Params, timeout_s: float | None = None) -> Any:
        """Send a request to the worker.

        Raises RpcError for an error answer, WorkerDied or WorkerSilent when the worker ends first, TimeoutError.
        """
        assert self._peer is not None
        try:
            return await self._peer.call(method, params, timeout_s)
        except PeerGone as error:
            reason = await asyncio.shield(self.ended)
            if self._reason.startswith("silent"):
                raise WorkerSilent(f"worker `{self.id}` of `{self.spec.label}` was {reason}") from error
            raise WorkerDied(f"worker `{self.id}` of `{self.spec.label}` ended: {reason}") from error

    def notify(self, method: str, params: Params) -> None:
        """Send a notification to the worker."""
        assert self._peer is not None
        self._peer.notify(method, params)

    @property
    def alive(self) -> bool:
        """Whether the worker can be given work."""
        return not self.ended.done() and not self._reason and self._peer is not None and not self._peer.closed.done()

    async def stop(self, reason: str = "stopped") -> None:
        """End the worker in order: ask, then SIGTERM, then SIGKILL, with a grace time each."""
        self._reason = self._reason or reason
        if self._peer is not None and not self._peer.closed.done():
            with contextlib.suppress(TimeoutError, PeerGone, RpcError):
                await self._peer.call(Method.SHUTDOWN, {}, self._timeouts.shutdown_s)
        if await self._gone_within(self._timeouts.shutdown_s):
            return
        self._signal(signal.SIGTERM)
        if not await self._gone_within(self._timeouts.terminate_s):
            await self.kill(reason)

    async def kill(self, reason: str) -> None:
        """End the worker and its children now."""
        self._reason = self._reason or reason
        self._signal(signal.SIGKILL)
        await asyncio.shield(self.ended)

    # ---- inside

    async def _shake_hands(self, handlers: Handlers) -> None:
        connection = self._launched.connection
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        await self._readable(connection)
        try:
            self.door = receive_preamble(connection)
        except (DoorError, OSError) as error:
            if await self._gone_within(1.0):  # its end is what made the connection readable
                raise WorkerStartFailed(f"worker `{self.spec.label}` ended at its start{self._said()}") from error
            raise HandshakeFailed(f"worker `{self.spec.label}` did not start as one: {error}{self._said()}") from error
        if (self.door is None) != (self.spec.kind == "tools"):
            raise HandshakeFailed(f"worker `{self.spec.label}` handed over the wrong kind of door")
        self._peer = Peer(
            self._bind_handlers(handlers), self._bind_listeners(handlers), dumps=msgspec.json.encode, loads=_loads
        )
        peer = self._peer
        await loop.create_unix_connection(lambda: peer, sock=connection)
        self._watchers.append(asyncio.create_task(self._follow(peer)))
        try:
            hello = await peer.call(Method.INITIALIZE, self._introduction())
        except RpcError as error:
            raise _handshake_error(self.spec, error) from error
        except PeerGone as error:
            raise WorkerStartFailed(f"worker `{self.spec.label}` ended at its start{self._said()}") from error
        if not isinstance(hello, dict) or not compatible(str(hello.get("protocol_version"))):
            raise HandshakeFailed(f"worker `{self.spec.label}` does not speak protocol {PROTOCOL_VERSION}")
        self.hello = hello

    async def _readable(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(connection, ready.set)
        self.ended.add_done_callback(lambda _: ready.set())
        try:
            await ready.wait()
        finally:
            loop.remove_reader(connection)
        if self.ended.done():
            raise WorkerStartFailed(f"worker `{self.spec.label}` ended at its start{self._said()}")

    def _introduction(self) -> Params:
        params: Params = {
            "protocol_version": PROTOCOL_VERSION,
            "kind": self.spec.kind,
            "worker_id": self.id,
            "heartbeat_s": self._timeouts.heartbeat_s,
        }
        if self.spec.adapter is not None:
            adapter = self.spec.adapter
            params["adapter"] = {
                "folder": str(adapter.folder),
                "module": adapter.module,
                "class": adapter.class_name,
            }
        return params

    def _bind_handlers(self, handlers: Handlers) -> Mapping[str, Callable[[Params], Awaitable[Any]]]:
        requests = dict(handlers.effects)
        if handlers.tool_call is not None:
            requests[Method.TOOL_CALL] = handlers.tool_call
        return {method: functools.partial(handler, self) for method, handler in requests.items()}

    def _bind_listeners(self, handlers: Handlers) -> Mapping[str, Callable[[Params], None]]:
        listeners: dict[str, Callable[[Params], None]] = {Method.HEARTBEAT: self._beat}
        for method, handler in (
            (Method.EVENT_EMIT, handlers.event),
            (Method.LOG_WRITE, handlers.log),
            (Method.RUN_WARN, handlers.warn),
        ):
            if handler is not None:
                listeners[method] = self._listener(handler)
        return listeners

    def _listener(self, handler: Callable[["Worker", Params], None]) -> Callable[[Params], None]:
        def listen(params: Params) -> None:
            self._last_seen = time.monotonic()
            handler(self, params)

        return listen

    def _beat(self, params: Params) -> None:
        self._last_seen = time.monotonic()
        rss = params.get("rss_mib")
        if isinstance(rss, int | float):
            self.rss_mib = float(rss)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._timeouts.silence_s / 4)
            silent_s = time.monotonic() - self._last_seen
            if silent_s > self._timeouts.silence_s:
                await self.kill(f"silent for {silent_s:.0f} s")

    async def _follow(self, peer: Peer) -> None:
        """Give a process up whose connection has ended, in order or by a broken protocol."""
        reason = await asyncio.shield(peer.closed)
        if reason and not self._reason:
            self._reason = reason
        if not await self._gone_within(self._timeouts.terminate_s):
            await self.kill(reason or "left its connection")

    async def _reap(self) -> None:
        status = await self._launched.process.wait()
        self._last_words = self._read_log()
        self._signal(signal.SIGKILL)  # its children must not outlive it
        reason = self._reason or (self._peer.closed.result() if self._peer and self._peer.closed.done() else "")
        if self._peer is not None:
            self._peer.abort("the process ended")
        else:
            self._launched.connection.close()
        if self.door is not None:
            self.door.close()
        for task in self._watchers[1:]:
            task.cancel()
        if not self.ended.done():
            self.ended.set_result(" ".join(part for part in (reason, _status_text(status)) if part))
        await asyncio.to_thread(shutil.rmtree, self.home.parent, True)

    async def _gone_within(self, seconds: float) -> bool:
        await asyncio.wait([asyncio.shield(self.ended)], timeout=seconds)
        return self.ended.done()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _said(self) -> str:
        text = self._last_words or self._read_log()
        return f"; it said: {text}" if text else ""

    def _read_log(self) -> str:
        try:
            return self._launched.log.read_text("utf-8", "replace").strip()[-2000:]
        except OSError:
            return ""


def _loads(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


def _status_text(status: int) -> str:
    if status < 0:
        names = {each.value: each.name for each in signal.Signals}
        return f"(killed by {names.get(-status, f'signal {-status}')})"
    return f"(exit status {status})"


def _handshake_error(spec: WorkerSpec, error: RpcError) -> HandshakeFailed:
    info = error.data if isinstance(error.data, dict) else {}
    details = info.get("details") or {}
    return HandshakeFailed(f"worker `{spec.label}` could not load its adapter: {error.message}", **details)
