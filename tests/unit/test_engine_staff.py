"""Workers and their doors: neither is left without the other."""

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from agentforge.engine.staff import Staff
from agentforge.workers import Handlers, PoolLimits, Worker, WorkersFolder, WorkerSpec, WorkerTimeouts

SPEC = WorkerSpec("agent", "env", Path("/python"), "v1")


class StandIn:
    """A worker without a process."""

    def __init__(self) -> None:
        self.id, self.spec, self.alive = "w1", SPEC, True
        self.hello: dict[str, Any] = {"capabilities": {}}
        self.door: socket.socket | None = socket.socket(socket.AF_UNIX)
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def kill(self, reason: str) -> None:
        self.alive = False
        self.ended.set_result(reason)

    stop = kill


class Environments:
    """Counts who holds an environment."""

    held = 0

    @contextlib.contextmanager
    def hold(self, _: str) -> Any:
        self.held += 1
        yield
        self.held -= 1


class Door:
    """Takes its time to close."""

    closed = False

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed = True


class Gateway:
    """Opens one door, or fails to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.door = Door()

    async def open_door(self, _listening: socket.socket, _worker: str) -> Door:
        if self.failure is not None:
            raise self.failure
        return self.door


def staff(gateway: Gateway, environments: Environments, worker: StandIn, monkeypatch: pytest.MonkeyPatch) -> Staff:
    async def start(*_: Any, **__: Any) -> StandIn:
        return worker

    monkeypatch.setattr(Worker, "start", start)
    return Staff(
        gateway, environments, Handlers(),  # type: ignore[arg-type]
        folder=WorkersFolder(Path("/none"), -1), pyz=Path("/none"), limits=PoolLimits(), timeouts=WorkerTimeouts(),
    )  # fmt: skip


async def test_a_worker_whose_door_cannot_be_opened_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, environments = StandIn(), Environments()
    door = worker.door
    made = staff(Gateway(OSError("no more files")), environments, worker, monkeypatch)
    with pytest.raises(OSError, match="no more files"):
        async with made.lease(SPEC):
            pass
    assert worker.ended.done()
    assert door is not None
    assert door.fileno() == -1
    assert environments.held == 0
    await made.close()


async def test_the_door_of_a_worker_closes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, environments, gateway = StandIn(), Environments(), Gateway()
    door = worker.door
    made = staff(gateway, environments, worker, monkeypatch)
    async with made.lease(SPEC):
        assert environments.held == 1
        assert not gateway.door.closed
    await worker.kill("gone")
    for _ in range(5):
        await asyncio.sleep(0)
    assert gateway.door.closed
    assert environments.held == 0
    assert door is not None
    door.close()
    await made.close()
