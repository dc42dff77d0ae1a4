"""One run from its start to its end: environments, worker, attempt, result."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from agentforge.engine.answers import Answer, read_answer
from agentforge.engine.execution import Execution
from agentforge.engine.failures import error_of
from agentforge.engine.output import checked_output
from agentforge.engine.provision import Provision
from agentforge.engine.staff import Staff, ToolStaff
from agentforge.engine.versions import AgentVersions
from agentforge.environments import BuildProgress, Environment
from agentforge.errors import AgentForgeError, ErrorInfo
from agentforge.errors.runs import RunTimedOut
from agentforge.gateway import Gateway, Grant
from agentforge.store import Attempt, AttemptStatus, JsonObject, RunChanges, RunStatus, Store
from agentforge.tools import PythonTools, Tool
from agentforge.workers import Worker
from agentforge_worker.wire import Method, RpcError

__all__ = ["Runner"]

_CANCEL_GRACE_S = 1.5
"""How long a framework may take to leave a cancelled run before its worker is given up."""
_log = logging.getLogger(__name__)


class Runner:
    """Executes runs with the parts that the engine made."""

    def __init__(
        self,
        store: Store,
        provision: Provision,
        versions: AgentVersions,
        gateway: Gateway,
        staff: Staff,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._provision = provision
        self._versions = versions
        self._gateway = gateway
        self._staff = staff
        self._clock = clock

    async def execute(self, execution: Execution) -> None:
        """Run to the end and record it. Raises nothing but what makes recording impossible."""
        work = asyncio.create_task(self._work(execution))
        stop = asyncio.create_task(_first(execution.cancel_requested, execution.doomed))
        try:
            await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await self._stop(execution, work)
            await self._abandon_tools(execution)
            await self._conclude(execution, work)
        finally:
            stop.cancel()
            if execution.turn is not None and execution.has_turn:
                execution.turn.release()

    # ---- the work

    async def _work(self, execution: Execution) -> Answer:
        if execution.turn is not None:  # runs of one thread go one after the other, in the order they were sent
            await execution.turn.acquire()
            execution.has_turn = True
        environment = await self._provide(execution)
        spec = self._staff.agent_spec(
            environment,
            execution.prepared.release,
            self._provision.adapters.code(execution.prepared.release),
            execution.prepared.version.id,
            execution.prepared.definition.is_native,
        )
        async with self._staff.lease(spec) as worker:
            return await self._attempt(execution, worker, environment)

    async def _provide(self, execution: Execution) -> Environment:
        """Build what is missing and describe the tools."""
        prepared = execution.prepared
        tell = _BuildLog(execution)
        environment = await self._provision.ensure(prepared.provisioned.request, prepared.release, tell)
        if prepared.definition.tools:
            request = await self._provision.tools(prepared.project, tell)
            tool_environment = await self._provision.ensure(request, None, tell)
            root = await self._versions.folder(prepared.version)
            spec = self._staff.tool_spec(tool_environment, prepared.version.id)
            execution.toolbox = PythonTools(ToolStaff(self._staff, spec), root)
            declared = [_tool(each) for each in prepared.definition.tools]
            described = await self._versions.tools(prepared.version, execution.toolbox, declared)
            execution.tools = {tool.name: tool for tool in described}
        return environment

    async def _attempt(self, execution: Execution, worker: Worker, environment: Environment) -> Answer:
        execution.worker_id = worker.id
        execution.feed.attempt += 1
        number, started = execution.feed.attempt, self._clock()
        execution.run = msgspec.structs.replace(
            execution.run, status="running", started_at=started, environment=environment.id
        )
        run_id, epoch = execution.run.run_id, execution.run.lease_epoch
        status: AttemptStatus = "failed"
        error: JsonObject | None = None
        limit = self._limit_time(execution)
        try:
            await asyncio.gather(  # one commit
                self._store.start_attempt(Attempt(run_id, number, worker.id, started), epoch),
                self._store.update_run(run_id, epoch, status="running", started_at=started, environment=environment.id),
            )
            execution.feed.emit(
                "attempt.started",
                {"attempt": number, "worker": worker.id, "pid": worker.pid, "environment": environment.id},
            )
            answer = await self._in_worker(execution, worker)
            status = "succeeded"
            return answer
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        except (AgentForgeError, RpcError) as failure:
            error = error_of(failure, execution).to_dict()
            raise
        finally:
            if limit is not None:
                limit.cancel()
            # Not awaited here: it is committed together with the end of the run, in the order of the calls.
            execution.writes.append(
                asyncio.ensure_future(
                    self._store.finish_attempt(
                        run_id, number, epoch, status=status, finished_at=self._clock(), error=error
                    )
                )
            )

    async def _in_worker(self, execution: Execution, worker: Worker) -> Answer:
        prepared, run = execution.prepared, execution.run
        agent_id = await self._open(execution, worker)
        upstream = prepared.upstream
        grant = Grant(run.run_id, execution.feed.attempt, worker.id, {upstream.alias: upstream})
        execution.token = self._gateway.grant(grant, worker.native_token or None)
        try:
            start = await self._start(execution, agent_id)
            if execution.cancel_requested.is_set() or execution.failure is not None:
                raise asyncio.CancelledError  # asked for before the worker knew of the run
            answer = read_answer(await worker.call(Method.RUN_START, start))
        finally:
            await self._gateway.revoke(execution.token)
        answer.output = checked_output(answer.output, prepared.definition.file.output)
        return answer

    def _limit_time(self, execution: Execution) -> asyncio.TimerHandle | None:
        """Start the clock of `limits.time_s`: waiting for a build or a worker does not count."""
        limit = execution.prepared.definition.file.limits.time_s
        if limit is None:
            return None
        error = RunTimedOut(f"the run took longer than its limit of {limit:g} s")
        return asyncio.get_running_loop().call_later(limit, execution.fail, error)

    async def _open(self, execution: Execution, worker: Worker) -> str:
        """Have the worker build the agent unless it has; returns the id by which the worker knows it."""
        prepared = execution.prepared
        agent_id = f"{prepared.version.id}:{prepared.upstream.model}:{sorted(prepared.settings.items())}"
        if agent_id not in worker.opened:
            params: dict[str, Any] = {"agent_id": agent_id}
            native = prepared.definition.file.native
            if native is None:
                params["spec"] = self._spec(execution)
            else:
                module, _, attribute = native.entrypoint.partition(":")
                root = await self._versions.folder(prepared.version)
                params["source"] = {"root": str(root), "module": module, "attribute": attribute}
                if not worker.hello["capabilities"].get("native_concurrent"):
                    # Its code may make its clients when it is imported: the key must be known by then.
                    worker.native_token = params["token"] = worker.native_token or self._gateway.new_token()
            opened = await worker.call(Method.AGENT_OPEN, params)
            worker.opened[agent_id] = [str(warning) for warning in opened.get("warnings") or []]
        for warning in worker.opened[agent_id]:
            execution.warn(warning)
        return agent_id

    def _spec(self, execution: Execution) -> dict[str, Any]:
        prepared = execution.prepared
        file = prepared.definition.file
        return {
            "name": file.name,
            "description": file.description,
            "instructions": file.instructions,
            "role": file.role,
            "goal": file.goal,
            "backstory": file.backstory,
            "model": prepared.upstream.model,
            "settings": dict(prepared.settings),
            "tools": [
                {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
                for tool in execution.tools.values()
            ],
            "output": file.output,
            # The journal refuses the first call too many, on every framework alike; its own limit comes after.
            "max_steps": file.limits.steps + 1 if file.limits.steps else None,
        }

    async def _start(self, execution: Execution, agent_id: str) -> dict[str, Any]:
        run, prepared = execution.run, execution.prepared
        workspace = prepared.project.state_dir / "workspaces" / run.run_id
        await asyncio.to_thread(workspace.mkdir, parents=True, exist_ok=True)
        messages: list[JsonObject] = []
        if run.thread is not None:
            kept = await self._store.list_messages(run.project, run.thread, limit=10_000)
            messages = [message.message for message in kept]
        return {
            "run_id": run.run_id,
            "agent_id": agent_id,
            "token": execution.token,
            "workspace": str(workspace),
            "input": run.input,
            "messages": messages,
            "stream": execution.stream,
            "model": prepared.upstream.model,
        }

    # ---- the end

    async def _stop(self, execution: Execution, work: "asyncio.Task[Answer]") -> None:
        """Have the framework leave the run; give its worker up if it does not."""
        worker = self._worker(execution)
        if worker is not None and execution.token:
            worker.notify(Method.RUN_CANCEL, {"run_id": execution.run.run_id})
            await self._gateway.revoke(execution.token)
            await asyncio.wait([work], timeout=_CANCEL_GRACE_S)
        if not work.done() and worker is not None and execution.token:
            self._staff.retire(worker)
            if self._runs_of(worker) <= 1:
                await worker.kill("did not leave a cancelled run")
        if not work.done():
            work.cancel()
            await asyncio.wait([work])

    async def _abandon_tools(self, execution: Execution) -> None:
        """Let go of tools that are still running: what they return is no part of the run any more."""
        execution.doomed.set()
        if execution.tool_tasks:
            await asyncio.wait(set(execution.tool_tasks), timeout=_CANCEL_GRACE_S)

    def _worker(self, execution: Execution) -> Worker | None:
        live = (worker for worker, _ in self._staff.workers())
        return next((worker for worker in live if worker.id == execution.worker_id), None)

    def _runs_of(self, worker: Worker) -> int:
        return next((runs for each, runs in self._staff.workers() if each is worker), 0)

    async def _conclude(self, execution: Execution, work: "asyncio.Task[Answer]") -> None:
        status, error = _outcome(execution, work)
        answer = work.result() if status == "succeeded" else None
        finished = self._clock()
        metrics: JsonObject = {"steps": execution.tally.model_calls}
        if answer is not None:
            metrics.update(answer.metrics)
        metrics["wall_ms"] = round((time.monotonic() - execution.started) * 1000, 3)
        usage = execution.tally.usage()
        changes: RunChanges = {
            "status": status,
            "finished_at": finished,
            "usage": usage,
            "metrics": metrics,
            "options": {**execution.run.options, "warnings": execution.warnings},
        }
        data: JsonObject = {"status": status, "usage": usage, "metrics": metrics}
        if error is not None:
            changes["error"] = data["error"] = error.to_dict()
        messages: list[JsonObject] = []
        if answer is not None:
            changes["output"] = data["output"] = answer.output
            if execution.run.thread is not None:
                messages = _thread_messages(execution, answer)
        await asyncio.gather(*execution.writes, execution.feed.finish(changes, "run.finished", data, messages))
        execution.ended = msgspec.structs.replace(execution.run, **changes)


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _outcome(execution: Execution, work: "asyncio.Task[Answer]") -> tuple[RunStatus, ErrorInfo | None]:
    exception = None if work.cancelled() else work.exception()
    failure = execution.failure
    if failure is not None:
        return "failed", failure if isinstance(failure, ErrorInfo) else failure.info()
    if execution.cancel_requested.is_set() or work.cancelled():
        return "cancelled", None
    if exception is None:
        return "succeeded", None
    if not isinstance(exception, AgentForgeError | RpcError):
        _log.error("run %s failed by a defect", execution.run.run_id, exc_info=exception)
    return "failed", error_of(exception, execution)


def _thread_messages(execution: Execution, answer: Answer) -> list[JsonObject]:
    text = execution.run.input if isinstance(execution.run.input, str) else str(execution.run.input)
    added = answer.neutral_messages() or [{"role": "assistant", "content": str(answer.output)}]
    return [{"role": "user", "content": text}, *added]


def _tool(declared: Any) -> Tool:
    return Tool(
        file=declared.file,
        function=declared.function,
        idempotent=declared.idempotent,
        approval=declared.approval,
        timeout_s=declared.timeout_s,
        on_error=declared.on_error,
    )


class _BuildLog:
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
