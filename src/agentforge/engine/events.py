"""What workers report of their own accord: events of adapters, captured output, warnings."""

import logging
from collections.abc import Callable
from typing import Any

from agentforge.engine.execution import Execution
from agentforge.engine.record import FROM_ADAPTERS
from agentforge.workers import Worker

__all__ = ["WorkerReports"]

_log = logging.getLogger("agentforge.workers")


class WorkerReports:
    """Listens to workers. A report for a run that is not in that worker is dropped."""

    def __init__(self, find: Callable[[str], Execution | None]) -> None:
        self._find = find

    def event(self, worker: Worker, params: dict[str, Any]) -> None:
        """Take an adapter's event."""
        execution = self._execution(worker, params)
        kind, data = params.get("kind"), params.get("data")
        if execution is None or kind not in FROM_ADAPTERS or not isinstance(data, dict):
            return
        if not execution.attempt.says_again("events"):
            execution.feed.emit(str(kind), data)

    def log(self, worker: Worker, params: dict[str, Any]) -> None:
        """Take a line that the framework wrote: into its run's events, or into the host's log."""
        stream, text = str(params.get("stream")), str(params.get("text"))
        execution = self._execution(worker, params)
        if execution is not None:
            if not execution.attempt.says_again(stream):
                execution.feed.emit("log.written", {"stream": stream, "text": text})
        else:
            _log.info("worker %s (%s) %s: %s", worker.id, worker.spec.label, stream, text)

    def warn(self, worker: Worker, params: dict[str, Any]) -> None:
        """Take an adapter's warning to the user."""
        execution = self._execution(worker, params)
        if execution is not None:
            execution.warn(str(params.get("message")))

    def _execution(self, worker: Worker, params: dict[str, Any]) -> Execution | None:
        run_id = params.get("run_id")
        execution = self._find(run_id) if isinstance(run_id, str) else None
        return execution if execution is not None and execution.attempt.worker_id == worker.id else None
