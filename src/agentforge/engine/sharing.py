"""Equal work done once for many: for all who ask before it begins, or for all who ask before it ends."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["JoinedWork", "SharedWork"]

P = TypeVar("P")
T = TypeVar("T")


class SharedWork(Generic[T]):
    """Work by key, one at a time. Whoever asks gets what began after it asked: nothing older. For one event loop.

    To reading it is what a group commit is to writing.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, asyncio.Task[T]] = {}
        self._last: dict[Hashable, asyncio.Task[T]] = {}

    async def do(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `work` returns, or raise what it raises; it goes on if who asked first gives up."""
        task = self._waiting.get(key)
        if task is None:
            task = asyncio.create_task(self._run(key, self._last.get(key), work))
            self._waiting[key] = self._last[key] = task
        return await asyncio.shield(task)

    async def _run(
        self, key: Hashable, before: "asyncio.Task[T] | None", work: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        if before is not None:
            await asyncio.wait([before])
        task = self._waiting.pop(key)  # it begins: who comes now needs another one
        try:
            return await work()
        finally:
            if self._last[key] is task:
                del self._last[key]


class JoinedWork(Generic[T, P]):
    """Work by key that tells of its progress. Whoever asks while it is under way joins it. For one event loop."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, _UnderWay[T, P]] = {}

    async def do(
        self,
        key: Hashable,
        work: Callable[[Callable[[P], None]], Coroutine[Any, Any, T]],
        listener: Callable[[P], None] | None = None,
    ) -> T:
        """Return what `work` returns, or raise what it raises; it goes on if a caller gives up.

        `work` gets what it is to tell its progress to. A listener hears of it from where it is.
        """
        joined = self._under_way.get(key)
        if joined is None:
            joined = self._under_way[key] = _UnderWay()
            joined.task = asyncio.create_task(work(joined.tell))
            joined.task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await joined.wait(listener)

    async def close(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        tasks = [each.task for each in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _UnderWay(Generic[T, P]):
    """One piece of work, and who hears of it."""

    task: asyncio.Task[T]

    def __init__(self) -> None:
        self._listeners: list[Callable[[P], None]] = []
        self._last: P | None = None

    def tell(self, progress: P) -> None:
        self._last = progress
        for listener in list(self._listeners):
            listener(progress)

    async def wait(self, listener: Callable[[P], None] | None) -> T:
        if listener is not None:
            self._listeners.append(listener)
            if self._last is not None:
                listener(self._last)
        try:
            # A caller that gives up must not stop it for the others.
            return await asyncio.shield(self.task)
        finally:
            if listener is not None:
                self._listeners.remove(listener)
