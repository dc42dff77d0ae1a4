"""What listens on the machine: each service gives its canary away to whoever reaches it."""

import http.server
import socket
import socketserver
import struct
import threading
from collections.abc import Mapping
from typing import Any

__all__ = ["serve"]

_ABSTRACT = "af-canary"
_PATHNAME = "/srv/canary.sock"


def serve(canaries: Mapping[str, str], metadata: str, name_server: str) -> dict[str, Any]:
    """Start all services; return where they are."""
    tcp = _banner(socket.AF_INET, ("", 0), canaries["tcp"])
    tcp6 = _banner(socket.AF_INET6, ("::1", 0), canaries["tcp"])
    _banner(socket.AF_UNIX, "\0" + _ABSTRACT, canaries["abstract"])
    _banner(socket.AF_UNIX, _PATHNAME, canaries["pathname"])
    _metadata((metadata, 80), canaries["metadata"])
    udp = _datagrams("127.0.0.1", 0, lambda _: canaries["udp"].encode())
    resolved = canaries["resolved"].rpartition("-")[2]
    _datagrams(name_server, 53, lambda question: _dns(question, canaries["dns"], resolved))
    return {
        "tcp_port": tcp[1],
        "tcp6_port": tcp6[1],
        "udp_port": udp,
        "abstract_name": _ABSTRACT,
        "pathname_socket": _PATHNAME,
    }


def _banner(family: int, address: Any, text: str) -> Any:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(64)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(text.encode() + b"\n")
                except OSError:
                    pass

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()


def _metadata(address: tuple[str, int], text: str) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = socketserver.ThreadingTCPServer(address, Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _datagrams(host: str, port: int, answer: Any) -> int:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((host, port))

    def receive() -> None:
        while True:
            data, sender = listener.recvfrom(4096)
            listener.sendto(answer(data), sender)

    threading.Thread(target=receive, daemon=True).start()
    return int(listener.getsockname()[1])


def _dns(question: bytes, text: str, resolved: str) -> bytes:
    """Answer TXT with the text, AAAA with an address whose last twelve bytes are the hex digits, else nothing."""
    end = question.index(b"\0", 12) + 5
    kind = struct.unpack(">H", question[end - 4 : end - 2])[0]
    data = {16: bytes([len(text)]) + text.encode(), 28: bytes.fromhex("fd000000" + resolved)}.get(kind)
    head = question[:2] + struct.pack(">5H", 0x8180, 1, int(data is not None), 0, 0)
    if data is None:
        return head + question[12:end]
    return head + question[12:end] + struct.pack(">HHHIH", 0xC00C, kind, 1, 60, len(data)) + data
