"""HTTP with a host: one client on its socket, problem documents as exceptions.

httpcore and not httpx: every command passes here, and httpx takes longer to import than a warm run takes.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpcore

from agentforge.api.encoding import decode, encode
from agentforge.api.sse import MEDIA_TYPE, read_sse
from agentforge.errors import ErrorInfo
from agentforge.errors.host import HostGone, RemoteError

__all__ = ["Connection"]

_TIMEOUTS = {"timeout": {"connect": 30.0, "write": 30.0, "pool": None, "read": None}}
_JSON = "application/json"


class Connection:
    """A client of one host. Raises RemoteError for what the host refuses, HostGone when it is not there."""

    def __init__(self, *, socket: Path | None = None, url: str | None = None) -> None:
        self._base = (url or "http://host").rstrip("/")
        self._pool = httpcore.AsyncConnectionPool(
            uds=str(socket) if socket is not None else None, max_connections=None, max_keepalive_connections=100
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of a resource; None is no query parameter, a list is a repeated one."""
        return await self._request("GET", self._url(path, query))

    async def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None, **query: Any) -> Any:
        """Post JSON and return the answer's."""
        return await self._request("POST", self._url(path, query), body, headers)

    async def delete(self, path: str) -> None:
        """Delete a resource."""
        await self._request("DELETE", self._url(path))

    async def stream(
        self, method: str, path: str, body: Any = None, **query: Any
    ) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield (kind, data) of a resource's server-sent events. Who may leave early closes it (`aclosing`)."""
        headers = [("Accept", MEDIA_TYPE), ("Content-Type", _JSON)]
        content = b"" if body is None else encode(body)
        url = self._url(path, query)
        with _translated():
            async with self._pool.stream(method, url, headers=headers, content=content, extensions=_TIMEOUTS) as answer:
                if answer.status >= 400:
                    raise _refusal(answer.status, await answer.aread())
                async for event in read_sse(_lines(answer.aiter_stream())):
                    yield event

    async def _request(self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        content = b"" if body is None else encode(body)
        sent = [("Accept", _JSON), ("Content-Type", _JSON), *(headers or {}).items()]
        with _translated():
            answer = await self._pool.request(method, url, headers=sent, content=content, extensions=_TIMEOUTS)
        if answer.status >= 400:
            raise _refusal(answer.status, answer.content)
        return decode(answer.content) if answer.content else None

    def _url(self, path: str, query: Mapping[str, Any] | None = None) -> str:
        given = {key: value for key, value in (query or {}).items() if value is not None}
        return self._base + quote(path) + ("?" + urlencode(given, doseq=True) if given else "")


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode().rstrip("\r")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
        raise HostGone(f"the host does not answer ({type(error).__name__}: {error})") from error


def _refusal(status: int, content: bytes) -> RemoteError:
    try:
        document = decode(content)
        return RemoteError(ErrorInfo.from_dict(document), int(document.get("exit_code", 1)))
    except (ValueError, KeyError, TypeError, AttributeError):
        text = content[:200].decode("utf-8", "replace")
        return RemoteError(ErrorInfo("AF904", f"the host answered {status}: {text}"))
