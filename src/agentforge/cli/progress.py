"""Progress on stderr: bars and a live line on a terminal, one line a stage elsewhere."""

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from agentforge.cli.output import say
from agentforge.errors import ErrorInfo
from agentforge.errors.host import RemoteError

__all__ = ["Progress"]

_ACTIVITY = {
    "run.started": "starting",
    "attempt.started": "running",
    "model.requested": "asking the model",
    "tool.called": "calling {name}",
    "tool.returned": "running",
    "model.responded": "running",
}


class Progress:
    """A context: builds and runs under way. Shows nothing for what is done at once."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._stages: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    async def build(self, events: AsyncGenerator[tuple[str, Any], None]) -> dict[str, Any]:
        """Show a build's events and return the environment. Raises what the build ended with."""
        async with aclosing(events):
            async for kind, data in events:
                if kind == "progress":
                    self._stage(data)
                elif kind == "error":
                    raise RemoteError(ErrorInfo.from_dict(data), int(data.get("exit_code", 1)))
                elif kind == "ready":
                    return dict(data)
        return {}

    def stage(self, report: dict[str, Any]) -> None:
        """Show one report of something under way."""
        self._stage(report)

    def count(self, name: str, done: int, total: int) -> None:
        """Show how much of something is done; on a terminal only."""
        if self._terminal:
            self._show(name, name, done, total)

    def event(self, name: str, event: Any) -> None:
        """Show what a run is doing."""
        text = _ACTIVITY.get(event.kind)
        if text is not None and self._terminal:
            self._show(name, f"{name}: {text.format(name=event.data.get('name', ''))}")

    def done(self, name: str) -> None:
        """Take a run's line away."""
        task = self._tasks.pop(name, None)
        if task is not None:
            self._bars.remove_task(task)

    def clear(self) -> None:
        """Take everything away: something is about to be printed."""
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._tasks = None, {}

    def say(self, text: str) -> None:
        """Say something on stderr without breaking the bars."""
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            say(text)

    def _stage(self, report: dict[str, Any]) -> None:
        name, stage = report["environment"], report["stage"]
        before = self._stages.get(name)
        self._stages[name] = stage
        if stage == "ready":
            self.done(name)
            if before is not None and not self._terminal:
                say(f"{name}: ready")
        elif self._terminal:
            self._show(name, f"{name}: {report['message'] or stage}", report["done"], report["total"])
        elif stage != before:
            say(f"{name}: {report['message'] or stage}")

    def _show(self, name: str, text: str, done: int = 0, total: int = 0) -> None:
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(text, total=total or None)
        self._bars.update(self._tasks[name], description=text, completed=done, total=total or None)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
