"""CrewAI calls models and tools in threads; here such a thread waits for the loop, no longer than its run lasts."""

import asyncio
import contextlib
from contextvars import ContextVar
from typing import Any, Awaitable, Iterator, Set

from agentforge_worker.adapter import current_run

__all__ = ["wait", "waits_end_here"]

_waits: "ContextVar[Set[asyncio.Task[Any]]]" = ContextVar("agentforge_crewai_waits")


def wait(awaitable: "Awaitable[Any]") -> Any:
    """Wait for an awaitable from a thread of a run. Raises concurrent.futures.CancelledError when the run ends."""
    return current_run().wait(_watched(awaitable))


@contextlib.contextmanager
def waits_end_here() -> "Iterator[None]":
    """Let go, at the end of the block, of every thread that still waits in it."""
    under_way: "Set[asyncio.Task[Any]]" = set()
    _waits.set(under_way)
    try:
        yield
    finally:
        for task in under_way:
            task.cancel()


async def _watched(awaitable: "Awaitable[Any]") -> Any:
    task = asyncio.current_task()
    assert task is not None
    under_way = _waits.get()
    under_way.add(task)
    try:
        return await awaitable
    finally:
        under_way.discard(task)
