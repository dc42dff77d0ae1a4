"""One run from its start to its end: environments, worker, attempt, result."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from agentforge.engine.answers import Answer, read_answer
from agentforge.engine.builds import BuildLog, Builds
from agentforge.engine.execution import Execution
from agentforge.engine.failures import error_of
from agentforge.engine.fencing import Fencing
from agentforge.engine.interrupts import Interrupt
from agentforge.engine.limiting import LimitHitInCompany, blaming, guarded
from agentforge.engine.output import checked_output
from agentforge.engine.portable_spec import portable_spec
from agentforge.engine.provision import Provision
from agentforge.engine.record import read_record
from agentforge.engine.staff import Staff
from agentforge.engine.toolboxes import Toolboxes
from agentforge.engine.versions import AgentVersions
from agentforge.environments import Environment
from agentforge.errors import AgentForgeError, ErrorInfo
from agentforge.errors.environments import EnvironmentUnknown
from agentforge.errors.runs import CrashLoop, RunTimedOut
from agentforge.errors.sandbox import LimitExceeded
from agentforge.errors.workers import WorkerDied, WorkerSilent, WorkerStartFailed
from agentforge.gateway import Gateway, Grant, ModelResponse
from agentforge.store import Attempt, AttemptStatus, Effect, JsonObject, RunChanges, RunStatus, Store
from agentforge.workers import Worker, WorkerSpec
from agentforge_worker.wire import Method, RpcError

__all__ = ["Runner"]

_BACKOFF_S = (0.0, 0.2, 1.0, 3.0)
"""How long to wait before the next attempt, by how often a worker ended without one more effect."""
_ALONE_AFTER = 2
"""So many crashes, and the run gets a worker of its own: it may be the one that ends the worker of all others."""
_CANCEL_GRACE_S = 1.5
"""How long a framework may take to leave a cancelled run before its worker is given up."""
_log = logging.getLogger(__name__)


class Runner:
    """Executes runs with the parts that the engine made."""

    def __init__(
        self,
        store: Store,
        provision: Provision,
        builds: Builds,
        versions: AgentVersions,
        gateway: Gateway,
        staff: Staff,
        fencing: Fencing,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._fencing = fencing
        self._toolboxes = Toolboxes(staff, versions, fencing)
        self._provision = provision
        self._builds = builds
        self._versions = versions
        self._gateway = gateway
        self._staff = staff
        self._clock = clock

    async def execute(self, execution: Execution) -> None:
        """Run until it ends, waits, or is handed over, and record that. Raises only what makes recording impossible."""
        work = asyncio.create_task(self._work(execution))
        try:
            ends: list[asyncio.Future[Any]] = [work, execution.must_stop]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await self._stop(execution, work)
            if execution.ends:
                await self._abandon_tools(execution)
                await self._conclude(execution, work)
            else:
                if not work.cancelled():
                    work.exception()  # how the framework took it that its run was left
                await self._park(execution)
        finally:
            self._staff.dismiss(execution.run.run_id)
            if execution.ticket is not None:
                execution.ticket.leave()

    # ---- the work

    async def _work(self, execution: Execution) -> Answer:
        if execution.ticket is not None:
            await execution.ticket.wait()
        crashes, alone, looked_again = 0, False, False
        while True:
            before = execution.position
            try:
                return await self._try(execution, alone=alone or crashes >= _ALONE_AFTER)
            except EnvironmentUnknown:
                if looked_again:
                    raise
                looked_again = True  # it was removed after we had found it: it is built anew
                continue
            except LimitHitInCompany as hit:
                if self._staff.closed:
                    raise
                alone = True
                execution.feed.emit("attempt.lost", {"attempt": execution.attempt.number, "reason": hit.message})
                continue
            except LimitExceeded:
                raise  # its own doing: it would do so again
            except (WorkerDied, WorkerSilent, WorkerStartFailed) as death:
                if self._staff.closed:
                    raise
                crashes = crashes + 1 if execution.position == before else 1
                if crashes >= execution.prepared.project.config.durability.max_attempts:
                    raise _crash_loop(death, crashes) from death
                execution.feed.emit("attempt.lost", {"attempt": execution.attempt.number, "reason": death.message})
            await asyncio.sleep(_BACKOFF_S[min(crashes, len(_BACKOFF_S)) - 1])

    async def _try(self, execution: Execution, *, alone: bool) -> Answer:
        """Make one attempt, once all that it needs is there; `alone` in a worker that no other run loses with it."""
        environment = await self._provide(execution)
        alone = alone or execution.prepared.level == "strict"
        spec = await self._agent_spec(execution, environment, alone=execution.run.run_id if alone else "")
        async with self._staff.lease(spec, execution.run.run_id) as worker:
            if alone:
                self._staff.retire(worker)  # after this one run
            return await self._attempt(execution, worker, environment)

    async def _agent_spec(self, execution: Execution, environment: Environment, *, alone: str) -> WorkerSpec:
        """Return what the run's worker is made of; `alone` is the run if it is to be the worker's only one."""
        prepared = execution.prepared
        version, file = prepared.version, prepared.definition.file
        framework = prepared.release.framework.name
        level, project, permitted = prepared.level, prepared.project, prepared.permitted
        self._fencing.workspace(level, version.id, execution.run.run_id)
        fence, user = self._fencing.agent(level, project, file, framework, version.id, permitted, alone=alone)
        if prepared.definition.is_native:
            fence = replace(fence, reads=(*fence.reads, await self._versions.folder(version)))
        adapter = self._builds.adapters.code(prepared.release, str(version.spec["adapter"]))
        native = prepared.definition.is_native
        variables = {**prepared.release.traits.variables, **prepared.tuning.variables}
        spec = self._staff.agent_spec(
            environment, prepared.release, adapter, version.id, native, fence, user, variables=variables
        )
        if native:  # its tools run in there with it
            permitted.require_unmoved()
            variables = {**spec.variables, **permitted.variables()}
            spec = replace(spec, variables=variables, secrets=tuple(permitted.secrets))
        return replace(spec, alone=alone) if alone else spec

    async def _provide(self, execution: Execution) -> Environment:
        """Build what is missing and describe the tools."""
        prepared = execution.prepared
        tell = BuildLog(execution)
        environment = await self._builds.ensure(prepared.provisioned.request, prepared.release, tell)
        if prepared.definition.tools:
            request = await self._provision.tools(prepared.project, tell)
            tool_environment = await self._builds.ensure(request, None, tell)
            await self._toolboxes.equip(execution, tool_environment)
        return environment

    async def _attempt(self, execution: Execution, worker: Worker, environment: Environment) -> Answer:
        record = execution.record
        if not execution.fresh:
            await execution.feed.flush()
            record = await read_record(self._store, execution.run.run_id)
        attempt = execution.begin(record)
        attempt.worker_id = worker.id
        execution.allowance.limits = worker.spec.fence.limits
        number, started = attempt.number, self._clock()
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
                {
                    "attempt": number,
                    "worker": worker.id,
                    "pid": worker.pid,
                    "environment": environment.id,
                    "sandbox": worker.spec.fence.level,
                    "limits": worker.limits,
                    "recorded": attempt.replay.recorded,
                },
            )
            await self._permit(execution)
            with blaming(self._staff, worker, execution.run.run_id):
                answer = await self._in_worker(execution, worker)
            status = "succeeded"
            return answer
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        except (WorkerDied, WorkerSilent) as death:
            status, error = "lost", death.info().to_dict()
            raise
        except (AgentForgeError, RpcError) as failure:
            error = error_of(failure, execution).to_dict()
            raise
        finally:
            if limit is not None:
                limit.cancel()
            if not execution.ends:  # how the framework took it that the run was left says nothing of the run
                status, error = "waiting" if execution.interrupts else "lost", None
            execution.spent_s += self._clock() - started
            # Not awaited here: it is committed together with the end of the run, in the order of the calls.
            execution.writes.append(
                asyncio.ensure_future(
                    self._store.finish_attempt(
                        run_id, number, epoch, status=status, finished_at=self._clock(), error=error
                    )
                )
            )

    async def _permit(self, execution: Execution) -> None:
        """Have a human allow what may repeat tools that the journal knows nothing of: a native agent's own."""
        if _may_repeat_tools(execution) and not execution.record.recovery_allowed:
            agent, name = execution.prepared.definition.name, execution.prepared.release.framework.title
            message = f"`{agent}` was interrupted, and tools of its own may run once more: {name} has no hook for them"
            await execution.interrupt(Interrupt("recovery", message), self._clock())

    async def _in_worker(self, execution: Execution, worker: Worker) -> Answer:
        prepared, run, attempt = execution.prepared, execution.run, execution.attempt
        agent_id = await self._open(execution, worker)
        upstream = prepared.upstream
        grant = Grant(run.run_id, attempt.number, worker.id, {upstream.alias: upstream})
        attempt.token = self._gateway.grant(grant, worker.native_token or None)
        try:
            start = await self._start(execution, agent_id)
            if execution.leaving:
                raise asyncio.CancelledError  # asked for before the worker knew of the run
            with guarded(self._staff.watch, Path(start["workspace"]), execution, worker):
                said = await worker.call(Method.RUN_START, start)
            execution.allowance.take_result(said)
            answer = read_answer(said)
        finally:
            attempt.left = True
            attempt.over.set()
            await self._gateway.revoke(attempt.token)
        answer.output = await checked_output(answer.output, prepared.definition.file.output)
        return answer

    def _limit_time(self, execution: Execution) -> asyncio.TimerHandle | None:
        """Start the clock of `limits.time_s`: waiting for a build or a worker does not count."""
        limit = execution.prepared.definition.file.limits.time_s
        if limit is None:
            return None
        error = RunTimedOut(f"the run took longer than its limit of {limit:g} s")
        return asyncio.get_running_loop().call_later(max(limit - execution.spent_s, 0.0), execution.fail, error)

    async def _open(self, execution: Execution, worker: Worker) -> str:
        """Have the worker build the agent unless it has; returns the id by which the worker knows it."""
        prepared = execution.prepared
        agent_id = f"{prepared.version.id}:{prepared.upstream.model}:{sorted(prepared.settings.items())}"
        if prepared.tuning.settings:
            agent_id += f":{sorted(prepared.tuning.settings.items())}"
        if agent_id not in worker.opened:
            params: dict[str, Any] = {"agent_id": agent_id}
            native = prepared.definition.file.native
            if native is None:
                params["spec"] = portable_spec(prepared, execution.tools.values())
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

    async def _start(self, execution: Execution, agent_id: str) -> dict[str, Any]:
        run, prepared = execution.run, execution.prepared
        workspace = self._fencing.workspace(prepared.level, prepared.version.id, run.run_id)
        messages = await self._history(execution)
        return {
            "run_id": run.run_id,
            "agent_id": agent_id,
            "attempt": execution.attempt.number,
            "token": execution.attempt.token,
            "workspace": str(workspace),
            "input": run.input,
            "messages": messages,
            "continues": bool(run.options.get("continues")),
            "stream": execution.stream,
            "model": prepared.upstream.model,
        }

    async def _history(self, execution: Execution) -> list[JsonObject]:
        """Return the conversation so far: in a later attempt as it was in the first, whatever was said since."""
        run = execution.run
        if run.options.get("messages") is not None:
            return list(run.options["messages"])
        if run.thread is None:
            return []
        kept = await self._store.list_messages(run.project, run.thread, limit=None)
        if "thread_seq" not in run.options:
            options = {**run.options, "thread_seq": kept[-1].seq if kept else 0}
            await self._store.update_run(run.run_id, run.lease_epoch, options=options)
            execution.run = msgspec.structs.replace(run, options=options)
        return [message.message for message in kept if message.seq <= execution.run.options["thread_seq"]]

    # ---- the end

    async def _stop(self, execution: Execution, work: "asyncio.Task[Answer]") -> None:
        """Have the framework leave the run; give its worker up if it does not."""
        if not execution.ends:
            await self._finish_tools(execution)
        worker, attempt = self._worker(execution), execution.attempt
        attempt.over.set()
        if worker is not None and attempt.token:
            worker.notify(Method.RUN_CANCEL, {"run_id": execution.run.run_id, "attempt": attempt.number})
            await self._gateway.revoke(attempt.token)
            await asyncio.wait([work], timeout=_CANCEL_GRACE_S)
        if not work.done() and worker is not None and attempt.token:
            self._staff.retire(worker)
            if self._runs_of(worker) <= 1:
                await worker.kill("did not leave a cancelled run")
        if not work.done():
            work.cancel()
            await asyncio.wait([work])

    async def _finish_tools(self, execution: Execution) -> None:
        """Let the tools that a run has called end before it is left: what they do is done, and would be lost."""
        running = {call for call in execution.calls.values() if not call.done()}
        ends = asyncio.ensure_future(_first(execution.cancel_requested, execution.doomed, execution.handed_over))
        while running and not ends.done():
            done, _ = await asyncio.wait({*running, ends}, return_when=asyncio.FIRST_COMPLETED)
            running -= done
        ends.cancel()

    async def _abandon_tools(self, execution: Execution) -> None:
        """Let go of tools that are still running: what they return is no part of the run any more."""
        execution.doomed.set()
        running = {call for call in execution.calls.values() if not call.done()}
        if running:
            await asyncio.wait(running, timeout=_CANCEL_GRACE_S)

    async def _park(self, execution: Execution) -> None:
        """Leave the run for now: it waits for answers, or for the next host."""
        if execution.handed_over.is_set():
            await asyncio.gather(*execution.writes, execution.feed.flush())
            return
        interrupts = [each.to_json() for each in execution.interrupts]
        changes: RunChanges = {
            "status": "waiting",
            "usage": execution.tally.usage(),
            "metrics": _metrics(execution),
            "options": {**execution.run.options, "warnings": execution.warnings, "interrupts": interrupts},
        }
        events = [("interrupt.raised", each) for each in interrupts]
        await asyncio.gather(*execution.writes, execution.feed.finish(changes, events))
        execution.ended = msgspec.structs.replace(execution.run, **changes)

    def _worker(self, execution: Execution) -> Worker | None:
        live = (worker for worker, _ in self._staff.workers())
        return next((worker for worker in live if worker.id == execution.attempt.worker_id), None)

    def _runs_of(self, worker: Worker) -> int:
        return next((runs for each, runs in self._staff.workers() if each is worker), 0)

    async def _conclude(self, execution: Execution, work: "asyncio.Task[Answer]") -> None:
        status, error = _outcome(execution, work)
        answer = work.result() if status == "succeeded" else None
        finished = self._clock()
        metrics = {**(answer.metrics if answer is not None else {}), **_metrics(execution)}
        usage = execution.tally.usage()
        changes: RunChanges = {
            "status": status,
            "finished_at": finished,
            "usage": usage,
            "metrics": metrics,
            "options": {**execution.run.options, "warnings": execution.warnings, "interrupts": []},
        }
        data: JsonObject = {"status": status, "usage": usage, "metrics": metrics}
        if error is not None:
            changes["error"] = data["error"] = error.to_dict()
        messages: list[JsonObject] = []
        if answer is not None:
            changes["error"] = None
            changes["output"] = data["output"] = answer.output
            if execution.run.thread is not None:
                messages = _thread_messages(execution, answer)
        await asyncio.gather(*execution.writes, execution.feed.finish(changes, [("run.finished", data)], messages))
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


def _metrics(execution: Execution) -> JsonObject:
    """Return what the host itself measures of a run."""
    return {
        "steps": execution.tally.model_calls,
        "attempts": execution.attempt.number,
        "replayed_effects": execution.attempt.replay.given,
        "wall_ms": round((time.monotonic() - execution.started) * 1000, 3),
    }


def _thread_messages(execution: Execution, answer: Answer) -> list[JsonObject]:
    text = execution.run.input if isinstance(execution.run.input, str) else str(execution.run.input)
    added = answer.neutral_messages() or [{"role": "assistant", "content": str(answer.output)}]
    return [{"role": "user", "content": text}, *added]


def _crash_loop(death: AgentForgeError, crashes: int) -> CrashLoop:
    return CrashLoop(f"the run's worker ended {crashes} times in a row without one more effect; {death.message}")


def _may_repeat_tools(execution: Execution) -> bool:
    """Whether a native agent may have called tools of its own that no journal has."""
    native = execution.prepared.definition.file.native
    if native is None or native.tools_idempotent or execution.offline:
        return False
    if execution.prepared.release.traits.capability("tool-replay").level == "full":
        return False
    asked = [effect for effect in execution.record.effects if effect.kind == "model"]
    # Without tools in its requests a model may still be asked for them in words.
    return any(b'"tools"' not in effect.request or _called(effect) - execution.record.tools for effect in asked)


def _called(effect: Effect) -> set[str]:
    """Return the names of the tools that a model asked for."""
    choices = ModelResponse.from_record(effect.response).data.get("choices") or ()
    calls = [call for choice in choices for call in (choice.get("message") or {}).get("tool_calls") or ()]
    return {str((call.get("function") or {}).get("name")) for call in calls}
