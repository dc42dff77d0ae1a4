"""A gate: the way of one worker to the hosts that its agent's `network` lists, and to no other.

The worker has no network; it talks to a listening socket that it handed over, as to an HTTP proxy. The host resolves
the name, checks every address, and connects to the address that it checked: a name that is asked for a second time
could answer otherwise. Only the request's head is read. What follows, TLS, is between the worker and the other end.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, Protocol

from agentforge.errors import AgentForgeError
from agentforge.errors.sandbox import NetworkRefused, NetworkUnreachable
from agentforge.gateway.accepting import Acceptor
from agentforge.gateway.addresses import METADATA_NAMES, IPAddress, concern, parse_address
from agentforge.gateway.connect import ESTABLISHED, end_of_head, read_request
from agentforge.gateway.destinations import Allowed, Destination
from agentforge.gateway.lookup import Lookups, Resolve, resolve
from agentforge.gateway.tunnel import EndReason, Tunnel

__all__ = ["Connection", "ConnectionObserver", "Gate", "GateLimits"]

P = ParamSpec("P")
_log = logging.getLogger(__name__)

_CHUNK = 4096
_MOST_CONNECTIONS = 128
_LAST_WORDS_S = 1.0
_LAST_WORDS_BYTES = 256 * 1024
_REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What one worker may ask of its gate."""

    connections: int = field(default_factory=lambda: _most_connections())
    """Connections at once; further ones wait to be accepted."""
    connections_per_s: float = 100.0
    """Connections a second on average; further ones wait to be accepted."""
    head_bytes: int = 16 * 1024
    """Size of a request's head."""
    head_s: float = 10.0
    """Seconds within which a request's head has to be there."""
    resolve_s: float = 15.0
    """Seconds that a lookup may take."""
    connect_s: float = 10.0
    """Seconds to connect to one address."""
    addresses: int = 8
    """Addresses of a name that are tried."""
    idle_s: float = 600.0
    """Seconds without a byte either way after which a connection is ended."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One attempt of a worker to reach something."""

    id: str
    """Unique in the host."""
    worker: str
    host: str
    """Empty if the request could not be read."""
    port: int
    address: str = ""
    """The address that the host connected to, once it has."""


class ConnectionObserver(Protocol):
    """Told of every attempt to connect, on the event loop. What it raises is logged."""

    def opened(self, connection: Connection) -> None:
        """Take note that a connection is there; `closed` follows."""
        ...

    def refused(self, connection: Connection, error: AgentForgeError) -> None:
        """Take note that there is none: NetworkRefused or NetworkUnreachable, with `why` in its details."""
        ...

    def closed(self, connection: Connection, why: EndReason, sent: int, received: int, duration_ms: float) -> None:
        """Take note that a connection ended, and how many bytes it carried."""
        ...


class Gate:
    """Serves one worker from `start` to `close`."""

    def __init__(
        self,
        listening: socket.socket,
        worker: str,
        network: Sequence[str],
        observer: ConnectionObserver,
        *,
        limits: GateLimits | None = None,
        resolve: Resolve = resolve,
        concern: Callable[[IPAddress], str | None] = concern,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """The listening socket belongs to the gate from here on. `network` is the agent's list of `host:port`."""
        self.worker = worker
        self._allowed = Allowed(network)
        self._observer = observer
        self._limits = limits = limits or GateLimits()
        self._lookups = Lookups(resolve)
        self._concern = concern
        self._clock = clock
        self._numbers = itertools.count(1)
        self._served: set[asyncio.Task[None]] = set()
        self._closed = False
        self._acceptor = Acceptor(
            listening,
            self._take,
            most=limits.connections,
            per_s=limits.connections_per_s,
            name=f"the gate of worker {worker}",
        )

    def start(self) -> None:
        """Begin to serve. Raises OSError, RuntimeError; the listening socket is closed then."""
        self._acceptor.start()

    async def close(self) -> None:
        """End all connections and accept none any more. Closing twice is fine."""
        first, self._closed = not self._closed, True
        await self._acceptor.stop()
        for task in self._served if first else ():
            task.cancel()
        if self._served:
            await asyncio.wait(self._served)

    def _take(self, client: socket.socket) -> None:
        task = asyncio.create_task(self._serve(client))
        self._served.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._served.discard(task)
        self._acceptor.done()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection of worker %s ended by a defect", self.worker, exc_info=error)

    async def _serve(self, client: socket.socket) -> None:
        with client:
            destination = Destination("", 0)
            number = f"{self.worker}-c{next(self._numbers)}"
            try:
                head, first = await self._read_head(client)
                destination = read_request(head)
                peer, address = await self._reach(destination)
            except (NetworkRefused, NetworkUnreachable) as error:
                connection = Connection(number, self.worker, destination.host, destination.port)
                self._tell(self._observer.refused, connection, error)
                await self._refuse(client, error)
                return
            except OSError:
                return  # the worker asked for nothing
            with peer:
                connection = Connection(number, self.worker, destination.host, destination.port, str(address))
                await self._pass_on(connection, client, peer, first)

    # ---- the request

    async def _read_head(self, client: socket.socket) -> tuple[bytes, bytes]:
        """Return a request's head and what came after it. Raises NetworkRefused, OSError."""
        loop = asyncio.get_running_loop()
        received = bytearray()
        try:
            async with asyncio.timeout(self._limits.head_s):
                while not (end := end_of_head(received)):
                    if len(received) >= self._limits.head_bytes:
                        raise self._too_large()
                    data = await loop.sock_recv(client, _CHUNK)
                    if not data:
                        raise ConnectionError
                    received += data
        except TimeoutError:
            if not received:
                raise ConnectionError from None  # made in advance, and never needed
            message = f"The request did not come within {self._limits.head_s:g} s"
            raise NetworkRefused(message, hint="", why="request", status=408) from None
        if end > self._limits.head_bytes:
            raise self._too_large()
        return bytes(received[:end]), bytes(received[end:])

    def _too_large(self) -> NetworkRefused:
        message = f"The request's head has more than {self._limits.head_bytes} bytes"
        return NetworkRefused(message, hint="", why="request", status=431)

    async def _refuse(self, client: socket.socket, error: AgentForgeError) -> None:
        """Answer in a way that clients show: many tell the status line only, few the body."""
        status = int(error.details["status"])
        body = json.dumps({"error": {"code": error.code, "message": error.message, "hint": error.hint}}).encode()
        fields = [
            f"HTTP/1.1 {status} {_REASONS[status]}: {_in_a_line(error.message)} ({error.code})",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(["Allow: CONNECT"] if status == 405 else []),
            "Connection: close",
        ]
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await loop.sock_sendall(client, "\r\n".join([*fields, "", ""]).encode("ascii") + body)
                client.shutdown(socket.SHUT_WR)
                # Closed with bytes unread, the connection would break off and take the answer along.
                left = _LAST_WORDS_BYTES
                while left > 0 and (data := await loop.sock_recv(client, _CHUNK)):
                    left -= len(data)

    # ---- the destination

    async def _reach(self, destination: Destination) -> tuple[socket.socket, IPAddress]:
        """Return a connection to a destination, and its address. Raises NetworkRefused, NetworkUnreachable."""
        if destination not in self._allowed:
            message = f"`{destination}` is not listed under `network`, which allows {self._allowed}"
            hint = f"Add it in the agent file: `network: [{destination}]`."
            raise NetworkRefused(message, hint=hint, why="unlisted", status=403)
        if destination.host in METADATA_NAMES:
            raise self._not_public(destination, destination.host, "a cloud's metadata service")
        addresses = await self._permitted(destination)
        failures: dict[str, None] = {}
        for address in addresses[: self._limits.addresses]:
            try:
                return await self._connect(address, destination.port), address
            except OSError as error:  # TimeoutError is one
                told = os.strerror(error.errno).lower() if error.errno else f"no answer in {self._limits.connect_s:g} s"
                failures[told] = None
        message = f"`{destination}` can't be reached from the host: {'; '.join(failures)}"
        raise NetworkUnreachable(message, why="unreachable", status=502)

    async def _permitted(self, destination: Destination) -> list[IPAddress]:
        """Return those addresses of a destination that may be connected to: all that is known of it from here on."""
        found = [destination.address] if destination.address else await self._resolved(destination)
        permitted = []
        concerns: dict[IPAddress, str] = {}
        for address in found:
            what = None if self._allowed.names(address, destination.port) else self._concern(address)
            if what is None:
                permitted.append(address)
            else:
                concerns[address] = what
        if not permitted:
            address, what = next(iter(concerns.items()))
            raise self._not_public(destination, str(address), what)
        return permitted

    async def _resolved(self, destination: Destination) -> list[IPAddress]:
        try:
            async with asyncio.timeout(self._limits.resolve_s):
                texts = await self._lookups.addresses(destination.host, destination.port)
        except TimeoutError:
            message = f"`{destination.host}` was not resolved by the host within {self._limits.resolve_s:g} s"
            raise NetworkUnreachable(message, why="unresolved", status=504) from None
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            message = f"`{destination.host}` can't be resolved by the host: {reason}"
            raise NetworkUnreachable(message, why="unresolved", status=502) from None
        addresses = [address for text in texts if (address := parse_address(text)) is not None]
        if not addresses:
            message = f"`{destination.host}` can't be resolved by the host: it has no address"
            raise NetworkUnreachable(message, why="unresolved", status=502)
        return addresses

    def _not_public(self, destination: Destination, address: str, what: str) -> NetworkRefused:
        literal = Destination(address, destination.port)
        if parse_address(address) is None:
            hint = "List the address itself under `network` in the agent file if the agent must reach it."
        else:
            hint = f"If the agent must reach it, list the address itself in the agent file: `network: ['{literal}']`."
        message = f"`{destination}` is {what}" + ("" if address == destination.host else f", `{address}`")
        message += ": `network` has to name such an address literally"
        return NetworkRefused(message, hint=hint, why="address", status=403)

    async def _connect(self, address: IPAddress, port: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        peer = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(self._limits.connect_s):
                await loop.sock_connect(peer, (str(address), port))
        except BaseException:
            peer.close()
            raise
        return peer

    # ---- the connection

    async def _pass_on(self, connection: Connection, client: socket.socket, peer: socket.socket, first: bytes) -> None:
        began = self._clock()
        tunnel = Tunnel(client, peer, self._limits.idle_s)
        self._tell(self._observer.opened, connection)
        why: EndReason = "gate"
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            why = await self._tunnelled(tunnel, first)
        finally:
            duration_ms = (self._clock() - began) * 1000
            self._tell(self._observer.closed, connection, why, tunnel.sent, tunnel.received, duration_ms)

    async def _tunnelled(self, tunnel: Tunnel, first: bytes) -> EndReason:
        try:
            async with asyncio.timeout(self._limits.idle_s):
                await asyncio.get_running_loop().sock_sendall(tunnel.worker, ESTABLISHED)
        except TimeoutError:
            return "idle"
        except OSError:
            return "worker"
        return await tunnel.run(first)

    def _tell(self, tell: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            tell(*args, **kwargs)
        except Exception:
            _log.exception("a connection of worker %s could not be reported", self.worker)


def _most_connections() -> int:
    """Return how many connections one worker may have: each takes two descriptors of the host's."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if limit == resource.RLIM_INFINITY else max(8, min(_MOST_CONNECTIONS, limit // 32))


def _in_a_line(text: str) -> str:
    return text.encode("ascii", "replace").decode().replace("\r", " ").replace("\n", " ")[:400]
