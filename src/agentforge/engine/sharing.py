"""Equal work done once for all who ask for it before it begins: to reading what a group commit is to writing."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["SharedWork"]

T = TypeVar("T")


class SharedWork(Generic[T]):
    """Work by key, one at a time. Whoever asks gets what began after it asked: nothing older. For one event loop."""

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
