"""The way to the real endpoints: one pool of connections for all runs, and foreign exceptions told apart."""

import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from agentforge.config.trust import tls_context
from agentforge.errors import AgentForgeError
from agentforge.gateway.failures import local_failure, where
from agentforge.gateway.pacing import PacedTcpConnector, PacedUnixConnector
from agentforge.gateway.types import EmbeddedModel, Timeouts, Upstream

__all__ = ["UpstreamPool", "translated"]

_KEEP_ALIVE_S = 30.0
_SOCKET_SUFFIX = ".sock"
_READ_BUFFER = 256 * 1024
_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


@dataclass(frozen=True, slots=True)
class _Address:
    """Where requests for a base URL go: a session, the URL before the path, TLS and proxy."""

    session: aiohttp.ClientSession
    prefix: str
    tls: ssl.SSLContext | bool
    proxy: str | None


class UpstreamPool:
    """Connections to every upstream, kept and reused; nothing is built per call."""

    def __init__(self, embedded: EmbeddedModel | None = None) -> None:
        self._embedded = embedded
        self._addresses: dict[str, _Address] = {}
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._timeouts: dict[Timeouts, aiohttp.ClientTimeout] = {}
        self._tls: ssl.SSLContext | None = None

    @asynccontextmanager
    async def post(
        self, upstream: Upstream, resource: str, body: bytes, headers: CIMultiDict[str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; yield the answer once its headers are here. Leaving before its end aborts it.

        `resource` is what follows `/v1` (path and query). Raises CallFailed for no connection and for silence.
        """
        base_url = await self._acquire(upstream)
        try:
            response = await self._send(upstream, base_url, resource, body, headers)
            try:
                yield response
            finally:
                response.close()
        finally:
            if upstream.kind == "embedded" and self._embedded is not None:
                self._embedded.release()

    async def close(self) -> None:
        """Close every connection."""
        sessions = list(self._sessions.values())
        self._sessions.clear()
        self._addresses.clear()
        for session in sessions:
            await session.close()

    async def _acquire(self, upstream: Upstream) -> str:
        if upstream.kind != "embedded":
            return upstream.base_url
        if self._embedded is None:
            raise local_failure("unreachable", 502, f"Model {where(upstream)} needs the embedded model: not installed")
        try:
            return await self._embedded.acquire()
        except AgentForgeError as error:
            message = f"Model {where(upstream)} did not start: {error.message}"
            raise local_failure("unreachable", 502, message, cause=error.info().to_dict()) from error

    async def _send(
        self, upstream: Upstream, base_url: str, resource: str, body: bytes, headers: CIMultiDict[str]
    ) -> aiohttp.ClientResponse:
        with translated(upstream, answering=False):
            address = self._addresses.get(base_url) or self._address(base_url)
            return await address.session.post(
                URL(address.prefix + resource, encoded=True),
                data=body,
                headers=headers,
                timeout=self._timeout(upstream.timeouts),
                ssl=address.tls,
                proxy=address.proxy,
                allow_redirects=False,
            )

    def _timeout(self, timeouts: Timeouts) -> aiohttp.ClientTimeout:
        found = self._timeouts.get(timeouts)
        if found is None:
            found = aiohttp.ClientTimeout(sock_connect=timeouts.connect_s, sock_read=timeouts.idle_s)
            self._timeouts[timeouts] = found
        return found

    def _address(self, base_url: str) -> _Address:
        if base_url.startswith("unix://"):
            path, prefix = _split_unix(base_url)
            address = _Address(self._session(path), "http://localhost" + prefix, True, None)
        else:
            url = URL(base_url)
            if url.scheme not in ("http", "https") or not url.host:
                raise aiohttp.InvalidURL(base_url)
            tls = self._tls_context() if url.scheme == "https" else True
            address = _Address(self._session(""), base_url.rstrip("/"), tls, _proxy_for(url))
        self._addresses[base_url] = address
        return address

    def _session(self, socket_path: str) -> aiohttp.ClientSession:
        """Return the session of a Unix socket, or the one for everything on TCP (empty path)."""
        if socket_path not in self._sessions:
            connector: aiohttp.BaseConnector = (
                PacedUnixConnector(socket_path, _KEEP_ALIVE_S) if socket_path else PacedTcpConnector(_KEEP_ALIVE_S)
            )
            self._sessions[socket_path] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_AUTO_HEADERS,
                read_bufsize=_READ_BUFFER,
            )
        return self._sessions[socket_path]

    def _tls_context(self) -> ssl.SSLContext:
        """Return the context for https, made once: reading the authorities takes long."""
        if self._tls is None:
            self._tls = tls_context()
        return self._tls


@contextmanager
def translated(upstream: Upstream, *, answering: bool) -> Iterator[None]:
    """Turn what aiohttp raises into CallFailed. `answering`: the headers of the answer had arrived."""
    try:
        yield
    except aiohttp.SocketTimeoutError:
        idle_s = upstream.timeouts.idle_s
        raise local_failure("silent", 504, f"Model {where(upstream)} was silent for {idle_s:g} s") from None
    except aiohttp.ConnectionTimeoutError:
        message = f"No connection to model {where(upstream)} within {upstream.timeouts.connect_s:g} s"
        raise local_failure("unreachable", 502, message) from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise local_failure("unreachable", 502, f"The address of model {where(upstream)} is no URL") from None
    except aiohttp.ClientConnectorError as error:
        reason = error.os_error.strerror or type(error.os_error).__name__
        raise local_failure("unreachable", 502, f"No connection to model {where(upstream)}: {reason}") from None
    except (aiohttp.ClientResponseError, aiohttp.ContentTypeError) as error:
        message = f"Model {where(upstream)} doesn't speak HTTP properly: {type(error).__name__}"
        raise local_failure("upstream_error", 502, message) from None
    except (aiohttp.ClientError, ConnectionError) as error:
        if not answering:
            message = f"Model {where(upstream)} closed the connection without an answer"
            raise local_failure("unreachable", 502, message) from None
        message = f"The answer of model {where(upstream)} broke off ({type(error).__name__})"
        raise local_failure("broken_stream", 502, message) from None


def _split_unix(base_url: str) -> tuple[str, str]:
    """Return socket path and HTTP prefix: what follows `.sock`, or `/v1`."""
    rest = base_url.removeprefix("unix://")
    end = rest.rfind(_SOCKET_SUFFIX)
    if end < 0:
        return rest.rstrip("/"), "/v1"
    end += len(_SOCKET_SUFFIX)
    return rest[:end], rest[end:].rstrip("/") or "/v1"


def _proxy_for(url: URL) -> str | None:
    """Return the proxy that the environment names for an address (`HTTPS_PROXY`, `NO_PROXY`); never for loopback."""
    host = url.host or ""
    if host == "localhost" or _is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
