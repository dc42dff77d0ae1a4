"""The engine: takes runs, executes them, tells of them. One per host, on one event loop."""

import asyncio
import itertools
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from agentforge.config import load_policies, load_project
from agentforge.engine.adapters import AdapterStore
from agentforge.engine.allowance import Backlog
from agentforge.engine.builds import Builds
from agentforge.engine.catalogue_files import CatalogueFiles, today
from agentforge.engine.cataloguing import Cataloguing
from agentforge.engine.children import Children
from agentforge.engine.connections import Connections
from agentforge.engine.divergence import Divergences
from agentforge.engine.effects import Effects
from agentforge.engine.events import WorkerReports
from agentforge.engine.execution import Execution, Prepared
from agentforge.engine.feed import Feed
from agentforge.engine.fencing import Fencing
from agentforge.engine.history import History, known_run
from agentforge.engine.journal import Journal
from agentforge.engine.lineage import Lineage
from agentforge.engine.portable import export_run, import_run
from agentforge.engine.preparing import Preparing, Submission, new_run, started
from agentforge.engine.provision import Provision
from agentforge.engine.queue import Queue, QueueLimits, Ticket, queue_keys
from agentforge.engine.rates import Rates, rate_limits
from agentforge.engine.record import Record
from agentforge.engine.recovery import Recovery
from agentforge.engine.responses import ResponseCache
from agentforge.engine.results import TOOL_EVENTS, result_json, tool_calls_of
from agentforge.engine.runner import Runner
from agentforge.engine.soundness import Soundness
from agentforge.engine.staff import Staff
from agentforge.engine.threads import Threads
from agentforge.engine.toolcalls import ToolCalls
from agentforge.engine.upkeep import Upkeep
from agentforge.engine.versions import AgentVersions
from agentforge.environments import Environments, data_home, storage_errors
from agentforge.errors import AgentForgeError, InternalError
from agentforge.errors.environments import DiskFull
from agentforge.errors.runs import HostStopped
from agentforge.errors.store import LeaseLost, StoreClosed
from agentforge.frameworks import Catalogue, LiveCatalogue
from agentforge.gateway import EmbeddedModel, Gateway, most_connections
from agentforge.sandbox import Watch
from agentforge.store import Event, Lease, ProjectId, Run, RunChanges, RunId, Store, open_store
from agentforge.workers import Handlers, PoolLimits, Worker, WorkersFolder, WorkerTimeouts, worker_zip, workers_gone
from agentforge_worker.wire import ErrorCode, RpcError

__all__ = ["Engine", "Submission"]

_log = logging.getLogger(__name__)
_RESULTS_KEPT = 256
_FAULTS = "AGENTFORGE_FAULTS"
"""`after-commit:MS` holds every answer back for so long after its effect's commit: for tests of crashes right there."""


class Engine:
    """All runs of one project on this host. `async with Engine(...)` opens and closes it."""

    def __init__(
        self,
        root: Path,
        *,
        embedded: EmbeddedModel | None = None,
        catalogue_folders: tuple[Path, ...] = (),
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.time,
        private: tuple[Path, ...] = (),
    ) -> None:
        """`private` are folders that tools never get, whatever agents permit them."""
        self.root = root
        self.project = load_project(root, environ)
        self._environ = environ
        self._clock = clock
        self._embedded = embedded
        self.home = home = data_home(environ)
        """The folder of built environments."""
        self._pause_s = _fault_pause_s(environ)
        self.environments = Environments(home, environ=environ)
        self.soundness = Soundness(self.environments)
        self.catalogue_files = CatalogueFiles(root, environ)
        catalogue = LiveCatalogue(
            lambda: [*catalogue_folders, *self.catalogue_files.folders()], self.environments.interpreters.exists
        )
        self.provision = Provision(root, catalogue, self.environments)
        level = self.project.config.sandbox.level
        self.builds = Builds(self.environments, AdapterStore(home / "adapters"), level)
        state = self.project.state_dir
        self.fencing = Fencing(state / "workspaces", load_policies(environ))
        self.store: Store = open_store(state / "state.db", self.project.config.durability.level)
        self.versions = AgentVersions(self.store, state / "versions", clock)
        private = (home, *private)
        self.preparing = Preparing(root, self.store, self.provision, self.versions, self.fencing, private, clock)
        self.cataloguing: Cataloguing
        self._executions: dict[str, Execution] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._numbers = itertools.count()
        self._results: OrderedDict[str, dict[str, Any]] = OrderedDict()
        """Of runs that ended lately: most are asked for right then."""
        self._closing = False
        self.last_active = time.monotonic()
        self.history = History(self.store)
        self.threads = Threads(self.store)
        self.recovery = Recovery(self, clock)
        self.lineage = Lineage(self, clock)
        self.lease: Lease
        self.lease_lost = asyncio.Event()
        """Set once a write was refused because another host has the project."""
        self._workers: WorkersFolder
        self._watch: Watch

    @property
    def catalogue(self) -> Catalogue:
        """The frameworks that this host knows."""
        return self.provision.catalogue

    @property
    def today(self) -> date:
        """The day that deprecations are looked at."""
        return today(self._clock())

    @property
    def active(self) -> int:
        """Runs under way, and those that wait for an answer with a time-out."""
        return len(self._executions) + self.recovery.expected

    @property
    def loaded(self) -> bool:
        """Whether runs wait in line, or as many workers are at work as the machine has processors."""
        busy = sum(1 for _, runs in self.staff.workers() if runs)
        return self._queue.waiting > 0 or busy >= max(2, os.cpu_count() or 1)

    @property
    def closing(self) -> bool:
        """Whether no run is taken any more."""
        return self._closing

    async def __aenter__(self) -> "Engine":
        state = self.project.state_dir
        _make_state_folder(state)
        with storage_errors(self.home):
            pyz = worker_zip(self.home / "workers")
        self._register()
        await self.store.open()
        try:
            holder = f"{os.uname().nodename}:{os.getpid()}"
            self.lease = await self.store.acquire_lease(await self._name(), holder)
            self._workers = await workers_gone(state / "workers", self.lease.epoch)
            self._watch = await Watch.of(state, self.lease.epoch)
        except BaseException:
            await self.store.close()
            raise
        self._wire(pyz)
        self._watch.begin()
        self._upkeep.begin()
        await self.recovery.begin()
        return self

    async def _name(self) -> ProjectId:
        """Return what its store calls the project: by its first folder, which may have been moved since."""
        known = {each.project: each.created_at for each in await self.store.list_projects()}
        name = ProjectId(str(self.root))
        return name if name in known or not known else max(known, key=lambda each: known[each])

    def _register(self) -> None:
        """Have this project's lock and runs count where environments are removed."""
        try:
            with storage_errors(self.home):
                self.environments.projects.register(self.root)
        except DiskFull as error:  # whoever comes to make room must get in
            _log.warning("the project can't be registered: %s", error.message)

    def _wire(self, pyz: Path) -> None:
        """Make the parts and give them to each other."""
        self.cataloguing = Cataloguing(
            self.root, self.lease.project, self.provision, self.catalogue_files, self.store, self._clock
        )
        divergences = Divergences(self._clock)
        self._queue = Queue(QueueLimits.of(self.project.config, most_connections()))
        self._responses = ResponseCache(self.store, self.lease.project, self._clock)
        rates = Rates(rate_limits(self.project.config))
        journal = Journal(self._executions.get, divergences, rates, self._responses, self._clock)
        calls = ToolCalls(self._asked_by, divergences, self._clock)
        effects = Effects(self._asked_by, divergences, Children(self).call, self._clock)
        self._backlog = Backlog()
        reports = WorkerReports(self._executions.get, self._backlog)
        config = self.project.config.workers
        self.gateway = Gateway(journal, embedded=self._embedded)
        self.staff = Staff(
            self.gateway,
            self.environments,
            Handlers(calls.serve, reports.event, reports.log, reports.warn, effects.handlers(), reports.forget),
            Connections(self._executions.get),
            folder=self._workers,
            watch=self._watch,
            pyz=pyz,
            limits=PoolLimits(
                workers=config.max_workers,
                workers_per_key=config.workers_per_key or min(config.max_workers, max(2, os.cpu_count() or 2)),
                runs_per_worker=config.runs_per_worker,
                idle_s=config.idle_s,
            ),
            timeouts=WorkerTimeouts(start_s=config.start_timeout_s, terminate_s=config.terminate_grace_s),
            soundness=self.soundness,
        )
        self._runner = Runner(
            self.store, self.provision, self.builds, self.versions, self.gateway, self.staff, self.fencing, self._clock
        )
        lease, days = self.lease, self.project.config.durability.retain_days
        self._upkeep = Upkeep(self.store, self._responses, lease.project, lease.epoch, days, self._clock)

    async def __aexit__(self, *exc: object) -> None:
        await self.hand_over()
        await self._upkeep.close()
        await self.provision.close()
        await self.builds.close()
        await self.staff.close()
        await self._watch.close()
        self._workers.close()
        await self.gateway.close()
        await self._responses.close()
        await self.store.close()

    async def hand_over(self, grace_s: float = 0.0) -> None:
        """Take no more runs, let those under way end within `grace_s`, and leave the rest to the next host."""
        self._closing = True
        await self.recovery.close()
        if self._tasks and grace_s:
            await asyncio.wait(self._tasks.values(), timeout=grace_s)
        for execution in list(self._executions.values()):
            execution.hand_over()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def renew_lease(self) -> None:
        """Note that this host is there. Raises LeaseLost if another one has the project."""
        await self.store.renew_lease(self.lease, self._clock())

    async def abandon(self) -> None:
        """Let go of the runs at once and record nothing: the next host goes on with them, or does already."""
        self._closing = True
        await self.store.close()  # whatever ends now may try to record that it was cut short
        await self.recovery.close()
        for task in self._tasks.values():
            task.cancel()
        await self.staff.kill()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # ---- runs

    async def submit(self, submission: Submission) -> Run:
        """Take a run and start it. Raises what is wrong with its agent, framework, model or project."""
        if self._closing:
            raise HostStopped("the host is stopping")
        self.recovery.learn(submission.variables)
        try:
            prepared = await self.preparing.submitted(submission)
            run = new_run(submission, prepared, self.new_id(), self.lease, self._clock())
            ticket = self._ticket(run, refusable=True)
        except AgentForgeError:
            if (known := await self._taken_before(submission)) is not None:
                return known  # whatever became of its agent, or of the queue, since
            raise
        try:
            kept = await self.store.create_run(run)
        except BaseException:
            ticket.leave()
            raise
        if kept.run_id == run.run_id:
            self.start(kept, prepared, ticket=ticket)
        else:
            ticket.leave()
        return kept

    def _ticket(self, run: Run, *, refusable: bool = False) -> Ticket:
        keys = queue_keys(run.framework, run.agent_name, run.model)
        priority, parent = run.options.get("priority", 0), run.options.get("parent")
        return self._queue.enter(run.run_id, keys, priority, parent, refusable=refusable, serial=run.thread)

    async def _taken_before(self, submission: Submission) -> Run | None:
        if submission.submit_key is None:
            return None
        return await self.store.find_submitted(self.lease.project, submission.submit_key)

    def start(
        self, run: Run, prepared: Prepared, record: Record | None = None, *, seq: int = 0, attempt: int = 0,
        offline: bool = False, ticket: Ticket | None = None,
    ) -> Execution:  # fmt: skip
        """Execute a run: a new one, or with its record one that goes on; `seq` and `attempt` are its last ones."""
        feed = Feed(
            self.store,
            run.run_id,
            self.lease.epoch,
            self._clock,
            seq=seq,
            attempt=attempt,
            pause_s=self._pause_s,
            backlog=self._backlog,
        )
        execution = Execution(run, prepared, feed, record or Record(), offline=offline)
        execution.ticket = ticket or self._ticket(run)
        if record is None:
            feed.emit("run.started", started(run, prepared))
            for warning in prepared.warnings:
                execution.warn(warning)
        self._executions[run.run_id] = execution
        self._tasks[run.run_id] = asyncio.create_task(self._run(execution))
        return execution

    async def result(self, run_id: str, wait_s: float = 0.0) -> dict[str, Any]:
        """Return a run's result object, waiting up to `wait_s` for its end. Raises RunUnknown."""
        task, execution = self._tasks.get(run_id), self._executions.get(run_id)
        if task is not None and execution is not None:
            # Once the last event is out the run is all but over: whoever saw it gets the result.
            await asyncio.wait([task], timeout=None if execution.feed.finished else wait_s)
        execution = self._executions.get(run_id)
        if execution is not None:
            return result_json(execution.run, execution.attempt.tool_calls)
        if run_id in self._results:
            return self._results[run_id]
        run = await self.get(run_id)
        events = await self.store.list_events(run.run_id, limit=None, kinds=TOOL_EVENTS)
        return result_json(run, tool_calls_of(events))

    async def get(self, run_id: str) -> Run:
        """Return a run. Raises RunUnknown."""
        return await known_run(self.store, run_id)

    async def runs(
        self,
        *,
        status: Any = None,
        agent: str | None = None,
        framework: str | None = None,
        labels: Mapping[str, str] | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> tuple[list[Run], str | None]:
        """Return a page of runs, newest first, and the cursor of the next one."""
        return await self.store.list_runs(
            self.lease.project,
            status=status,
            agent=agent,
            framework=framework,
            labels=labels,
            before=before,
            limit=limit,
        )

    async def events(self, run_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Yield a run's events above `after`, those to come too, until it ends or waits. Raises RunUnknown."""
        execution = self._executions.get(run_id)
        if execution is not None:
            async for event in execution.feed.watch(after):
                yield event
            return
        await self.get(run_id)
        while page := await self.store.list_events(RunId(run_id), after):
            for event in page:
                after = event.seq
                yield event

    async def recorded_events(self, run_id: str, after: int = 0, limit: int = 10_000) -> list[Event]:
        """Return what is recorded of a run's events above `after`, without waiting for more."""
        return await self.store.list_events(RunId(run_id), after, limit)

    async def cancel(self, run_id: str) -> Run:
        """Ask for a run's end and wait for it; a finished run stays as it is. Raises RunUnknown."""
        if run_id not in self._executions:
            await self.recovery.cancel(run_id)
        execution, task = self._executions.get(run_id), self._tasks.get(run_id)
        if execution is not None and task is not None:
            execution.cancel_requested.set()
            await asyncio.wait([task])
        return await self.get(run_id)

    async def resume(self, run_id: str, variables: Mapping[str, str]) -> Run:
        """Go on with a run that failed, was cancelled or rolled back, or was left. Raises NothingToResume."""
        return await self.recovery.resume(run_id, variables)

    async def resume_all(self, variables: Mapping[str, str]) -> list[Run]:
        """Go on with all runs that an earlier host left, and return them."""
        return await self.recovery.resume_all(variables)

    async def answer(
        self,
        run_id: str,
        decision: str,
        value: Any = None,
        interrupt: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Run:
        """Answer what a run waits for; it goes on after the last answer. Raises AnswerUnfit."""
        return await self.recovery.answer(run_id, decision, value, interrupt, variables or {})

    async def export_run(self, run_id: str) -> bytes:
        """Return a run as one portable file. Raises RunUnknown, RunUnderWay."""
        return await export_run(self.store, run_id)

    async def import_run(self, data: bytes) -> Run:
        """Keep the run of such a file in this project. Raises ExportInvalid, ExportTooNew."""
        run = await import_run(self.store, data, self.lease.project, self.lease.epoch)
        self.recovery.expect(run)
        return run

    # ---- what its parts ask

    def is_active(self, run_id: str) -> bool:
        """Whether this host executes the run just now."""
        return run_id in self._executions

    async def ended(self, run_id: str) -> None:
        """Wait until the run is not executed here any more."""
        task = self._tasks.get(run_id)
        if task is not None:
            await asyncio.wait([task])

    def forget_result(self, run_id: str) -> None:
        """Read the run's result anew the next time: it has changed."""
        self._results.pop(run_id, None)

    # ---- inside

    def _asked_by(self, worker: Worker, params: dict[str, Any]) -> Execution:
        """Return the run that a worker's request is for. Raises RpcError."""
        execution = self._executions.get(params["run_id"])
        if execution is None or execution.attempt.worker_id != worker.id:
            raise RpcError(ErrorCode.INVALID_PARAMS, "no such run in this worker")
        if not execution.attempt.goes_on_in(worker.id, params["attempt"]):
            raise RpcError(ErrorCode.CANCELLED, "this attempt is over")
        if execution.feed.finished or execution.cancel_requested.is_set() or execution.failure is not None:
            raise RpcError(ErrorCode.CANCELLED, "the run is ending")
        return execution

    async def _run(self, execution: Execution) -> None:
        run, prepared = execution.run, execution.prepared
        if prepared.definition.file.limits.cost_usd is not None:
            execution.warn("`limits.cost_usd` is not enforced: the price of this model is not known")
        try:
            await self._runner.execute(execution)
        except LeaseLost:
            _log.warning("run %s now belongs to another host", run.run_id)
            self.lease_lost.set()
        except StoreClosed:
            _log.warning("run %s is left to the next host", run.run_id)
        except Exception as error:
            _log.exception("run %s could not be recorded", run.run_id)
            await self._record_failure(execution, error)
        finally:
            if execution.ended is not None:
                self._results[run.run_id] = result_json(execution.ended, execution.attempt.tool_calls)
                if len(self._results) > _RESULTS_KEPT:
                    self._results.popitem(last=False)
                self.recovery.expect(execution.ended)
                if execution.ended.status == "waiting":
                    self.recovery.keep_secrets(run.run_id, prepared.permitted.secrets)
            execution.feed.close()
            self.last_active = time.monotonic()
            del self._executions[run.run_id]
            del self._tasks[run.run_id]

    async def _record_failure(self, execution: Execution, error: Exception) -> None:
        """Record the end of a run whose own end could not be: so little that it may be possible after all."""
        info = error.info() if isinstance(error, AgentForgeError) else InternalError(str(error)).info()
        changes: RunChanges = {"status": "failed", "error": info.to_dict(), "finished_at": self._clock()}
        execution.ended = msgspec.structs.replace(execution.run, **changes)
        try:
            await self.store.finish_run(execution.run.run_id, execution.run.lease_epoch, changes)
        except Exception:
            _log.exception("run %s stays unfinished until it is resumed", execution.run.run_id)

    def new_id(self) -> str:
        """Return a run's id: sortable by time within a host, unguessable between hosts."""
        return f"r{int(self._clock() * 1000):011x}{next(self._numbers) % 0xFFF:03x}{secrets.token_hex(4)}"


def _fault_pause_s(environ: Mapping[str, str]) -> float:
    point, _, milliseconds = environ.get(_FAULTS, "").partition(":")
    return float(milliseconds) / 1000 if point == "after-commit" and milliseconds else 0.0


def _make_state_folder(state: Path) -> None:
    state.mkdir(parents=True, exist_ok=True)
    ignore = state / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
