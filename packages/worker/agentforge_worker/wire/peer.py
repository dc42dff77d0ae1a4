"""A JSON-RPC 2.0 peer over frames: requests both ways, notifications, cancellation.

One `Peer` is one end of one connection, used on one asyncio loop. Requests that come in are served concurrently,
each in a task of its own; notifications are delivered in order, as they arrive, by a plain call. When the caller of
`call` is cancelled, the other side is told (`request.cancel`) and cancels its task.

What comes in is taken in turns of a few messages, so that a side which sends without a pause does not keep the loop
from everybody else; while messages wait for their turn, nothing more is read.
"""

import asyncio
import contextlib
import json
from collections import deque
from typing import Any, Awaitable, Callable, Deque, Dict, Mapping, Optional, Set

from agentforge_worker.wire.framing import FrameDecoder, FrameError, encode_frames
from agentforge_worker.wire.messages import ErrorCode, Method

__all__ = ["Peer", "PeerGone", "RpcError"]

Params = Dict[str, Any]
Handler = Callable[[Params], Awaitable[Any]]
Listener = Callable[[Params], None]
Check = Callable[[str, Params], None]
"""Raises ValueError for parameters that a method does not allow."""
Pace = Callable[[int], float]
"""Takes the bytes of a message; returns the seconds to wait before the next one is taken."""
_HIGH_WATER = 1 << 20
_MAX_UNSENT = 128 << 20
"""Bytes that may wait for a side that does not read; more, and it is given up."""
_MAX_SERVING = 1 << 14
"""Requests of the other side that may be under way at once."""
_MAX_HELD = 128 << 20
"""Bytes that all these requests may have together."""
_MAX_ID = 200
_BROKEN = "protocol error: "
_TURN = 64
"""Messages that are taken before everybody else on the loop gets a turn."""


class RpcError(Exception):
    """The other side answered with an error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class PeerGone(Exception):
    """The connection ended, in order or by a broken protocol; `reason` says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _dumps(value: Any) -> bytes:
    # NaN and infinities are no JSON: better an error here than a broken protocol at the other side.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")


class Peer(asyncio.Protocol):
    """One end of the wire. Give it to `loop.create_unix_connection(lambda: peer, sock=...)`.

    `handlers` serve requests, `listeners` notifications; a listener for `""` gets those without one of their own.
    `closed` is done when the connection has ended; its result is the reason (empty: in order).
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        listeners: Mapping[str, Listener],
        *,
        dumps: Callable[[Any], bytes] = _dumps,
        loads: Callable[[bytes], Any] = json.loads,
        max_frame: Optional[int] = None,
        check: Optional[Check] = None,
        pace: Optional[Pace] = None,
    ) -> None:
        self._handlers = dict(handlers)
        self._listeners = dict(listeners)
        self._dumps = dumps
        self._loads = loads
        self._check = check
        self._pace = pace
        self._decoder = FrameDecoder(max_frame) if max_frame else FrameDecoder()
        self._loop = asyncio.get_running_loop()
        self._transport: Optional[asyncio.Transport] = None
        self._calls: Dict[int, "asyncio.Future[Any]"] = {}
        self._serving: Dict[Any, "asyncio.Task[None]"] = {}
        self._tasks: Set["asyncio.Task[None]"] = set()
        self._held = 0
        self._inbox: Deque[bytes] = deque()
        self._next_turn: Optional[asyncio.Handle] = None
        self._next_id = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._reason = ""
        self.closed: "asyncio.Future[str]" = self._loop.create_future()

    # ---- what callers use

    async def call(self, method: str, params: Params, timeout_s: Optional[float] = None) -> Any:
        """Send a request and return its result.

        Raises RpcError when the other side answers with an error, PeerGone when it ends before it answers,
        asyncio.TimeoutError after `timeout_s`, ValueError, TypeError or FrameError for parameters that can't be sent.
        """
        self._next_id += 1
        call_id = self._next_id
        answer: "asyncio.Future[Any]" = self._loop.create_future()
        self._calls[call_id] = answer
        try:
            self._send({"jsonrpc": "2.0", "id": call_id, "method": method, "params": params})
            if timeout_s is None:
                return await self._answered(answer)
            return await asyncio.wait_for(self._answered(answer), timeout_s)
        except (asyncio.CancelledError, asyncio.TimeoutError):
            if not self.closed.done():
                self.notify(Method.REQUEST_CANCEL, {"id": call_id})
            raise
        finally:
            self._calls.pop(call_id, None)

    def notify(self, method: str, params: Params) -> None:
        """Send a notification; nothing comes back. Silently dropped when the connection has ended."""
        if self._transport is not None and not self._transport.is_closing() and not self.closed.done():
            self._send({"jsonrpc": "2.0", "method": method, "params": params})

    @property
    def reason(self) -> str:
        """Why the connection ends or has ended; empty if it goes on, or ended in order."""
        return self._reason

    @property
    def broken(self) -> bool:
        """Whether the other side did not keep to the protocol."""
        return self._reason.startswith(_BROKEN)

    def close(self, reason: str = "") -> None:
        """End the connection once what was sent has gone out."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.close()

    def break_off(self, what: str) -> None:
        """End the connection at once: the other side did not keep to the protocol."""
        self.abort(_BROKEN + what)

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (called by asyncio)."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        """Serve what the bytes complete (called by asyncio)."""
        try:
            self._inbox.extend(self._decoder.feed(data))
        except FrameError as error:
            self._break(error)
        if self._next_turn is None:
            self._take_turn()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Fail what is under way (called by asyncio)."""
        if self._next_turn is not None:
            self._next_turn.cancel()
        self._pace = None  # what was read is taken: nothing more comes
        while self._inbox:
            self._take_turn()
        reason = self._reason or (str(exc) if exc else "")
        for answer in list(self._calls.values()):
            if not answer.done():
                answer.set_exception(PeerGone(reason or "the connection ended"))
        for task in list(self._tasks):
            task.cancel()
        self._writable.set()
        if not self.closed.done():
            self.closed.set_result(reason)

    def pause_writing(self) -> None:
        """Hold callers back while the other side does not read (called by asyncio)."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let callers go on (called by asyncio)."""
        self._writable.set()

    # ---- inside

    def _take_turn(self) -> None:
        """Take what was read, a few messages or as many as the pace allows; the rest when it is their turn."""
        self._next_turn, pause_s = None, 0.0
        try:
            for _ in range(_TURN):
                if not self._inbox or pause_s > 0:
                    break
                payload = self._inbox.popleft()
                self._receive(payload)
                pause_s = self._pace(len(payload)) if self._pace is not None else 0.0
        except FrameError as error:
            self._break(error)
        if self._transport is None or self.closed.done() or self._transport.is_closing():
            return
        if pause_s > 0:
            self._transport.pause_reading()
            self._next_turn = self._loop.call_later(pause_s, self._take_turn)
        elif self._inbox:
            self._transport.pause_reading()
            self._next_turn = self._loop.call_soon(self._take_turn)
        else:
            self._transport.resume_reading()

    def _break(self, error: FrameError) -> None:
        """End the connection to a side that does not keep to the protocol; nothing more of it is taken."""
        self._inbox.clear()
        self.break_off(str(error))

    async def _answered(self, answer: "asyncio.Future[Any]") -> Any:
        if not self._writable.is_set():
            await self._writable.wait()
        return await answer

    def _send(self, message: Params) -> None:
        if self._transport is None or self.closed.done() or self._transport.is_closing():
            raise PeerGone(self._reason or "the connection ended")
        self._transport.write(encode_frames(self._dumps(message)))
        if self._transport.get_write_buffer_size() > _MAX_UNSENT:
            self.abort("the other side does not read")

    def _receive(self, payload: bytes) -> None:
        try:
            message = self._loads(payload)
        except (ValueError, RecursionError) as error:
            raise FrameError("a message is not JSON (%s)" % error) from None
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            raise FrameError("a message is not JSON-RPC 2.0")
        method, params = message.get("method"), message.get("params", {})
        if method is None:
            self._answer(message)
        elif not isinstance(method, str) or not isinstance(params, dict):
            raise FrameError("a request without a method name or with parameters that are no object")
        else:
            self._check_params(method, params)
            if "id" in message:
                self._serve(message["id"], method, params, len(payload))
            else:
                self._listen(method, params)

    def _check_params(self, method: str, params: Params) -> None:
        if self._check is None:
            return
        try:
            self._check(method, params)
        except ValueError as error:
            raise FrameError("malformed %s: %s" % (method[:100], error)) from None

    def _answer(self, message: Params) -> None:
        call_id = message.get("id")
        answer = self._calls.get(call_id) if isinstance(call_id, int) else None
        if answer is None or answer.done():
            return  # the caller gave up; late answers are normal
        error = message.get("error")
        if error is None:
            answer.set_result(message.get("result"))
        elif isinstance(error, dict) and isinstance(error.get("code"), int):
            answer.set_exception(RpcError(error["code"], str(error.get("message", "")), error.get("data")))
        else:
            raise FrameError("an error answer without a code")

    def _listen(self, method: str, params: Params) -> None:
        if method == Method.REQUEST_CANCEL:
            request = params.get("id")
            task = self._serving.get(request) if isinstance(request, (int, str)) else None
            if task is not None:
                task.cancel()
            return
        listener = self._listeners.get(method) or self._listeners.get("")
        if listener is None:
            return
        try:
            listener(params)
        except (KeyError, TypeError, ValueError) as error:
            raise FrameError("malformed %s: %s: %s" % (method[:100], type(error).__name__, error)) from error
        except Exception as error:  # a defect on this side is no reason to lose the other
            self._loop.call_exception_handler({"message": "listener of %s failed" % method, "exception": error})

    def _serve(self, request_id: Any, method: str, params: Params, size: int) -> None:
        if not isinstance(request_id, (int, str)) or request_id in self._serving:
            raise FrameError("a request id that is no number or text, or is in use")
        if isinstance(request_id, str) and len(request_id) > _MAX_ID:
            raise FrameError("a request id of more than %d characters" % _MAX_ID)
        if len(self._serving) >= _MAX_SERVING:
            raise FrameError("more than %d requests under way" % _MAX_SERVING)
        if self._held + size > _MAX_HELD:
            raise FrameError("requests of more than %d bytes under way" % _MAX_HELD)
        handler = self._handlers.get(method)
        if handler is None:
            self._reply_error(request_id, ErrorCode.METHOD_NOT_FOUND, "no such method: %s" % method[:100])
            return
        task = self._loop.create_task(self._run(request_id, handler, params))
        self._serving[request_id] = task
        self._tasks.add(task)
        self._held += size
        # Not in `_run` itself: a task that is cancelled before its first step never enters it.
        task.add_done_callback(lambda done: self._served(request_id, size, done))

    def _served(self, request_id: Any, size: int, task: "asyncio.Task[None]") -> None:
        self._held -= size
        self._tasks.discard(task)
        self._serving.pop(request_id, None)
        if task.cancelled():
            self._reply_error(request_id, ErrorCode.CANCELLED, "cancelled")

    async def _run(self, request_id: Any, handler: Handler, params: Params) -> None:
        try:
            result = await handler(params)
        except RpcError as error:
            self._reply_error(request_id, error.code, error.message, error.data)
        except (KeyError, TypeError, ValueError) as error:
            text = "%s: %s" % (type(error).__name__, error)
            self._reply_error(request_id, ErrorCode.INVALID_PARAMS, text)
        except Exception as error:
            self._reply_error(request_id, ErrorCode.INTERNAL, "%s: %s" % (type(error).__name__, error))
        else:
            self._reply(request_id, {"jsonrpc": "2.0", "id": request_id, "result": result})

    def _reply_error(self, request_id: Any, code: int, text: str, data: Any = None) -> None:
        error: Params = {"code": code, "message": text}
        if data is not None:
            error["data"] = data
        self._reply(request_id, {"jsonrpc": "2.0", "id": request_id, "error": error})

    def _reply(self, request_id: Any, message: Params) -> None:
        try:
            self._send(message)
        except PeerGone:
            pass
        except Exception as error:  # whatever the encoder raises: the other side waits for an answer
            text = "the answer can't be sent: %s: %s" % (type(error).__name__, error)
            failure = {"code": ErrorCode.INTERNAL, "message": text}
            with contextlib.suppress(PeerGone):
                self._send({"jsonrpc": "2.0", "id": request_id, "error": failure})
