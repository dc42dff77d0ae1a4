"""What workers report of their own accord: events of adapters, captured output, warnings.

The wire has checked the parameters (`workers/schemas.py`). Whether a worker may speak of the run is decided here.
"""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from agentforge.engine.allowance import Backlog
from agentforge.engine.execution import Execution
from agentforge.workers import Worker

__all__ = ["WorkerReports"]

_HOLD_S = 0.02
"""How long a worker is not read from while too much waits to be recorded."""
_OWN_LINES = 1 << 20
"""Characters of output that belong to no run, and that the host's log takes of one worker."""
_log = logging.getLogger("agentforge.workers")


class WorkerReports:
    """Listens to workers. A report for an attempt that is not under way in that worker is dropped."""

    def __init__(self, find: Callable[[str], Execution | None], backlog: Backlog) -> None:
        self._find = find
        self._backlog = backlog
        self._own_lines: Counter[str] = Counter()

    def event(self, worker: Worker, params: dict[str, Any]) -> None:
        """Take an adapter's event."""
        execution = self._execution(worker, params)
        if execution is not None and not execution.attempt.says_again("events"):
            execution.feed.emit(params["kind"], params["data"])

    def log(self, worker: Worker, params: dict[str, Any]) -> None:
        """Take a line that the framework wrote: into its run's events; one that is no run's into the host's log."""
        stream, text = params["stream"], params["text"]
        if params.get("run_id") is None:
            self._log_own(worker, stream, text)
            return
        execution = self._execution(worker, params)
        if execution is not None and not execution.attempt.says_again(stream):
            execution.feed.emit("log.written", {"stream": stream, "text": text})

    def warn(self, worker: Worker, params: dict[str, Any]) -> None:
        """Take an adapter's warning to the user."""
        execution = self._execution(worker, params)
        if execution is not None:
            execution.warn(params["message"])

    def forget(self, worker: Worker) -> None:
        """Take note of a worker's end."""
        self._own_lines.pop(worker.id, None)

    def _execution(self, worker: Worker, params: dict[str, Any]) -> Execution | None:
        if self._backlog.full:
            worker.hold(_HOLD_S)
        execution = self._find(params["run_id"])
        if execution is None or not execution.attempt.goes_on_in(worker.id, params["attempt"]):
            return None
        return execution

    def _log_own(self, worker: Worker, stream: str, text: str) -> None:
        before = self._own_lines[worker.id]
        self._own_lines[worker.id] = before + len(text) + 1
        if before <= _OWN_LINES:
            # A line is one line, and no command to the terminal that somebody reads it on.
            shown = "".join(each if each.isprintable() else "\ufffd" for each in text)
            _log.info("worker %s (%s) %s: %s", worker.id, worker.spec.label, stream, shown)
        if before <= _OWN_LINES < self._own_lines[worker.id]:
            _log.warning("worker %s (%s) writes more than is kept; the rest is left out", worker.id, worker.spec.label)
