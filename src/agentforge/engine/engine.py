"""The engine: takes runs, executes them, tells of them. One per host, on one event loop."""

import asyncio
import itertools
import logging
import os
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from agentforge.config import (
    PROJECT_FILE,
    AgentDefinition,
    Project,
    expand,
    load_agent,
    load_agent_value,
    load_project,
    resolve_model,
)
from agentforge.engine.adapters import AdapterStore
from agentforge.engine.events import WorkerReports
from agentforge.engine.execution import Execution, Prepared
from agentforge.engine.feed import Feed
from agentforge.engine.journal import Journal
from agentforge.engine.provision import Progress, Provision
from agentforge.engine.results import TOOL_EVENTS, result_json, tool_calls_of
from agentforge.engine.runner import Runner
from agentforge.engine.staff import Staff
from agentforge.engine.toolcalls import ToolCalls
from agentforge.engine.versions import AgentVersions
from agentforge.environments import Environment, Environments, data_home, storage_errors
from agentforge.errors import AgentForgeError, InternalError
from agentforge.errors.runs import AutoUnavailable, HostStopped, RunUnknown, ThreadInvalid
from agentforge.errors.store import LeaseLost, RunNotFound
from agentforge.frameworks import Catalogue
from agentforge.gateway import EmbeddedModel, Gateway, Secret, Upstream
from agentforge.store import Event, Lease, ProjectId, Run, RunChanges, RunId, Store, open_store
from agentforge.workers import Handlers, PoolLimits, WorkerTimeouts, worker_zip

__all__ = ["Engine", "Submission"]

_log = logging.getLogger(__name__)
_RESULTS_KEPT = 256


@dataclass(frozen=True, slots=True)
class Submission:
    """A run as a client asks for it."""

    agent: str | Mapping[str, Any]
    """Path of an agent file or folder, or an agent as a value."""
    input: Any
    base_dir: Path
    """What relative paths start from: the client's folder."""
    on: str | None = None
    model: str | None = None
    thread: str | None = None
    stream: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    principal: str = "local"
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the client that the configuration refers to; kept in memory only."""
    submit_key: str | None = None


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
    ) -> None:
        self.root = root
        self.project = load_project(root, environ)
        self._environ = environ
        self._clock = clock
        self._embedded = embedded
        self._home = home = data_home(environ)
        self.environments = Environments(home, environ=environ)
        catalogue = Catalogue.discover(catalogue_folders, self.environments.interpreters.exists)
        self.provision = Provision(root, catalogue, self.environments, AdapterStore(home / "adapters"))
        state = self.project.state_dir
        self._store: Store = open_store(state / "state.db", self.project.config.durability.level)
        self._versions = AgentVersions(self._store, state / "versions", clock)
        self._executions: dict[str, Execution] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._numbers = itertools.count()
        self._results: OrderedDict[str, dict[str, Any]] = OrderedDict()
        """Of runs that ended lately: most are asked for right then."""
        self._closing = False
        self.last_active = time.monotonic()
        self._loaded: tuple[object, Project] | None = None
        self._lease: Lease

    @property
    def catalogue(self) -> Catalogue:
        """The frameworks that this host knows."""
        return self.provision.catalogue

    @property
    def active(self) -> int:
        """Runs under way."""
        return len(self._executions)

    async def __aenter__(self) -> "Engine":
        state = self.project.state_dir
        _make_state_folder(state)
        with storage_errors(self._home):
            pyz = worker_zip(self._home / "workers")
        await self._store.open()
        self._lease = await self._store.acquire_lease(ProjectId(str(self.root)), f"{os.uname().nodename}:{os.getpid()}")
        await self._bury_the_dead()
        journal = Journal(self._executions.get, self._clock)
        calls = ToolCalls(self._executions.get, self._clock)
        reports = WorkerReports(self._executions.get)
        config = self.project.config.workers
        self.gateway = Gateway(journal, embedded=self._embedded)
        self.staff = Staff(
            self.gateway,
            self.environments,
            Handlers(calls.serve, reports.event, reports.log, reports.warn),
            folder=_emptied(state / "workers"),
            pyz=pyz,
            limits=PoolLimits(
                workers=config.max_workers,
                workers_per_key=min(config.max_workers, max(2, os.cpu_count() or 2)),
                idle_s=config.idle_s,
            ),
            timeouts=WorkerTimeouts(start_s=config.start_timeout_s, terminate_s=config.terminate_grace_s),
        )
        self._runner = Runner(self._store, self.provision, self._versions, self.gateway, self.staff, self._clock)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.end_runs()
        await self.provision.close()
        await self.staff.close()
        await self.gateway.close()
        await self._store.close()

    async def end_runs(self) -> None:
        """End the runs under way as failed, because the host stops."""
        self._closing = True
        for execution in list(self._executions.values()):
            execution.fail(HostStopped("the host stopped while the run was under way"))
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # ---- runs

    async def submit(self, submission: Submission) -> Run:
        """Take a run and start it. Raises what is wrong with its agent, framework, model or project."""
        if self._closing:
            raise HostStopped("the host is stopping")
        prepared = await self._prepare(submission)
        now = self._clock()
        run = Run(
            run_id=RunId(self._new_id(now)),
            project=self._lease.project,
            principal=submission.principal,
            labels=dict(submission.labels),
            agent_name=prepared.definition.name,
            agent_version=prepared.version.id,
            framework=prepared.release.framework.name,
            release=prepared.release.version,
            model=prepared.upstream.alias,
            thread=_checked_thread(submission.thread),
            input=submission.input,
            options={"stream": submission.stream, "on": prepared.reference},
            lease_epoch=self._lease.epoch,
            submit_key=submission.submit_key,
            created_at=now,
            sandbox="none",
        )
        kept = await self._store.create_run(run)
        if kept.run_id == run.run_id:
            self._start(kept, prepared, submission.stream)
        return kept

    async def result(self, run_id: str, wait_s: float = 0.0) -> dict[str, Any]:
        """Return a run's result object, waiting up to `wait_s` for its end. Raises RunUnknown."""
        task, execution = self._tasks.get(run_id), self._executions.get(run_id)
        if task is not None and execution is not None:
            # Once the last event is out the run is all but over: whoever saw it gets the result.
            await asyncio.wait([task], timeout=None if execution.feed.finished else wait_s)
        execution = self._executions.get(run_id)
        if execution is not None:
            return result_json(execution.run, execution.tally.tool_calls)
        if run_id in self._results:
            return self._results[run_id]
        run = await self.get(run_id)
        events = await self._store.list_events(run.run_id, limit=100_000, kinds=TOOL_EVENTS)
        return result_json(run, tool_calls_of(events))

    async def get(self, run_id: str) -> Run:
        """Return a run. Raises RunUnknown."""
        try:
            return await self._store.get_run(RunId(run_id))
        except RunNotFound:
            raise RunUnknown(f"there is no run `{run_id}` in this project") from None

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
        return await self._store.list_runs(
            self._lease.project,
            status=status,
            agent=agent,
            framework=framework,
            labels=labels,
            before=before,
            limit=limit,
        )

    async def events(self, run_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Yield a run's events above `after`, those to come too, until its last one. Raises RunUnknown."""
        execution = self._executions.get(run_id)
        if execution is not None:
            async for event in execution.feed.watch(after):
                yield event
            return
        await self.get(run_id)
        while page := await self._store.list_events(RunId(run_id), after):
            for event in page:
                after = event.seq
                yield event

    async def recorded_events(self, run_id: str, after: int = 0, limit: int = 10_000) -> list[Event]:
        """Return what is recorded of a run's events above `after`, without waiting for more."""
        return await self._store.list_events(RunId(run_id), after, limit)

    async def cancel(self, run_id: str) -> Run:
        """Ask for a run's end and wait for it; a finished run stays as it is. Raises RunUnknown."""
        execution, task = self._executions.get(run_id), self._tasks.get(run_id)
        if execution is not None and task is not None:
            execution.cancel_requested.set()
            await asyncio.wait([task])
        return await self.get(run_id)

    # ---- environments

    async def ensure(self, submission: Submission | None, reference: str, progress: Progress) -> Environment:
        """Build what a reference (or an agent on it) needs, telling of the progress."""
        requirements: tuple[str, ...] = ()
        project = self.project
        tools = False
        if submission is not None:
            project = self._project_of(submission.variables)
            definition = await asyncio.to_thread(_definition, submission)
            requirements = tuple(definition.file.requirements)
            reference = self._reference(definition, submission.on)
            tools = bool(definition.tools)
        provisioned = await self.provision.framework(reference, requirements, progress)
        environment = await self.provision.ensure(provisioned.request, provisioned.release, progress)
        if tools:
            await self.provision.ensure(await self.provision.tools(project, progress), None, progress)
        return environment

    # ---- inside

    async def _prepare(self, submission: Submission) -> Prepared:
        project = self._project_of(submission.variables)
        definition = await asyncio.to_thread(_definition, submission)
        reference = self._reference(definition, submission.on)
        target = resolve_model(project, submission.model or definition.file.model, submission.variables)
        key = expand(target.api_key_ref, submission.variables) if target.api_key_ref else None
        upstream = Upstream(
            alias=target.alias,
            kind=target.kind,
            base_url=target.base_url or "",
            model=target.model,
            api_key=Secret(key) if key else None,
        )
        provisioned = await self.provision.framework(reference, definition.file.requirements)
        version = await self._versions.make(definition, provisioned)
        settings = {**target.settings, **definition.settings}
        return Prepared(reference, project, definition, provisioned, version, upstream, settings)

    def _reference(self, definition: AgentDefinition, on: str | None) -> str:
        reference = on or definition.frameworks[0]
        if reference == "auto":
            raise AutoUnavailable(f"the agent `{definition.name}` names no framework to run on")
        return reference

    def _project_of(self, variables: Mapping[str, str]) -> Project:
        """Return the project as this client's variables make it; the file is read again when it changed."""
        key = (_stamp(self.root / PROJECT_FILE), frozenset(variables.items()))
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = (key, load_project(self.root, variables))
        return self._loaded[1]

    def _start(self, run: Run, prepared: Prepared, stream: bool) -> None:
        feed = Feed(self._store, run.run_id, self._lease.epoch, self._clock)
        execution = Execution(run, prepared, feed, stream)
        if run.thread is not None:
            execution.turn = self._turns.setdefault(run.thread, asyncio.Lock())
        self._executions[run.run_id] = execution
        self._tasks[run.run_id] = asyncio.create_task(self._run(execution))

    async def _run(self, execution: Execution) -> None:
        run, prepared = execution.run, execution.prepared
        execution.feed.emit(
            "run.started",
            {
                "agent": run.agent_name,
                "agent_version": run.agent_version,
                "framework": run.framework,
                "release": run.release,
                "model": prepared.upstream.model,
                "alias": prepared.upstream.alias,
                "sandbox": run.sandbox,
                "thread": run.thread,
            },
        )
        if prepared.definition.file.limits.cost_usd is not None:
            execution.warn("`limits.cost_usd` is not enforced: the price of this model is not known")
        try:
            await self._runner.execute(execution)
        except LeaseLost:
            _log.warning("run %s now belongs to another host", run.run_id)
        except Exception as error:
            _log.exception("run %s could not be recorded", run.run_id)
            await self._record_failure(execution, error)
        finally:
            if execution.ended is not None:
                self._results[run.run_id] = result_json(execution.ended, execution.tally.tool_calls)
                if len(self._results) > _RESULTS_KEPT:
                    self._results.popitem(last=False)
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
            await self._store.finish_run(execution.run.run_id, execution.run.lease_epoch, changes)
        except Exception:
            _log.exception("run %s stays unfinished until the next host", execution.run.run_id)

    async def _bury_the_dead(self) -> None:
        """End runs that an earlier host left behind."""
        for run in await self._store.unfinished_runs(self._lease.project):
            claimed = await self._store.claim_run(run.run_id, self._lease.epoch)
            events = await self._store.list_events(run.run_id, limit=1_000_000)
            attempts = await self._store.list_attempts(run.run_id)
            for attempt in attempts:
                if attempt.status == "running":
                    await self._store.finish_attempt(
                        run.run_id, attempt.number, self._lease.epoch, status="lost", finished_at=self._clock()
                    )
            error = HostStopped("its host ended while the run was under way").info().to_dict()
            last = Event(
                run.run_id,
                events[-1].seq + 1 if events else 1,
                len(attempts),
                "run.finished",
                self._clock(),
                {"status": "failed", "error": error},
            )
            await self._store.finish_run(
                claimed.run_id,
                self._lease.epoch,
                {"status": "failed", "error": error, "finished_at": self._clock()},
                [last],
            )

    def _new_id(self, now: float) -> str:
        """Sortable by time within a host, unguessable between hosts."""
        return f"r{int(now * 1000):011x}{next(self._numbers) % 0xFFF:03x}{secrets.token_hex(4)}"


def _definition(submission: Submission) -> AgentDefinition:
    if isinstance(submission.agent, str):
        return load_agent(submission.base_dir / submission.agent)
    return load_agent_value(submission.agent, submission.base_dir)


def _checked_thread(thread: str | None) -> str | None:
    if thread is not None and not (0 < len(thread) <= 200 and thread.isprintable()):
        raise ThreadInvalid(f"`{thread[:50]}` can't be the name of a thread")
    return thread


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes whenever the file does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _emptied(folder: Path) -> Path:
    """Delete what the workers of a killed host left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _make_state_folder(state: Path) -> None:
    state.mkdir(parents=True, exist_ok=True)
    ignore = state / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
