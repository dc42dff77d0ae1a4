"""The workers of a host, wired to the gateway and to the environments they run in."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentforge.engine.connections import Connections
from agentforge.engine.permissions import Permitted
from agentforge.engine.redaction import Redaction
from agentforge.engine.soundness import Soundness
from agentforge.environments import Environment, Environments
from agentforge.errors import AgentForgeError
from agentforge.errors.workers import WorkerStartFailed
from agentforge.frameworks import Release
from agentforge.gateway import Door, DoorLimits, Gate, GateLimits, Gateway
from agentforge.sandbox import Fence, Watch, sandbox_for
from agentforge.tools import MOST_REPORT, ToolWorker
from agentforge.workers import (
    AdapterCode,
    CodeEnd,
    CodeSpec,
    Handlers,
    Pool,
    PoolLimits,
    Worker,
    WorkersFolder,
    WorkerSpec,
    WorkerTimeouts,
    run_code,
)

__all__ = ["Staff", "ToolStaff"]

_SPECS_KEPT = 256
_CONNECTIONS_PER_S = 100.0
"""Most that a worker may make, whatever its limit of requests: each is an event."""


class Staff:
    """Starts workers for the pool, opens their doors, keeps their environments from being removed."""

    def __init__(
        self,
        gateway: Gateway,
        environments: Environments,
        handlers: Handlers,
        connections: Connections,
        *,
        folder: WorkersFolder,
        watch: Watch,
        pyz: Path,
        limits: PoolLimits,
        timeouts: WorkerTimeouts,
        soundness: Soundness | None = None,
    ) -> None:
        """`soundness` says whether a worker can start in an environment; without it every one can."""
        self._gateway = gateway
        self._soundness = soundness
        self._environments = environments
        self._handlers = handlers
        self._connections = connections
        self._folder = folder
        self.watch = watch
        """What holds the workers to their limits."""
        self._timeouts = timeouts
        self._pyz = pyz
        # Two pools: a run that waits for its tool's worker must not keep that worker from starting.
        self._agents = Pool(self._start, limits, "w")
        self._tools = Pool(self._start, limits, "t")
        self._room_for_code = asyncio.Semaphore(limits.workers)
        self._running_code: set[asyncio.Task[Any]] = set()
        self._numbers = itertools.count(1)
        self._closing: set[asyncio.Future[None]] = set()
        self._specs: dict[object, WorkerSpec] = {}
        self.closed = False
        """Whether no worker starts any more."""

    def agent_spec(
        self,
        environment: Environment,
        release: Release,
        adapter: AdapterCode,
        agent_version: str,
        native: bool,
        fence: Fence,
        user: int | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> WorkerSpec:
        """Return what a worker for this agent version is made of: the same object for the next run.

        `variables` are those of the worker (default: the framework's).
        """
        variables = release.traits.variables if variables is None else variables
        key = (environment.id, adapter, agent_version, fence, user, tuple(variables.items()))
        if key not in self._specs:
            if len(self._specs) >= _SPECS_KEPT:
                self._specs.clear()
            self._specs[key] = WorkerSpec(
                kind="agent",
                environment=environment.id,
                python=environment.python,
                agent_version=agent_version,
                adapter=adapter,
                variables=variables,
                native=native,
                concurrency=release.traits.concurrency,
                fence=fence,
                user=user,
                label=release.reference,
            )
        return self._specs[key]

    def tool_spec(self, environment: Environment, agent_version: str, fence: Fence, permitted: Permitted) -> WorkerSpec:
        """Return what a tool worker for this agent version is made of: its secrets too, so others don't share it."""
        return WorkerSpec(
            kind="tools",
            environment=environment.id,
            python=environment.python,
            agent_version=agent_version,
            variables=permitted.variables(),
            secrets=tuple(permitted.secrets),
            fence=fence,
            label="tools",
        )

    @contextlib.asynccontextmanager
    async def lease(self, spec: WorkerSpec, run_id: str = "") -> AsyncIterator[Worker]:
        """Give a worker for one run, or for one tool call of it."""
        async with self._pool(spec).lease(spec) as worker:
            with self._connections.inside(worker.id, run_id):
                yield worker

    def retire(self, worker: Worker) -> None:
        """Have a worker serve nothing more."""
        self._pool(worker.spec).retire(worker)

    def dismiss(self, run_id: str) -> None:
        """Have the workers that are for one run alone serve nothing more: it is over, or left."""
        for worker, _ in self.workers():
            if worker.spec.alone == run_id:
                self.retire(worker)

    def workers(self) -> list[tuple[Worker, int]]:
        """Return the live workers, each with the number of its runs or calls."""
        return [*self._agents.workers(), *self._tools.workers()]

    async def run_code(self, environment: str, spec: CodeSpec, code: str, workspace: Path, timeout_s: float) -> CodeEnd:
        """Run code that a model wrote, once there is room for one more process. Raises what `workers.run_code` does."""
        task = asyncio.current_task()
        assert task is not None
        self._running_code.add(task)
        try:
            async with self._room_for_code:
                if self.closed:
                    raise WorkerStartFailed("the host is stopping")
                with self._environments.hold(environment):
                    return await run_code(
                        await asyncio.to_thread(sandbox_for, spec.fence.level),
                        spec,
                        code,
                        workspace=workspace,
                        pyz=self._pyz,
                        folder=self._folder.path / f"c{next(self._numbers)}",
                        workers=self._folder,
                        watch=self.watch,
                        timeout_s=timeout_s,
                        most_bytes=MOST_REPORT,
                    )
        finally:
            self._running_code.discard(task)

    def renew(self, environment: str) -> None:
        """Have the workers of an environment serve nothing more: it was built anew, and they are in the old one."""
        for worker, _ in self.workers():
            if worker.spec.environment == environment:
                self.retire(worker)

    async def kill(self) -> None:
        """End all workers at once."""
        self._cancel_code()
        await asyncio.gather(*(worker.kill("the host gives up") for worker, _ in self.workers()))
        await self.close()

    async def close(self) -> None:
        """Stop all workers."""
        self.closed = True
        self._cancel_code()
        await asyncio.gather(*self._running_code, return_exceptions=True)
        await asyncio.gather(self._agents.close(), self._tools.close())
        if self._closing:
            await asyncio.wait(self._closing)

    def _cancel_code(self) -> None:
        for task in self._running_code:
            task.cancel()

    def _pool(self, spec: WorkerSpec) -> Pool:
        return self._agents if spec.kind == "agent" else self._tools

    async def _start(self, worker_id: str, spec: WorkerSpec) -> Worker:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._environments.hold(spec.environment))
            worker = await self._start_sound(worker_id, spec)
            held = stack.pop_all()
        worker.ended.add_done_callback(lambda _: held.close())
        gate_socket, worker.gate = worker.gate, None
        if gate_socket is not None:
            await self._open_gate(worker, gate_socket)
        door_socket, worker.door = worker.door, None
        if door_socket is not None:
            await self._open_door(worker, door_socket)
        return worker

    async def _start_sound(self, worker_id: str, spec: WorkerSpec) -> Worker:
        """Start a worker while its environment is looked at. Raises EnvironmentBroken, and what a start raises."""
        looking = asyncio.ensure_future(self._require(spec.environment))
        try:
            worker = await Worker.start(
                worker_id,
                spec,
                pyz=self._pyz,
                folder=self._folder.path / worker_id,
                handlers=self._handlers,
                timeouts=self._timeouts,
                workers=self._folder,
                redact=Redaction.of(spec.variables, spec.secrets).value if spec.secrets else None,
                watch=self.watch,
            )
        except AgentForgeError:
            await looking
            await self._require(spec.environment)  # it may be that somebody did something since
            raise
        except BaseException:
            looking.cancel()
            raise
        try:
            await looking
        except BaseException:
            await worker.kill("its environment is broken")
            raise
        return worker

    async def _require(self, environment: str) -> None:
        if self._soundness is not None:
            await self._soundness.require(environment)

    async def _open_gate(self, worker: Worker, listening: socket.socket) -> None:
        fence = worker.spec.fence
        limits = GateLimits(connections_per_s=min(_CONNECTIONS_PER_S, fence.limits.requests_per_s))
        gate = Gate(listening, worker.id, fence.network, self._connections, limits=limits)
        try:
            gate.start()
        except BaseException:
            await worker.kill("its gate can't be opened")
            raise
        worker.ended.add_done_callback(lambda _: self._close(gate))

    async def _open_door(self, worker: Worker, listening: socket.socket) -> None:
        try:
            fence = worker.spec.fence.limits
            per_s = fence.requests_per_s
            limits = DoorLimits(fence.open_files, requests_per_s=per_s, connections_per_s=per_s)
            door = await self._gateway.open_door(listening, worker.id, limits)
        except BaseException:
            listening.close()
            await worker.kill("its door can't be opened")
            raise
        worker.ended.add_done_callback(lambda _: self._close(door))

    def _close(self, opened: Door | Gate) -> None:
        closing = asyncio.ensure_future(opened.close())
        self._closing.add(closing)  # the loop itself keeps no hold of its tasks
        closing.add_done_callback(self._closing.discard)


class ToolStaff:
    """Implements the tools layer's `ToolWorkers` for one agent version."""

    def __init__(self, staff: Staff, spec: WorkerSpec, permitted: Permitted) -> None:
        self._staff = staff
        self._spec = spec
        self._permitted = permitted

    @contextlib.asynccontextmanager
    async def lease(self, run_id: str = "", *, alone: bool = False) -> AsyncIterator[ToolWorker]:
        """Give a worker of the tool environment for one call of a run; `alone`: one that serves no other run."""
        self._permitted.require_unmoved()
        spec = replace(self._spec, alone=run_id) if alone else self._spec
        async with self._staff.lease(spec, run_id) as worker:
            if run_id:
                worker.serve(run_id)
            yield worker

    def retire(self, worker: ToolWorker) -> None:
        """Have a worker serve nothing more: something hangs in it."""
        if isinstance(worker, Worker):
            self._staff.retire(worker)
