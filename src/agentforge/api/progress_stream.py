"""Work that tells of its progress, as a stream of server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from agentforge.api.problems import problem
from agentforge.api.sse import sse
from agentforge.environments import BuildProgress, Progress
from agentforge.errors import AgentForgeError, InternalError

__all__ = ["Report", "build_report", "progress_stream"]


class Report(Protocol):
    """Takes what there is to tell while work goes on."""

    def __call__(self, data: Mapping[str, Any], kind: str = "progress") -> None:
        """Tell it as an event of a kind."""


def build_report(report: Report) -> Progress:
    """Return what builds tell of themselves to."""

    def tell(progress: BuildProgress) -> None:
        report(asdict(progress))

    return tell


async def progress_stream(work: Callable[[Report], Awaitable[Mapping[str, Any]]]) -> AsyncIterator[bytes]:
    """Yield what the work reports while it goes on, and its end: `ready` with what it returns, or `error`.

    A client that leaves ends the work.
    """
    reports: asyncio.Queue[bytes | None] = asyncio.Queue()

    def report(data: Mapping[str, Any], kind: str = "progress") -> None:
        reports.put_nowait(sse(dict(data), kind=kind))

    task = asyncio.ensure_future(work(report))
    task.add_done_callback(lambda _: reports.put_nowait(None))
    try:
        while (event := await reports.get()) is not None:
            yield event
        try:
            done = task.result()
        except AgentForgeError as error:
            yield sse(problem(error), kind="error")
        except Exception as error:
            yield sse(problem(InternalError(f"`{type(error).__name__}`: {error}")), kind="error")
        else:
            yield sse(dict(done), kind="ready")
    finally:
        task.cancel()
        await asyncio.wait([task])
