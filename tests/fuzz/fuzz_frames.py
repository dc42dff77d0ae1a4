"""Fuzz what a host reads from a worker: frames, JSON, JSON-RPC, the schemas of its messages.

    pip install atheris        # Python 3.11 or 3.12, beside the project's own packages
    python tests/fuzz/fuzz_frames.py -max_total_time=600 -dict=tests/fuzz/frames.dict CORPUS tests/data/fuzz/frames

`take` is one trial. What it must never do is raise: whatever comes, the peer goes on or ends the connection with a
reason. Inputs that led anywhere new are kept small in `tests/data/fuzz/frames`, and replayed by
`tests/unit/test_fuzz_frames.py`, which needs no atheris.
"""

import asyncio
import sys
from typing import Any

__all__ = ["main", "take"]

_ROUNDS = 4
"""Turns of the loop after the last piece: what was begun is answered by then."""
_UNFRAMED = 0x01
_ANSWERED = 0x02
"""Bits of an input's first byte: its rest is bytes as they are, not messages; the host has asked something."""


class _Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closing = False
        self.paused = False

    def write(self, data: Any) -> None:
        assert not self.closing
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def _trial(data: bytes) -> None:
    from agentforge.workers.schemas import check_message, read_message
    from agentforge_worker.wire import FrameDecoder, Peer, PeerGone, RpcError

    async def serve(params: dict[str, Any]) -> Any:
        await asyncio.sleep(0)
        return {"value": params.get("name")}

    methods = ("tool.call", "effect.open", "effect.close", "value.take", "checkpoint.save", "question.ask", "run.call")
    news = ("event.emit", "log.write", "run.warn", "heartbeat")
    peer = Peer(
        dict.fromkeys(methods, serve),
        dict.fromkeys(news, lambda params: None),
        loads=read_message,
        check=check_message,
        pace=lambda size: 0.0,
    )
    transport = _Transport()
    peer.connection_made(transport)
    flags = data[0] if data else 0
    call = asyncio.ensure_future(peer.call("run.start", {})) if flags & _ANSWERED else None
    await asyncio.sleep(0)
    asked = len(transport.written)
    for piece in _pieces(data[1:], flags):
        if transport.closing:
            break
        peer.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)
    if transport.closing:
        assert peer.broken, peer.reason
    else:
        for answer in FrameDecoder().feed(bytes(transport.written[asked:])):
            assert read_message(answer)["jsonrpc"] == "2.0"
    transport.closing = True
    peer.connection_lost(None)
    if call is not None:
        try:
            await call
        except (RpcError, PeerGone):
            pass
    await asyncio.sleep(0)
    assert peer._held == 0 or peer._tasks


def _pieces(data: bytes, flags: int) -> list[bytes]:
    """Return what comes with each read: split after bytes that say so, or messages that a zero byte ends."""
    from agentforge_worker.wire import encode_frames

    if flags & _UNFRAMED:
        size = 1 + (flags >> 2)
        return [data[start : start + size] for start in range(0, len(data), size)]
    size = 1 + (flags >> 2) * 16
    return [encode_frames(message, size) for message in data.split(b"\0")]


_loop: asyncio.AbstractEventLoop | None = None
_failures: list[Any] = []


def take(data: bytes) -> None:
    """Have a peer take one input. Raises AssertionError, or whatever went wrong."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        _loop.set_exception_handler(lambda _, context: _failures.append(context))
    _loop.run_until_complete(_trial(data))
    assert not _failures, _failures


def main() -> None:
    """Run the fuzzer with the arguments of the command line, those of libFuzzer."""
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["agentforge_worker.wire", "agentforge.workers.schemas"]):
        import agentforge_worker.wire  # noqa: F401

    atheris.Setup(sys.argv, take)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
