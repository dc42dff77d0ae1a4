"""The workers of a host, wired to the gateway and to the environments they run in."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from agentforge.environments import Environment, Environments
from agentforge.frameworks import Release
from agentforge.gateway import Door, Gateway
from agentforge.tools import ToolWorker
from agentforge.workers import (
    AdapterCode,
    Handlers,
    Pool,
    PoolLimits,
    Worker,
    WorkersFolder,
    WorkerSpec,
    WorkerTimeouts,
)

__all__ = ["Staff", "ToolStaff"]

_SPECS_KEPT = 256


class Staff:
    """Starts workers for the pool, opens their doors, keeps their environments from being removed."""

    def __init__(
        self,
        gateway: Gateway,
        environments: Environments,
        handlers: Handlers,
        *,
        folder: WorkersFolder,
        pyz: Path,
        limits: PoolLimits,
        timeouts: WorkerTimeouts,
    ) -> None:
        self._gateway = gateway
        self._environments = environments
        self._handlers = handlers
        self._folder = folder
        self._timeouts = timeouts
        self._pyz = pyz
        # Two pools: a run that waits for its tool's worker must not keep that worker from starting.
        self._agents = Pool(self._start, limits, "w")
        self._tools = Pool(self._start, limits, "t")
        self._closing: set[asyncio.Future[None]] = set()
        self._specs: dict[object, WorkerSpec] = {}
        self.closed = False
        """Whether no worker starts any more."""

    def agent_spec(
        self, environment: Environment, release: Release, adapter: AdapterCode, agent_version: str, native: bool
    ) -> WorkerSpec:
        """Return what a worker for this agent version is made of: the same object for the next run."""
        key = (environment.id, adapter, agent_version)
        if key not in self._specs:
            manifest = release.framework
            if len(self._specs) >= _SPECS_KEPT:
                self._specs.clear()
            self._specs[key] = WorkerSpec(
                kind="agent",
                environment=environment.id,
                python=environment.python,
                agent_version=agent_version,
                adapter=adapter,
                variables={**manifest.telemetry, **manifest.env},
                native=native,
                concurrency=manifest.concurrency,
                label=release.reference,
            )
        return self._specs[key]

    def tool_spec(self, environment: Environment, agent_version: str) -> WorkerSpec:
        """Return what a tool worker for this agent version is made of."""
        return WorkerSpec(
            kind="tools",
            environment=environment.id,
            python=environment.python,
            agent_version=agent_version,
            label="tools",
        )

    def lease(self, spec: WorkerSpec) -> contextlib.AbstractAsyncContextManager[Worker]:
        """Give a worker for one run, or for one tool call."""
        return self._pool(spec).lease(spec)

    def retire(self, worker: Worker) -> None:
        """Have a worker serve nothing more."""
        self._pool(worker.spec).retire(worker)

    def workers(self) -> list[tuple[Worker, int]]:
        """Return the live workers, each with the number of its runs or calls."""
        return [*self._agents.workers(), *self._tools.workers()]

    async def kill(self) -> None:
        """End all workers at once."""
        await asyncio.gather(*(worker.kill("the host gives up") for worker, _ in self.workers()))
        await self.close()

    async def close(self) -> None:
        """Stop all workers."""
        self.closed = True
        await asyncio.gather(self._agents.close(), self._tools.close())

    def _pool(self, spec: WorkerSpec) -> Pool:
        return self._agents if spec.kind == "agent" else self._tools

    async def _start(self, worker_id: str, spec: WorkerSpec) -> Worker:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._environments.hold(spec.environment))
            worker = await Worker.start(
                worker_id,
                spec,
                pyz=self._pyz,
                folder=self._folder.path / worker_id,
                handlers=self._handlers,
                timeouts=self._timeouts,
                workers=self._folder,
            )
            held = stack.pop_all()
        worker.ended.add_done_callback(lambda _: held.close())
        door_socket, worker.door = worker.door, None
        if door_socket is not None:
            await self._open_door(worker, door_socket)
        return worker

    async def _open_door(self, worker: Worker, listening: socket.socket) -> None:
        try:
            door = await self._gateway.open_door(listening, worker.id)
        except BaseException:
            listening.close()
            await worker.kill("its door can't be opened")
            raise
        worker.ended.add_done_callback(lambda _: self._close_door(door))

    def _close_door(self, door: Door) -> None:
        closing = asyncio.ensure_future(door.close())
        self._closing.add(closing)  # the loop itself keeps no hold of its tasks
        closing.add_done_callback(self._closing.discard)


class ToolStaff:
    """Implements the tools layer's `ToolWorkers` for one agent version."""

    def __init__(self, staff: Staff, spec: WorkerSpec) -> None:
        self._staff = staff
        self._spec = spec

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncIterator[ToolWorker]:
        """Give a worker of the tool environment for one call."""
        async with self._staff.lease(self._spec) as worker:
            yield worker

    def retire(self, worker: ToolWorker) -> None:
        """Have a worker serve nothing more: something hangs in it."""
        if isinstance(worker, Worker):
            self._staff.retire(worker)
