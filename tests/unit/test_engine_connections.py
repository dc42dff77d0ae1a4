"""Connections of workers in the events of runs: of those that are there, and of no others."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from agentforge.engine import connections as module
from agentforge.engine.connections import Connections
from agentforge.errors.sandbox import NetworkRefused
from agentforge.gateway import Connection


class Runs:
    """Runs under way, of which only events are looked at."""

    def __init__(self, *ids: str) -> None:
        self.events: dict[str, list[tuple[str, dict[str, Any]]]] = {run_id: [] for run_id in ids}
        self.warnings: list[str] = []
        self.there = {run_id: self._run(run_id) for run_id in ids}
        self.connections = Connections(self.there.get)  # type: ignore[arg-type]

    def _run(self, run_id: str) -> Any:
        emit = lambda kind, data: self.events[run_id].append((kind, data))  # noqa: E731
        return SimpleNamespace(
            feed=SimpleNamespace(emit=emit), attempt=SimpleNamespace(connections=0), warn=self.warnings.append
        )

    def kinds(self, run_id: str) -> list[str]:
        return [kind for kind, _ in self.events[run_id]]


def connection(number: int = 1, worker: str = "w1", address: str = "93.184.216.34") -> Connection:
    return Connection(f"{worker}-c{number}", worker, "api.test", 443, address)


def refusal() -> NetworkRefused:
    return NetworkRefused("`evil.test:443` is not listed", hint="List it.", why="unlisted", status=403)


def test_every_run_in_the_worker_is_told_and_no_other() -> None:
    runs = Runs("r1", "r2", "r3")
    with runs.connections.inside("w1", "r1"), runs.connections.inside("w1", "r2"), runs.connections.inside("w2", "r3"):
        runs.connections.opened(connection())
        runs.connections.closed(connection(), "ended", 517, 4096, 12.3456)
        runs.connections.refused(connection(2, address=""), refusal())
    assert runs.events["r1"] == runs.events["r2"]
    assert runs.events["r3"] == []
    where = {"worker": "w1", "host": "api.test", "port": 443}
    assert runs.events["r1"] == [
        ("connection.opened", {"connection_id": "w1-c1", **where, "address": "93.184.216.34"}),
        (
            "connection.closed",
            {
                "connection_id": "w1-c1",
                **where,
                "address": "93.184.216.34",
                "why": "ended",
                "bytes_sent": 517,
                "bytes_received": 4096,
                "duration_ms": 12.346,
            },
        ),
        (
            "connection.refused",
            {
                "connection_id": "w1-c2",
                **where,
                "why": "unlisted",
                "error": {
                    "code": "AF450",
                    "message": "`evil.test:443` is not listed",
                    "hint": "List it.",
                    "origin": "user",
                },
            },
        ),
    ]


def test_a_run_that_came_or_left_in_between_hears_of_what_it_knows() -> None:
    runs = Runs("r1", "r2")
    with runs.connections.inside("w1", "r1"):
        runs.connections.opened(connection())
    with runs.connections.inside("w1", "r2"):
        runs.connections.closed(connection(), "gate", 0, 0, 1.0)
    assert runs.kinds("r1") == ["connection.opened", "connection.closed"]
    assert runs.kinds("r2") == []


def test_a_run_is_inside_until_its_last_call_there_is_over() -> None:
    runs = Runs("r1")
    with runs.connections.inside("t1", "r1"):
        with runs.connections.inside("t1", "r1"):
            runs.connections.opened(connection(1, "t1"))
        runs.connections.opened(connection(2, "t1"))
    runs.connections.opened(connection(3, "t1"))
    assert [data["connection_id"] for _, data in runs.events["r1"]] == ["t1-c1", "t1-c2"]


def test_what_no_run_is_told_of_is_in_the_hosts_log_but_not_without_end(caplog: pytest.LogCaptureFixture) -> None:
    runs = Runs()
    with caplog.at_level(logging.INFO, "agentforge.workers"):
        runs.connections.opened(connection())
        runs.connections.refused(connection(2, address=""), refusal())
        for number in range(1000):
            runs.connections.opened(connection(number))
    assert caplog.messages[:2] == [
        "worker w1, with no run under way, connected to api.test:443",
        "worker w1, with no run under way, was refused a connection to api.test:443",
    ]
    assert len(caplog.messages) == 100


def test_a_worker_that_connects_without_end_does_not_fill_a_runs_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_TOLD", 3)
    runs = Runs("r1")
    with runs.connections.inside("w1", "r1"):
        for number in range(10):
            runs.connections.opened(connection(number))
            runs.connections.closed(connection(number), "ended", 0, 0, 1.0)
    assert runs.kinds("r1") == ["connection.opened", "connection.closed"] * 3
    assert runs.warnings == ["more than 3 connections were made: the events tell of no further ones"]
