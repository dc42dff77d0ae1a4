"""The wire between host and worker: framing, JSON-RPC 2.0 peer, names of messages, the hand-over of the door.

Used by both sides; `docs/reference/protocol.md` is its document.
"""

from agentforge_worker.wire.door import DoorError, Handover, open_door, receive_preamble, send_preamble
from agentforge_worker.wire.framing import FrameDecoder, FrameError, encode_frames
from agentforge_worker.wire.messages import (
    ADAPTER_EVENTS,
    LOG_STREAMS,
    PROTOCOL_VERSION,
    ErrorCode,
    Method,
    compatible,
)
from agentforge_worker.wire.peer import Peer, PeerGone, RpcError

__all__ = [
    "ADAPTER_EVENTS",
    "LOG_STREAMS",
    "PROTOCOL_VERSION",
    "DoorError",
    "ErrorCode",
    "FrameDecoder",
    "FrameError",
    "Handover",
    "Method",
    "Peer",
    "PeerGone",
    "RpcError",
    "compatible",
    "encode_frames",
    "open_door",
    "receive_preamble",
    "send_preamble",
]
