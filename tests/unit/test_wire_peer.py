"""The JSON-RPC peer: both ways over a socket pair, and what a hostile other side can do (end its own connection)."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pytest

from agentforge_worker.wire import ErrorCode, FrameDecoder, FrameError, Method, Peer, PeerGone, RpcError, encode_frames
from agentforge_worker.wire import peer as peer_module

Params = dict[str, Any]
Handlers = Mapping[str, Callable[[Params], Awaitable[Any]]]
Listeners = Mapping[str, Callable[[Params], None]]


async def echo(params: Params) -> Any:
    return params


async def hang(params: Params) -> Any:
    await asyncio.Event().wait()


async def connect(connection: socket.socket, handlers: Handlers, listeners: Listeners, **options: Any) -> Peer:
    connection.setblocking(False)
    peer = Peer(handlers, listeners, **options)
    await asyncio.get_running_loop().create_unix_connection(lambda: peer, sock=connection)
    return peer


@contextlib.asynccontextmanager
async def pair(
    handlers: Handlers | None = None, listeners: Listeners | None = None, **options: Any
) -> AsyncIterator[tuple[Peer, Peer]]:
    """A caller's peer and the one that serves it (which may call back: the caller has `echo`)."""
    ours, theirs = socket.socketpair()
    caller = await connect(ours, {"echo": echo}, {})
    server = await connect(theirs, {"echo": echo, "hang": hang, **(handlers or {})}, listeners or {}, **options)
    try:
        yield caller, server
    finally:
        caller.close()
        server.close()
        await asyncio.wait_for(asyncio.gather(caller.closed, server.closed), 5)


class Wild:
    """The other end of a connection, for saying things that no peer says."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._decoder = FrameDecoder()
        self._messages: list[Any] = []

    async def say(self, message: Any) -> None:
        await self.raw(encode_frames(json.dumps(message).encode()))

    async def raw(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.connection, data)

    async def hear(self) -> Any:
        while not self._messages:
            data = await asyncio.get_running_loop().sock_recv(self.connection, 65536)
            assert data, "the connection ended"
            self._messages += [json.loads(message) for message in self._decoder.feed(data)]
        return self._messages.pop(0)


@contextlib.asynccontextmanager
async def wild(
    handlers: Handlers | None = None, listeners: Listeners | None = None, **options: Any
) -> AsyncIterator[tuple[Wild, Peer]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer = await connect(theirs, {"echo": echo, "hang": hang, **(handlers or {})}, listeners or {}, **options)
    try:
        yield Wild(ours), peer
    finally:
        ours.close()
        peer.close()
        await asyncio.wait_for(peer.closed, 5)


async def flood(other: Wild, data: bytes) -> None:
    while True:
        await other.raw(data)
        await asyncio.sleep(0)


async def ended(peer: Peer) -> str:
    return await asyncio.wait_for(asyncio.shield(peer.closed), 5)


# ---- both ways


async def test_requests_are_answered_both_ways() -> None:
    async with pair() as (caller, server):
        assert await caller.call("echo", {"a": [1, "ü", None, 2.5]}) == {"a": [1, "ü", None, 2.5]}
        assert await server.call("echo", {"b": True}) == {"b": True}


async def test_many_requests_at_once_get_their_own_answers() -> None:
    async def later(params: Params) -> int:
        await asyncio.sleep(0.001 * (params["n"] % 7))
        return int(params["n"])

    async with pair({"later": later}) as (caller, _):
        answers = await asyncio.gather(*(caller.call("later", {"n": n}) for n in range(200)))
        assert answers == list(range(200))


async def test_a_handler_may_call_back_before_it_answers() -> None:
    async def ask_back(params: Params) -> Any:
        return await server.call("echo", {"asked": params["x"]})

    async with pair({"ask": ask_back}) as (caller, server):
        assert await caller.call("ask", {"x": 3}) == {"asked": 3}


async def test_notifications_arrive_in_order_and_before_the_answer_that_follows_them() -> None:
    heard: list[int] = []

    async def talk(params: Params) -> str:
        for number in range(50):
            server.notify("said", {"n": number})
        return "done"

    ours, theirs = socket.socketpair()
    caller = await connect(ours, {}, {"said": lambda params: heard.append(params["n"])})
    server = await connect(theirs, {"talk": talk}, {})
    assert await caller.call("talk", {}) == "done"
    assert heard == list(range(50))
    caller.close()
    await asyncio.gather(caller.closed, server.closed)


async def test_a_listener_without_a_name_gets_the_notifications_that_have_none_of_their_own() -> None:
    heard: list[Params] = []
    async with pair(listeners={"": heard.append}) as (caller, _):
        caller.notify("anything", {"n": 1})
        await caller.call("echo", {})
        assert heard == [{"n": 1}]


async def test_a_message_larger_than_a_frame_goes_through_chunked() -> None:
    text = "x" * (3 << 20)
    async with pair() as (caller, _):
        assert await caller.call("echo", {"text": text}) == {"text": text}


async def test_the_hosts_encoder_and_the_guests_understand_each_other() -> None:
    ours, theirs = socket.socketpair()
    host = await connect(ours, {}, {}, dumps=msgspec.json.encode, loads=msgspec.json.decode)
    guest = await connect(theirs, {"echo": echo}, {})
    value = {"text": "ü \u2028 \u0000", "big": 2**80, "small": 1e-300, "list": [[], {}, None]}
    assert await host.call("echo", value) == value
    host.close()
    await asyncio.gather(host.closed, guest.closed)


# ---- errors


async def test_an_error_keeps_its_code_text_and_data() -> None:
    async def fail(params: Params) -> None:
        raise RpcError(ErrorCode.FAILED, "no", {"code": "AF603"})

    async with pair({"fail": fail}) as (caller, _):
        with pytest.raises(RpcError, match="no") as caught:
            await caller.call("fail", {})
        assert (caught.value.code, caught.value.data) == (ErrorCode.FAILED, {"code": "AF603"})


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyError("x"), ErrorCode.INVALID_PARAMS), (ZeroDivisionError("x"), ErrorCode.INTERNAL)],
)
async def test_a_handler_that_raises_is_an_error_answer(error: Exception, code: int) -> None:
    async def fail(params: Params) -> None:
        raise error

    async with pair({"fail": fail}) as (caller, _):
        with pytest.raises(RpcError) as caught:
            await caller.call("fail", {})
        assert caught.value.code == code
        assert await caller.call("echo", {}) == {}


async def test_an_unknown_method_is_an_error_answer() -> None:
    async with pair() as (caller, _):
        with pytest.raises(RpcError, match="no such method: nothing") as caught:
            await caller.call("nothing", {})
        assert caught.value.code == ErrorCode.METHOD_NOT_FOUND


@pytest.mark.parametrize("value", [object(), float("nan"), {"x": {1, 2}}])
async def test_an_answer_that_is_no_json_is_an_error_answer_and_never_silence(value: Any) -> None:
    async def give(params: Params) -> Any:
        return value

    async with pair({"give": give}) as (caller, _):
        with pytest.raises(RpcError, match="can't be sent") as caught:
            await caller.call("give", {})
        assert caught.value.code == ErrorCode.INTERNAL


async def test_parameters_that_are_no_json_fail_the_call_and_nothing_else() -> None:
    async with pair() as (caller, _):
        with pytest.raises(ValueError, match="JSON compliant"):
            await caller.call("echo", {"x": float("inf")})
        with pytest.raises(TypeError):
            caller.notify("said", {"x": object()})
        assert await caller.call("echo", {}) == {}


async def test_an_answer_over_the_message_limit_is_an_error_answer() -> None:
    async def give(params: Params) -> str:
        return "x" * ((64 << 20) + 1)

    async with pair({"give": give}) as (caller, _):
        with pytest.raises(RpcError, match="over the limit"):
            await caller.call("give", {})


async def test_a_call_that_takes_too_long_is_given_up_and_cancelled_there() -> None:
    stopped = asyncio.Event()

    async def wait(params: Params) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with pair({"wait": wait}) as (caller, _):
        with pytest.raises(asyncio.TimeoutError):
            await caller.call("wait", {}, timeout_s=0.05)
        await asyncio.wait_for(stopped.wait(), 5)


# ---- cancellation


async def test_cancelling_a_call_cancels_the_work_at_the_other_side() -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def wait(params: Params) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with pair({"wait": wait}) as (caller, _):
        call = asyncio.create_task(caller.call("wait", {}))
        await asyncio.wait_for(started.wait(), 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(stopped.wait(), 5)
        assert await caller.call("echo", {}) == {}


async def test_cancelling_a_call_while_its_connection_closes_is_still_a_cancellation() -> None:
    async with wild() as (other, peer):
        call = asyncio.create_task(peer.call("theirs", {"text": "x" * (3 << 20)}))
        await asyncio.sleep(0)
        peer.close()  # takes as long as the other side does not read
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        other.connection.close()


async def test_a_cancelled_request_is_answered_as_cancelled() -> None:
    async with wild() as (other, _):
        await other.say({"jsonrpc": "2.0", "id": 1, "method": "hang", "params": {}})
        await other.say({"jsonrpc": "2.0", "method": Method.REQUEST_CANCEL, "params": {"id": 1}})
        assert (await other.hear())["error"]["code"] == ErrorCode.CANCELLED


async def test_a_request_cancelled_in_the_same_read_is_answered_and_its_id_is_free_again() -> None:
    request = {"jsonrpc": "2.0", "id": "r", "method": "hang", "params": {}}
    cancel = {"jsonrpc": "2.0", "method": Method.REQUEST_CANCEL, "params": {"id": "r"}}
    async with wild() as (other, _):
        await other.raw(b"".join(encode_frames(json.dumps(each).encode()) for each in (request, cancel)))
        assert (await other.hear())["error"]["code"] == ErrorCode.CANCELLED
        await other.say({**request, "method": "echo"})
        assert (await other.hear())["result"] == {}


async def test_a_late_answer_to_a_cancelled_call_is_ignored() -> None:
    async with wild() as (other, peer):
        call = asyncio.create_task(peer.call("theirs", {}))
        request = await other.hear()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await other.say({"jsonrpc": "2.0", "id": request["id"], "result": "late"})
        await other.say({"jsonrpc": "2.0", "id": 99, "method": "echo", "params": {}})
        assert (await other.hear())["method"] == Method.REQUEST_CANCEL
        assert (await other.hear())["id"] == 99


async def test_cancelling_what_is_not_under_way_does_nothing() -> None:
    async with wild() as (other, _):
        for request_id in (7, "x", None, [1], {"a": 1}, 1.5, True):
            await other.say({"jsonrpc": "2.0", "method": Method.REQUEST_CANCEL, "params": {"id": request_id}})
        await other.say({"jsonrpc": "2.0", "id": 1, "method": "echo", "params": {}})
        assert (await other.hear())["id"] == 1


# ---- the other side is gone


async def test_calls_under_way_fail_when_the_other_side_is_gone() -> None:
    async with pair() as (caller, server):
        calls = [asyncio.create_task(caller.call("hang", {})) for _ in range(3)]
        await asyncio.sleep(0.01)
        server.abort("gone")
        for call in calls:
            with pytest.raises(PeerGone):
                await asyncio.wait_for(call, 5)
        with pytest.raises(PeerGone):
            await caller.call("echo", {})
        caller.notify("said", {})  # dropped


async def test_work_under_way_is_cancelled_when_its_caller_is_gone() -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def wait(params: Params) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with wild({"wait": wait}) as (other, peer):
        await other.say({"jsonrpc": "2.0", "id": 1, "method": "wait", "params": {}})
        await asyncio.wait_for(started.wait(), 5)
        other.connection.close()
        await asyncio.wait_for(stopped.wait(), 5)
        assert await ended(peer) == ""


async def test_closing_sends_what_was_said_before() -> None:
    heard: list[int] = []
    ours, theirs = socket.socketpair()
    listener = await connect(ours, {}, {"said": lambda params: heard.append(params["n"])})
    speaker = await connect(theirs, {}, {})
    for number in range(1000):
        speaker.notify("said", {"n": number})
    speaker.close("done")
    assert await ended(speaker) == "done"
    assert await ended(listener) == ""
    assert heard == list(range(1000))


async def test_a_caller_waits_while_the_other_side_does_not_read() -> None:
    async with wild() as (other, peer):
        calls = [asyncio.create_task(peer.call("theirs", {"text": "x" * 500_000}, 0.2)) for _ in range(8)]
        done = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert all(isinstance(each, asyncio.TimeoutError) for each in done)
        for _ in range(8):  # nothing was lost
            assert (await other.hear())["method"] == "theirs"


async def test_a_side_that_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "_MAX_UNSENT", 1 << 20)
    async with wild() as (other, peer):
        request = encode_frames(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "x" * 4000, "params": {}}).encode())
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await flood(other, request)
        assert await ended(peer) == "the other side does not read"


# ---- hostile messages

REQUEST = {"jsonrpc": "2.0", "id": 1, "method": "echo", "params": {}}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not JSON-RPC 2.0"),
        (b"1", "not JSON-RPC 2.0"),
        (b"null", "not JSON-RPC 2.0"),
        (json.dumps({**REQUEST, "jsonrpc": "1.0"}).encode(), "not JSON-RPC 2.0"),
        (json.dumps({**REQUEST, "method": 5}).encode(), "without a method name"),
        (json.dumps({**REQUEST, "params": [1]}).encode(), "parameters that are no object"),
        (json.dumps({**REQUEST, "params": None}).encode(), "parameters that are no object"),
        (json.dumps({**REQUEST, "id": None}).encode(), "request id"),
        (json.dumps({**REQUEST, "id": [1]}).encode(), "request id"),
        (json.dumps({**REQUEST, "id": {}}).encode(), "request id"),
        (json.dumps({**REQUEST, "id": 1.5}).encode(), "request id"),
    ],
)
@pytest.mark.parametrize("loads", [json.loads, msgspec.json.decode])
async def test_a_malformed_message_ends_its_own_connection(
    payload: bytes, reason: str, loads: Callable[[bytes], Any]
) -> None:
    async with wild(loads=loads) as (other, peer):
        await other.raw(encode_frames(payload))
        text = await ended(peer)
        assert text.startswith("protocol error: ")
        assert reason in text


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\x00\x00\x00\x05\x07hello"])
async def test_bytes_that_are_no_frames_end_the_connection(garbage: bytes) -> None:
    async with wild() as (other, peer):
        await other.raw(garbage)
        assert (await ended(peer)).startswith("protocol error: ")


async def test_a_request_id_in_use_ends_the_connection() -> None:
    async with wild() as (other, peer):
        for _ in range(2):
            await other.say({"jsonrpc": "2.0", "id": 1, "method": "hang", "params": {}})
        assert "in use" in await ended(peer)


async def test_a_flood_of_requests_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "_MAX_SERVING", 10)
    async with wild() as (other, peer):
        for number in range(11):
            await other.say({"jsonrpc": "2.0", "id": number, "method": "hang", "params": {}})
        assert "under way" in await ended(peer)


async def test_answers_to_nothing_are_ignored() -> None:
    async with wild() as (other, _):
        for call_id in (77, None, "x", [1], True):
            await other.say({"jsonrpc": "2.0", "id": call_id, "result": 1})
            await other.say({"jsonrpc": "2.0", "id": call_id, "error": "nonsense"})
        await other.say(REQUEST)
        assert (await other.hear())["result"] == {}


@pytest.mark.parametrize("error", ["text", {}, {"code": "x"}, {"code": None}, 5])
async def test_an_error_answer_without_a_code_ends_the_connection_and_fails_the_call(error: Any) -> None:
    async with wild() as (other, peer):
        call = asyncio.create_task(peer.call("theirs", {}))
        request = await other.hear()
        await other.say({"jsonrpc": "2.0", "id": request["id"], "error": error})
        with pytest.raises(PeerGone, match="protocol error"):
            await asyncio.wait_for(call, 5)
        assert "protocol error" in await ended(peer)


async def test_a_notification_that_its_listener_cannot_read_ends_the_connection() -> None:
    async with wild(listeners={"said": lambda params: params["missing"]}) as (other, peer):
        await other.say({"jsonrpc": "2.0", "method": "said", "params": {}})
        assert "malformed said" in await ended(peer)


async def test_a_listener_that_fails_by_itself_is_reported_and_the_connection_goes_on() -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    def fail(params: Params) -> None:
        raise RuntimeError("a defect of ours")

    async with wild(listeners={"said": fail}) as (other, _):
        await other.say({"jsonrpc": "2.0", "method": "said", "params": {}})
        await other.say(REQUEST)
        assert (await other.hear())["result"] == {}
    assert [str(error) for error in reported] == ["a defect of ours"]


async def test_a_peer_that_broke_the_protocol_gets_nothing_more_served() -> None:
    served: list[Params] = []

    async def note(params: Params) -> None:
        served.append(params)

    async with wild({"note": note}) as (other, peer):
        good = encode_frames(json.dumps({**REQUEST, "method": "note"}).encode())
        await other.raw(encode_frames(b"nonsense") + good)
        await ended(peer)
        await asyncio.sleep(0.01)
        assert served == []


async def test_other_connections_do_not_notice_a_hostile_one() -> None:
    async with pair() as (caller, _), wild() as (other, peer):
        call = asyncio.create_task(caller.call("echo", {"n": 1}))
        await other.raw(b"\xff" * 1000)
        await ended(peer)
        assert await call == {"n": 1}


async def test_a_call_before_the_connection_is_made_fails() -> None:
    with pytest.raises(PeerGone):
        await Peer({}, {}).call("echo", {})


async def test_a_message_over_the_limit_is_the_senders_error() -> None:
    async with pair() as (caller, _):
        with pytest.raises(FrameError):
            await caller.call("echo", {"text": "x" * ((64 << 20) + 1)})
        assert await caller.call("echo", {}) == {}
