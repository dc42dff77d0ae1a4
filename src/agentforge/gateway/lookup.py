"""Names turned into addresses by the host, in threads that hold up nobody else."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence

__all__ = ["Lookups", "Resolve", "resolve"]

Resolve = Callable[[str, int], Sequence[str]]
"""Return the addresses of a name; blocks; raises OSError or UnicodeError."""


def resolve(name: str, port: int) -> list[str]:
    """Ask the host's own resolver."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Lookups:
    """Lookups of one worker: one thread for each name at a time, however often it is asked for.

    A resolver may take half a minute to give up. The event loop's own threads must not wait for that, and a host that
    leaves doesn't: these threads are daemons.
    """

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._pending: dict[tuple[str, int], asyncio.Future[Sequence[str]]] = {}

    async def addresses(self, name: str, port: int) -> Sequence[str]:
        """Return the addresses of a name, in the resolver's order. Raises what the resolver raises."""
        key = name, port
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = self._begin(name, port)
            pending.add_done_callback(lambda _: self._pending.pop(key, None))
        return await asyncio.shield(pending)

    def _begin(self, name: str, port: int) -> "asyncio.Future[Sequence[str]]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[str]] = loop.create_future()
        future.add_done_callback(lambda done: done.exception())  # whoever asked may be gone

        def settle(found: Sequence[str] | Exception) -> None:
            if isinstance(found, Exception):
                future.set_exception(found)
            else:
                future.set_result(found)

        def look_up() -> None:
            found: Sequence[str] | Exception
            try:
                found = self._resolve(name, port)
            except Exception as error:
                found = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, found)

        threading.Thread(target=look_up, name=f"resolve {name}", daemon=True).start()
        return future
