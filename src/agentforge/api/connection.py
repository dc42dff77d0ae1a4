"""HTTP with a host: one client on its socket, problem documents as exceptions."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from agentforge.api.encoding import decode, encode
from agentforge.api.http import HeaderUnfit, HttpClient
from agentforge.api.sse import MEDIA_TYPE, read_sse
from agentforge.errors import ErrorInfo
from agentforge.errors.host import HostGone, RemoteError, RequestInvalid

__all__ = ["Connection"]

_JSON = "application/json"
_BYTES = "application/octet-stream"


class Connection:
    """A client of one host. Raises RemoteError for what the host refuses, HostGone when it is not there."""

    def __init__(self, *, socket: Path | None = None, url: str | None = None) -> None:
        self._client = HttpClient(socket=socket, url=url)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of a resource; None is no query parameter, a list is a repeated one."""
        return _json(await self._request("GET", _target(path, query)))

    async def get_bytes(self, path: str) -> bytes:
        """Return a resource that is no JSON."""
        return await self._request("GET", _target(path))

    async def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None, **query: Any) -> Any:
        """Post JSON and return the answer's."""
        content = b"" if body is None else encode(body)
        return _json(await self._request("POST", _target(path, query), content, headers))

    async def post_bytes(self, path: str, content: bytes) -> Any:
        """Post what is no JSON and return the answer's JSON."""
        return _json(await self._request("POST", _target(path), content, {"Content-Type": _BYTES}))

    async def delete(self, path: str, **query: Any) -> Any:
        """Delete a resource, and return the answer's JSON if it has any."""
        return _json(await self._request("DELETE", _target(path, query)))

    async def stream(
        self, method: str, path: str, body: Any = None, **query: Any
    ) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield (kind, data) of a resource's server-sent events. Who may leave early closes it (`aclosing`)."""
        headers = [("Accept", MEDIA_TYPE), ("Content-Type", _JSON)]
        content = b"" if body is None else encode(body)
        with _translated():
            async with self._client.request(method, _target(path, query), headers, content) as answer:
                if answer.status >= 400:
                    raise _refusal(answer.status, await answer.whole())
                async for event in read_sse(_lines(answer.pieces())):
                    yield event

    async def _request(
        self, method: str, target: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        sent = {"Accept": _JSON, "Content-Type": _JSON, **(headers or {})}
        with _translated():
            async with self._client.request(method, target, sent.items(), content) as answer:
                received = await answer.whole()
        if answer.status >= 400:
            raise _refusal(answer.status, received)
        return received


def _target(path: str, query: Mapping[str, Any] | None = None) -> str:
    given = {key: value for key, value in (query or {}).items() if value is not None}
    return quote(path) + ("?" + urlencode(given, doseq=True) if given else "")


def _json(content: bytes) -> Any:
    return decode(content) if content else None


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
    except OSError as error:
        raise HostGone(f"the host does not answer ({type(error).__name__}: {error})") from error
    except HeaderUnfit as error:
        raise RequestInvalid(str(error)) from None


def _refusal(status: int, content: bytes) -> RemoteError:
    try:
        document = decode(content)
        return RemoteError(ErrorInfo.from_dict(document), int(document.get("exit_code", 1)))
    except (ValueError, KeyError, TypeError, AttributeError):
        text = content[:200].decode("utf-8", "replace")
        return RemoteError(ErrorInfo("AF904", f"the host answered {status}: {text}"))
