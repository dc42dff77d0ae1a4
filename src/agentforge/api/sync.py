"""The blocking face of the client: each call runs the async one on a loop in a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from agentforge.api.client import Forge, RunHandle
    from agentforge.api.result import RunEvent, RunResult

__all__ = ["SyncForge", "SyncRunHandle"]

T = TypeVar("T")


class _Bridge:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agentforge-client", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> T:
            return await anext(items)

        while True:
            try:
                yield self.call(following())
            except StopAsyncIteration:
                return

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncForge:
    """`Forge` with blocking methods. Made by `Forge.sync()`; use it as a context manager."""

    def __init__(self, forge: "Forge") -> None:
        self._forge = forge
        self._bridge: _Bridge

    def __enter__(self) -> Self:
        self._bridge = _Bridge()
        try:
            self._bridge.call(self._forge.__aenter__())
        except BaseException:
            self._bridge.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._bridge.call(self._forge.__aexit__(kind, error, trace))
        finally:
            self._bridge.close()

    def run(self, agent: Any, input: Any = "", **options: Any) -> "RunResult":
        """Run an agent and return how it ended; see `Forge.run`."""
        return self._bridge.call(self._forge.run(agent, input, **options))

    def submit(self, agent: Any, input: Any = "", **options: Any) -> "SyncRunHandle":
        """Start a run and return a handle to it; see `Forge.submit`."""
        return SyncRunHandle(self._bridge, self._bridge.call(self._forge.submit(agent, input, **options)))

    def attach(self, run_id: str) -> "SyncRunHandle":
        """Return a handle to a run that was started elsewhere."""
        return SyncRunHandle(self._bridge, self._forge.attach(run_id))


class SyncRunHandle:
    """`RunHandle` with blocking methods."""

    def __init__(self, bridge: _Bridge, handle: "RunHandle") -> None:
        self.run_id = handle.run_id
        self._bridge = bridge
        self._handle = handle

    def events(self, after: int = 0) -> "Iterator[RunEvent]":
        """Yield the run's events above `after` as they come, until its last one."""
        return self._bridge.iterate(self._handle.events(after))

    def result(self) -> "RunResult":
        """Wait for the run's end and return how it ended."""
        return self._bridge.call(self._handle.result())

    def status(self, wait_s: float = 0) -> "RunResult":
        """Return how the run stands."""
        return self._bridge.call(self._handle.status(wait_s))

    def cancel(self) -> "RunResult":
        """Cancel the run, wait for its end and return it."""
        return self._bridge.call(self._handle.cancel())
