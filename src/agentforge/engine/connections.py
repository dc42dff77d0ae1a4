"""Connections that workers make through their gates, told in the events of the runs that are under way there.

A worker that serves several runs at once does not say for which of them it connects: each of them is told.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from agentforge.engine.execution import Execution
from agentforge.errors import AgentForgeError
from agentforge.gateway import Connection, EndReason

__all__ = ["Connections"]

_MOST_TOLD = 5000
"""Attempts to connect that the events of one attempt of a run tell of: its neighbours in a worker can't fill them."""
_MOST_LOGGED = 100
"""Attempts to connect, with no run to tell, that the host's log takes of one worker."""
_WORKERS_KEPT = 4096
_log = logging.getLogger("agentforge.workers")


class Connections:
    """Implements the gateway's `ConnectionObserver`. `find` returns a run under way."""

    def __init__(self, find: Callable[[str], Execution | None]) -> None:
        self._find = find
        self._inside: dict[str, Counter[str]] = {}
        """By worker, the runs in it, each with the number of its attempts and tool calls there."""
        self._told: dict[str, list[Execution]] = {}
        """By connection, the runs that know that it was opened."""
        self._logged: Counter[str] = Counter()

    @contextlib.contextmanager
    def inside(self, worker: str, run_id: str) -> Iterator[None]:
        """Have a run be told of a worker's connections while the context lasts; without a run it changes nothing."""
        if not run_id:
            yield
            return
        runs = self._inside.setdefault(worker, Counter())
        runs[run_id] += 1
        try:
            yield
        finally:
            runs[run_id] -= 1
            if not runs[run_id]:
                del runs[run_id]
            if not runs:
                self._inside.pop(worker, None)

    def opened(self, connection: Connection) -> None:
        """Tell that a connection is there."""
        runs = self._runs(connection)
        if runs:
            self._told[connection.id] = runs
        self._tell(runs, "connection.opened", {**_whereto(connection), "address": connection.address})

    def refused(self, connection: Connection, error: AgentForgeError) -> None:
        """Tell that there is none, and why."""
        info = error.info().to_dict()
        why = info.pop("details")["why"]
        self._tell(
            self._runs(connection), "connection.refused", {**_whereto(connection), "why": why, "error": info}
        )  # fmt: skip

    def closed(self, connection: Connection, why: EndReason, sent: int, received: int, duration_ms: float) -> None:
        """Tell that a connection ended, to those who know of it."""
        data = {
            **_whereto(connection),
            "address": connection.address,
            "why": why,
            "bytes_sent": sent,
            "bytes_received": received,
            "duration_ms": round(duration_ms, 3),
        }
        self._tell(self._told.pop(connection.id, []), "connection.closed", data)

    def _runs(self, connection: Connection) -> list[Execution]:
        """Return the runs to tell of an attempt to connect, and count it."""
        ids = self._inside.get(connection.worker, ())
        there = [execution for run_id in ids if (execution := self._find(run_id)) is not None]
        if not there:
            self._log(connection)
        runs = [execution for execution in there if execution.attempt.connections < _MOST_TOLD]
        for execution in runs:
            execution.attempt.connections += 1
            if execution.attempt.connections == _MOST_TOLD:
                execution.warn(f"more than {_MOST_TOLD} connections were made: the events tell of no further ones")
        return runs

    def _tell(self, runs: list[Execution], kind: str, data: dict[str, Any]) -> None:
        for execution in runs:
            execution.feed.emit(kind, data)

    def _log(self, connection: Connection) -> None:
        if len(self._logged) >= _WORKERS_KEPT:
            self._logged.clear()
        self._logged[connection.worker] += 1
        if self._logged[connection.worker] <= _MOST_LOGGED:
            whereto = f"{connection.host}:{connection.port}" if connection.host else "what can't be read"
            told = f"connected to {whereto}" if connection.address else f"was refused a connection to {whereto}"
            _log.info("worker %s, with no run under way, %s", connection.worker, told)


def _whereto(connection: Connection) -> dict[str, Any]:
    return {
        "connection_id": connection.id,
        "worker": connection.worker,
        "host": connection.host,
        "port": connection.port,
    }
