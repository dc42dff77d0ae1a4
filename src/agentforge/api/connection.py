"""HTTP with a host: one client on its socket, problem documents as exceptions."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from agentforge.api.sse import MEDIA_TYPE, read_sse
from agentforge.errors import ErrorInfo
from agentforge.errors.host import HostGone, RemoteError

__all__ = ["Connection"]

_TIMEOUT = httpx.Timeout(30.0, read=None)


class Connection:
    """A client of one host. Raises RemoteError for what the host refuses, HostGone when it is not there."""

    def __init__(self, *, socket: Path | None = None, url: str | None = None) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(socket), limits=_LIMITS) if socket is not None else None
        self._client = httpx.AsyncClient(
            transport=transport, base_url=url or "http://host", timeout=_TIMEOUT, trust_env=url is not None
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of a resource."""
        return await self._request("GET", path, params={k: v for k, v in query.items() if v is not None})

    async def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """Post JSON and return the answer's."""
        return await self._request("POST", path, json=body, headers=headers)

    async def delete(self, path: str) -> None:
        """Delete a resource."""
        await self._request("DELETE", path)

    async def stream(self, method: str, path: str, body: Any = None, **query: Any) -> AsyncIterator[tuple[str, Any]]:
        """Yield (kind, data) of a resource's server-sent events."""
        with _translated():
            async with self._client.stream(
                method, path, json=body, params=query, headers={"Accept": MEDIA_TYPE}
            ) as response:
                if response.is_error:
                    await response.aread()
                    raise _refusal(response)
                async for event in read_sse(response.aiter_lines()):
                    yield event

    async def _request(self, method: str, path: str, **options: Any) -> Any:
        with _translated():
            response = await self._client.request(method, path, **options)
        if response.is_error:
            raise _refusal(response)
        return response.json() if response.content else None


_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100)


@contextlib.contextmanager
def _translated() -> Any:
    try:
        yield
    except httpx.HTTPError as error:
        raise HostGone(f"the host does not answer ({type(error).__name__}: {error})") from error


def _refusal(response: httpx.Response) -> RemoteError:
    try:
        document = response.json()
        return RemoteError(ErrorInfo.from_dict(document), int(document.get("exit_code", 1)))
    except (ValueError, KeyError, TypeError):
        text = response.text[:200]
        return RemoteError(ErrorInfo("AF904", f"the host answered {response.status_code}: {text}"))
