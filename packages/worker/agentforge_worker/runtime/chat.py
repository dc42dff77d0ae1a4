"""A small HTTP/1.1 client for one purpose: chat completions over the door, for code that has no client of its own."""

import asyncio
import json
from typing import Any, Dict, List, Tuple
from urllib.parse import urlsplit

__all__ = ["ChatClient", "ModelFailed"]

Connection = Tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ModelFailed(Exception):
    """The gateway answered with an error status, or the answer broke off."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ChatClient:
    """Keeps idle connections to the door and reuses them."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._path = parts.path.rstrip("/") + "/chat/completions"
        self._idle: List[Connection] = []

    async def complete(self, body: Dict[str, Any], token: str) -> Dict[str, Any]:
        """Return the response object of one request, assembled from its chunks when `body` asks for a stream.

        Raises ModelFailed for an error status or an answer that breaks off.
        """
        payload = json.dumps(body, ensure_ascii=False).encode("utf-8")
        head = (
            "POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: application/json\r\n"
            "Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
            % (self._path, self._host, self._port, token, len(payload))
        )
        reader, writer = await self._connect()
        try:
            writer.write(head.encode("ascii") + payload)
            status, keep, answer = await self._read(reader)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
            writer.close()
            raise ModelFailed(0, "the model's answer broke off (%s)" % type(error).__name__) from None
        except BaseException:
            writer.close()
            raise
        if keep:
            self._idle.append((reader, writer))
        else:
            writer.close()
        if status != 200:
            raise ModelFailed(status, _error_text(status, answer))
        if body.get("stream"):
            return _assemble(answer)
        return json.loads(answer.decode("utf-8"))  # type: ignore[no-any-return]

    async def _connect(self) -> Connection:
        while self._idle:
            reader, writer = self._idle.pop()
            if not (writer.is_closing() or reader.at_eof()):
                return reader, writer
        return await asyncio.open_connection(self._host, self._port, limit=1 << 22)

    async def _read(self, reader: asyncio.StreamReader) -> Tuple[int, bool, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        headers = {}
        for line in head[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        keep = headers.get("connection", "").lower() != "close"
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return status, keep, await _read_chunked(reader)
        if "content-length" in headers:
            return status, keep, await reader.readexactly(int(headers["content-length"]))
        return status, False, await reader.read()


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
        if size == 0:
            return b"".join(parts)


def _error_text(status: int, answer: bytes) -> str:
    try:
        return str(json.loads(answer.decode("utf-8"))["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "the model endpoint answered %d" % status


def _assemble(answer: bytes) -> Dict[str, Any]:
    """Return the completion that a stream of chunks adds up to. Raises ModelFailed when it has no end."""
    message: Dict[str, Any] = {"role": "assistant", "content": None}
    calls: Dict[int, Dict[str, Any]] = {}
    whole: Dict[str, Any] = {}
    finish = None
    for line in answer.decode("utf-8").splitlines():
        if not line.startswith("data:") or line[5:].strip() == "[DONE]":
            continue
        chunk = json.loads(line[5:])
        whole.update({k: v for k, v in chunk.items() if k not in ("choices", "object") and v is not None})
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta") or {}
            if delta.get("content"):
                message["content"] = (message["content"] or "") + delta["content"]
            for part in delta.get("tool_calls") or []:
                _merge_call(calls, part)
            finish = choice.get("finish_reason") or finish
    if finish is None:
        raise ModelFailed(0, "the model's answer broke off")
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    whole.update(object="chat.completion", choices=[{"index": 0, "message": message, "finish_reason": finish}])
    return whole


def _merge_call(calls: Dict[int, Dict[str, Any]], part: Dict[str, Any]) -> None:
    empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    call = calls.setdefault(part.get("index", 0), empty)
    call["id"] = part.get("id") or call["id"]
    function = part.get("function") or {}
    call["function"]["name"] += function.get("name") or ""
    call["function"]["arguments"] += function.get("arguments") or ""
