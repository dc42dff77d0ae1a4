"""What a run says of the builds that it waits for."""

from agentforge.engine.execution import Execution
from agentforge.environments import BuildProgress

__all__ = ["BuildLog"]


class BuildLog:
    """Tells a run's watchers about a build that the run waits for: each stage once, packages in tenths."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._last: tuple[str, str, int] | None = None

    def __call__(self, progress: BuildProgress) -> None:
        tenth = progress.done * 10 // progress.total if progress.total else 0
        state = (progress.environment, progress.stage, tenth)
        if state == self._last or (progress.stage == "ready" and self._last is None):
            return
        self._last = state
        self._execution.feed.emit(
            "log.written",
            {
                "stream": "environment",
                "text": f"{progress.environment}: {progress.message or progress.stage}",
                "environment": progress.environment,
                "stage": progress.stage,
                "done": progress.done,
                "total": progress.total,
            },
        )
