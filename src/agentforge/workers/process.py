"""One worker: from the started process through the handshake to its end."""

import asyncio
import contextlib
import functools
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from agentforge.errors import AgentForgeError
from agentforge.errors.sandbox import Flooded, LimitExceeded
from agentforge.errors.workers import HandshakeFailed, WorkerDied, WorkerSilent, WorkerStartFailed
from agentforge.sandbox import Ward, Watch
from agentforge.workers.aside import aside, dispose
from agentforge.workers.inside import Inside
from agentforge.workers.launch import Launched, launch
from agentforge.workers.line import Line
from agentforge.workers.pace import Pace
from agentforge.workers.remains import WorkersFolder
from agentforge.workers.removal import remove_tree
from agentforge.workers.schemas import check_answer, check_failure, check_message, read_message
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

__all__ = ["Handlers", "Worker", "WorkerTimeouts", "status_text"]

Params = dict[str, Any]
_KILLED = 128
_SAID = ("params", "result", "error")
"""The parts of a message that its sender has words of its own in."""


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
    ended: Callable[["Worker"], None] | None = None
    """Told of a worker's end."""


class Worker:
    """A live worker. Made by `Worker.start`; `ended` is done once its process is gone."""

    def __init__(self, worker_id: str, spec: WorkerSpec, launched: Launched, timeouts: WorkerTimeouts) -> None:
        self.id = worker_id
        self.spec = spec
        self.pid = launched.process.pid
        self.folder = launched.folder
        """What it has on disk for itself; it ends with it."""
        self.door: socket.socket | None = None
        """The listener for its model calls, until somebody takes it to serve it."""
        self.gate: socket.socket | None = None
        """The listener for its way to the network, where its fence has one."""
        self.hello: Params = {}
        self.rss_mib = 0.0
        self.opened: dict[str, list[str]] = {}
        """The agents that it has built, each with what was warned of then."""
        self.native_token = ""
        """The key of a native agent's own clients, the same for all its runs, which go one at a time."""
        self.shared = False
        """Whether it has served more than one run so far: it may use what an earlier one has left behind."""
        self.started_at = time.time()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._launched = launched
        self._timeouts = timeouts
        self._peer: Peer | None = None
        self._last_seen = time.monotonic()
        self._inside: Inside | None = None
        self._run = ""
        self._reason = ""
        self._watched_by: Watch | None = None
        self._ward: Ward | None = None
        self._exceeded: LimitExceeded | None = None
        self._ending: asyncio.Task[None] | None = None
        self._died_of: type[WorkerDied | WorkerSilent] = WorkerDied
        self._pace = Pace(spec.fence.limits.frames_per_s, self._flooded)
        self._hold_s = 0.0
        self._last_words = ""
        self._redact: Callable[[Any], Any] | None = None
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
        redact: Callable[[Any], Any] | None = None,
        watch: Watch | None = None,
    ) -> "Worker":
        """Start a worker and shake hands with it; `workers` is where those of a host are, `watch` its limits' keeper.

        `redact` takes what must go no further, the worker's secrets, out of a JSON value: out of all that it says.

        Raises WorkerStartFailed when the process does not come up, HandshakeFailed when it comes up wrong, LeaseLost
        when a later host serves the project, LimitExceeded when its start alone takes more than it may use.
        """
        try:
            launched = await launch(spec, pyz, folder, workers)
        except OSError as error:
            place = error.filename or spec.python
            raise WorkerStartFailed(f"worker `{spec.label}` can't be started: `{place}`: {error.strerror}") from error
        worker = cls(worker_id, spec, launched, timeouts)
        worker._redact = redact
        if (tell := handlers.ended) is not None:
            worker.ended.add_done_callback(lambda _: tell(worker))
        worker._watchers.append(asyncio.create_task(worker._reap()))
        try:
            async with asyncio.timeout(timeouts.start_s):
                if watch is not None:
                    await worker._be_watched(watch)
                await worker._shake_hands(handlers, workers)
                if watch is not None and worker._ward is not None:
                    await watch.settle(worker._ward)  # most of it is over by now: it went on while the worker started
        except TimeoutError:
            await worker.kill(f"no handshake within {timeouts.start_s:g} s")
            raise WorkerStartFailed(f"worker `{spec.label}` did not answer within {timeouts.start_s:g} s") from None
        except BaseException as error:
            await worker.kill("handshake failed")
            if isinstance(error, AgentForgeError) and worker._exceeded is not None:
                raise worker._named(worker._exceeded) from error
            raise
        worker._watchers.append(asyncio.create_task(worker._watch()))
        return worker

    # ---- what the engine uses

    async def call(self, method: str, params: Params, timeout_s: float | None = None) -> Any:
        """Send a request to the worker.

        Raises RpcError for an error answer, WorkerDied, WorkerSilent or the LimitExceeded that it was ended for when
        the worker ends first, WorkerDied when it answers what the protocol does not allow, TimeoutError.
        """
        assert self._peer is not None
        try:
            return await self._answer(self._peer, method, params, timeout_s)
        except PeerGone as error:
            reason = await asyncio.shield(self.ended)
            if self._exceeded is not None:
                raise self._named(self._exceeded) from error
            raise self._died_of(f"worker `{self.id}` of `{self.spec.label}` ended: {reason}") from error

    def hold(self, seconds: float) -> None:
        """Read nothing from the worker for a while once what is under way is done: the host has enough to do."""
        self._hold_s = seconds

    def notify(self, method: str, params: Params) -> None:
        """Send a notification to the worker."""
        assert self._peer is not None
        self._peer.notify(method, params)

    def serve(self, run_id: str) -> None:
        """Take note that it is given work of a run."""
        self.shared = self.shared or self._run not in ("", run_id)
        self._run = run_id

    def exceed(self, error: LimitExceeded) -> None:
        """End the worker, now, for what it has used too much of."""
        self._exceeded = self._exceeded or error
        if self._ending is None:
            self._ending = asyncio.create_task(self.kill("over its limit"))

    @property
    def limits(self) -> Params:
        """By limit, its value and what holds it."""
        held = self._ward.held if self._ward is not None else {}
        return {name: {"value": getattr(self.spec.fence.limits, name), "by": by} for name, by in held.items()}

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
        if self._ward is not None and not self.ended.done():
            self._ward.end()
        self._signal(signal.SIGKILL)
        await asyncio.shield(self.ended)

    # ---- inside

    async def _be_watched(self, watch: Watch) -> None:
        folder = self.folder
        scratch = (folder / "home", folder / "tmp")
        ward = await watch.admit(self.id, self.pid, self.spec.fence, self.exceed, scratch)
        if self.ended.done():
            await watch.dismiss(ward)
        else:
            self._watched_by, self._ward = watch, ward

    def _named(self, error: LimitExceeded) -> LimitExceeded:
        return type(error)(f"worker `{self.id}` of `{self.spec.label}` was ended: {error.message}", hint=error.hint)

    async def _answer(self, peer: Peer, method: str, params: Params, timeout_s: float | None) -> Any:
        """Return the answer to a request. One that the protocol does not allow ends the worker: raises PeerGone."""
        try:
            try:
                answer = await peer.call(method, params, timeout_s)
            except RpcError as error:
                check_failure(error)
                raise
            check_answer(method, answer)
        except msgspec.ValidationError as error:
            peer.break_off(f"malformed answer to {method}: {error}")
            raise PeerGone("it answered what the protocol does not allow") from None
        return answer

    async def _shake_hands(self, handlers: Handlers, workers: WorkersFolder | None) -> None:
        connection = self._launched.connection
        connection.setblocking(False)
        await self._readable(connection)
        try:
            self.door, self.gate = await aside(lambda: receive_preamble(connection))
        except (DoorError, OSError) as error:
            if await self._gone_within(1.0):  # its end is what made the connection readable
                raise WorkerStartFailed(f"worker `{self.spec.label}` ended at its start{self._said()}") from error
            raise HandshakeFailed(f"worker `{self.spec.label}` did not start as one: {error}{self._said()}") from error
        if (self.door is None) != (self.spec.kind == "tools") or (self.gate is None) == bool(self.spec.fence.network):
            raise HandshakeFailed(f"worker `{self.spec.label}` handed over the wrong kind of door")
        if self._launched.separate:
            self._find_inside(workers)
        self._peer = peer = Peer(
            self._bind_handlers(handlers),
            self._bind_listeners(handlers),
            dumps=msgspec.json.encode,
            loads=self._loads,
            check=check_message,
            pace=self._take,
        )
        Line(connection, peer)
        self._watchers.append(asyncio.create_task(self._follow(peer)))
        try:
            hello = await peer.call(Method.INITIALIZE, self._introduction())
        except RpcError as error:
            raise _handshake_error(self.spec, error) from error
        except PeerGone as error:
            if peer.broken:
                raise HandshakeFailed(f"worker `{self.spec.label}` started wrong: {peer.reason}") from error
            raise WorkerStartFailed(f"worker `{self.spec.label}` ended at its start{self._said()}") from error
        if not isinstance(hello, dict) or not compatible(str(hello.get("protocol_version"))):
            raise HandshakeFailed(f"worker `{self.spec.label}` does not speak protocol {PROTOCOL_VERSION}")
        try:
            check_answer(Method.INITIALIZE, hello)
        except msgspec.ValidationError as error:
            raise HandshakeFailed(f"worker `{self.spec.label}` introduced itself wrongly: {error}") from None
        self.hello = hello

    def _find_inside(self, workers: WorkersFolder | None) -> None:
        """Learn who is the first process in the sandbox, while its parent lives for certain."""
        self._inside = Inside.of(self.pid)
        if self._inside is None:
            raise HandshakeFailed(f"the sandbox of worker `{self.spec.label}` is not where it was made")
        if workers is not None:
            workers.record_inside(self.folder, self._inside.process)

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
        self.rss_mib = float(params["rss_mib"])

    def _take(self, size: int) -> float:
        """Count a message; return how long the worker has to wait before the next one is read."""
        pause_s, self._hold_s = max(self._pace.take(size), self._hold_s), 0.0
        if pause_s:
            self._last_seen = time.monotonic()  # it is not silent: it is not listened to
        return pause_s

    def _flooded(self) -> None:
        if not self._reason:
            self._died_of = Flooded
            self._reason = f"sent more than {self.spec.fence.limits.frames_per_s:g} messages a second for too long"
            self._signal(signal.SIGKILL)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._timeouts.silence_s / 4)
            silent_s = time.monotonic() - self._last_seen
            if silent_s > self._timeouts.silence_s:
                if not self._reason:
                    self._died_of = WorkerSilent
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
        self._launched.log.close()
        self._signal(signal.SIGKILL)  # its children must not outlive it
        if self._inside is not None:
            self._inside.close()
        if self._ward is not None and self._exceeded is None:
            self._exceeded = self._ward.verdict()
        reason = self._reason or (self._peer.closed.result() if self._peer and self._peer.closed.done() else "")
        if self._peer is not None:
            self._peer.abort("the process ended")
        else:
            dispose(self._launched.connection)
        dispose(*(listener for listener in (self.door, self.gate) if listener is not None))
        for task in self._watchers[1:]:
            task.cancel()
        if not self.ended.done():
            self.ended.set_result(" ".join(part for part in (reason, status_text(status)) if part))
        if self._ward is not None and self._watched_by is not None:
            await self._watched_by.dismiss(self._ward)
        await asyncio.to_thread(remove_tree, self.folder)

    async def _gone_within(self, seconds: float) -> bool:
        await asyncio.wait([asyncio.shield(self.ended)], timeout=seconds)
        return self.ended.done()

    def _signal(self, number: signal.Signals) -> None:
        if number == signal.SIGKILL and self._inside is not None:
            self._inside.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _said(self) -> str:
        text = self._last_words or self._read_log()
        return f"; it said: {text}" if text else ""

    def _read_log(self) -> str:
        text = self._launched.log.read()
        return str(self._redact(text) if self._redact is not None else text)

    def _loads(self, payload: bytes) -> Any:
        message = read_message(payload)
        if self._redact is None or not isinstance(message, dict):
            return message
        return {key: self._redact(value) if key in _SAID else value for key, value in message.items()}


def status_text(status: int) -> str:
    """Return in words how a process ended, from what `subprocess` says of it."""
    number = -status if status < 0 else status - _KILLED  # the latter: what a sandbox says of a signal in it
    names = {each.value: each.name for each in signal.Signals}
    if number in names:
        return f"(killed by {names[number]})"
    return f"(exit status {status})"


def _handshake_error(spec: WorkerSpec, error: RpcError) -> HandshakeFailed:
    failure = HandshakeFailed(f"worker `{spec.label}` could not load its adapter: {error.message}")
    if isinstance(error.data, dict) and isinstance(details := error.data.get("details"), dict):
        failure.details = details
    return failure
