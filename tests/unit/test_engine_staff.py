"""Workers and their doors and gates: none is left without the other."""

import asyncio
import contextlib
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentforge.engine.connections import Connections
from agentforge.engine.staff import Staff
from agentforge.gateway import DoorLimits
from agentforge.sandbox import Fence, Watch
from agentforge.sandbox.cgroups import Cgroups
from agentforge.workers import Handlers, PoolLimits, Worker, WorkersFolder, WorkerSpec, WorkerTimeouts

SPEC = WorkerSpec("agent", "env", Path("/python"), "v1")


class StandIn:
    """A worker without a process."""

    def __init__(self, spec: WorkerSpec = SPEC, gate: socket.socket | None = None) -> None:
        self.id, self.spec, self.alive, self.gate = "w1", spec, True, gate
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

    async def open_door(self, _listening: socket.socket, _worker: str, _limits: DoorLimits) -> Door:
        if self.failure is not None:
            raise self.failure
        return self.door


def staff(gateway: Gateway, environments: Environments, worker: StandIn, monkeypatch: pytest.MonkeyPatch) -> Staff:
    async def start(*_: Any, **__: Any) -> StandIn:
        return worker

    monkeypatch.setattr(Worker, "start", start)
    return Staff(
        gateway, environments, Handlers(), Connections({}.get),  # type: ignore[arg-type]
        folder=WorkersFolder(Path("/none")), watch=Watch(Cgroups(Path("/none"), 0)), pyz=Path("/none"),
        limits=PoolLimits(), timeouts=WorkerTimeouts(),
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


def listening() -> socket.socket:
    gate = socket.socket()
    gate.bind(("127.0.0.1", 0))
    gate.listen()
    return gate


async def test_the_gate_of_a_worker_opens_with_its_network_and_closes_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = listening()
    address = gate.getsockname()
    spec = replace(SPEC, fence=Fence(network=("api.test:443",)))
    worker, gateway = StandIn(spec, gate), Gateway()
    door = worker.door
    made = staff(gateway, Environments(), worker, monkeypatch)
    async with made.lease(spec):
        assert worker.gate is None
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"CONNECT other.test:443 HTTP/1.1\r\n\r\n")
        assert b"403 Forbidden: `other.test:443` is not listed under `network`, which allows `api.test:443`" in (
            await reader.readline()
        )
        writer.close()
    await worker.kill("gone")
    await asyncio.sleep(0)
    await made.close()
    assert gate.fileno() == -1
    with pytest.raises(OSError):
        await asyncio.open_connection(*address)
    assert door is not None
    door.close()


async def test_a_worker_whose_gate_cannot_be_opened_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = listening()
    worker, environments = StandIn(SPEC, gate), Environments()
    made = staff(Gateway(), environments, worker, monkeypatch)

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        async with made.lease(SPEC):
            pass
    assert worker.ended.done()
    assert gate.fileno() == -1
    assert environments.held == 0
    assert worker.door is not None
    worker.door.close()  # as the worker does at its end
    await made.close()
