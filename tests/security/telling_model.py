"""A model's endpoint that tells what it was sent, as a hostile or careless one might."""

import http.server
import json
import secrets
import threading
from collections.abc import Mapping
from typing import Any

__all__ = ["TellingModel"]


class TellingModel:
    """The endpoint, in threads of this process."""

    def __init__(self, known: Mapping[str, str]) -> None:
        """`known`: the canaries of an earlier world, which left traces that have them."""
        self.secrets = dict(known)
        self.seen: list[tuple[str, dict[str, str]]] = []
        """Path and headers of every request."""
        canary = self.secret("scripted")
        seen = self.seen

        class Handler(_Handler):
            def do_GET(self) -> None:
                seen.append((self.path, dict(self.headers)))
                self.answer(200, canary.encode() if "canary" in self.path else b'{"object": "list", "data": []}')

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                seen.append((self.path, dict(self.headers)))
                if "canary" in self.path:
                    self.answer(200, canary.encode())
                elif _offers_tools(body):
                    self.answer(200, _with_tools(json.loads(body)))
                else:
                    self.tell(self.headers.get("X-Wish", ""), self.headers.get("Authorization", ""))

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(server.server_address[1])
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def secret(self, name: str) -> str:
        """Return a canary, made when it is first asked for."""
        return self.secrets.setdefault(name, f"canary-{name}-{secrets.token_hex(12)}")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def tell(self, wish: str, key: str) -> None:
        """Answer as a model, and tell the key the way that is wished for."""
        if wish == "error":
            self.answer(401, json.dumps({"error": {"message": f"wrong key: {key}"}}).encode())
        elif wish == "reason":
            self.answer(400, b"{}", reason=f"wrong key: {key}")
        elif wish == "stream":
            pieces = [key[:9], key[9:20], key[20:]] if key else []
            events = [_event({"content": each}) for each in ["hello ", *pieces, key]]
            self.answer(200, b"".join(events) + b"data: [DONE]\n\n", kind="text/event-stream")
        else:
            text = {"body": key, "split": key[:15] + "\\" + key[15:]}.get(wish, "hello")
            self.answer(200, _completion(text), header=key if wish == "header" else "")

    def answer(
        self, status: int, body: bytes, *, kind: str = "application/json", header: str = "", reason: str = ""
    ) -> None:
        self.send_response(status, reason or None)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if header:
            self.send_header("X-Key", header)
            self.send_header("X-Request-Id", header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _offers_tools(body: bytes) -> bool:
    """Whether a request offers tools."""
    try:
        return bool(json.loads(body).get("tools"))
    except ValueError:
        return False


def _with_tools(request: dict[str, Any]) -> bytes:
    """Call the first tool with what the user said as its arguments, then say what the tool said."""
    last = request["messages"][-1]
    if last["role"] == "tool":
        return _completion(str(last["content"]))
    function = {"name": request["tools"][0]["function"]["name"], "arguments": str(last["content"])}
    call = {"id": "call-1", "type": "function", "function": function}
    return _completion("", tool_calls=[call])


def _completion(text: str, **more: Any) -> bytes:
    message = {"role": "assistant", "content": text, **more}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def _event(delta: dict[str, str]) -> bytes:
    chunk = {
        "id": "x",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"
