"""A host inside of the calling process, in a thread of its own: for CI, containers and programs."""

import asyncio
import concurrent.futures
import math
import threading

from agentforge.api.place import HostPlace

__all__ = ["InlineHost"]


class InlineHost:
    """Started by `start`, which returns once clients can connect; `stop` ends it and waits for its end.

    Where another process serves the project for itself alone, `start` waits for its end.
    """

    def __init__(self, place: HostPlace) -> None:
        self._place = place
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="agentforge-host", daemon=True)

    async def start(self) -> None:
        """Start the host. Raises what keeps it from starting: HostAlreadyRuns if there is one for all."""
        self._thread.start()
        try:
            await asyncio.shield(asyncio.wrap_future(self._ready))
        except asyncio.CancelledError:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the host and wait until its workers are gone."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)

    async def _serve(self) -> None:
        from agentforge.api.server import HostServer

        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = HostServer(self._place, patience_s=math.inf)
        stopping = asyncio.create_task(self._stop.wait())
        stopping.add_done_callback(lambda _: server.stop())
        await server.serve(lambda: self._ready.set_result(None))
        stopping.cancel()
