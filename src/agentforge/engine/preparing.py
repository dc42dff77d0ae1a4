"""What a run needs to know before it starts: from a submission, or again from what is recorded of a run."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from agentforge.config import (
    PROJECT_FILE,
    AgentDefinition,
    AgentFile,
    ModelTarget,
    Project,
    expand,
    load_agent,
    load_agent_value,
    load_project,
    resolve_model,
)
from agentforge.engine.catalogue_files import today
from agentforge.engine.execution import Prepared
from agentforge.engine.fencing import Fencing
from agentforge.engine.permissions import Permitted, only_described, permitted
from agentforge.engine.provision import Provision, Provisioned
from agentforge.engine.sharing import SharedWork
from agentforge.engine.tuning import Packages, Tuning, packages, tuning, unknown_frameworks
from agentforge.engine.versions import AgentVersions
from agentforge.errors.config import MissingVariableError
from agentforge.errors.runs import AutoUnavailable, NativeElsewhere, ThreadInvalid, VersionUnusable
from agentforge.frameworks import Reference, require_able, require_usable
from agentforge.gateway import Secret, Upstream
from agentforge.sandbox import Level
from agentforge.store import AgentVersion, AgentVersionId, JsonObject, Lease, Run, RunId, Store

__all__ = ["Preparing", "Submission", "definition_of", "new_run", "reference_of", "started"]

_KNOWN = 256
"""Agent versions that are kept at hand for runs that go on."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A run as a client asks for it."""

    agent: str | Mapping[str, Any]
    """Path of an agent file or folder, or an agent as a value."""
    input: Any
    base_dir: Path
    """What relative paths start from: the client's folder."""
    on: str | None = None
    latest: bool = False
    """Whether the newest release on the index is meant that the framework (or series) has an adapter for."""
    model: str | None = None
    thread: str | None = None
    stream: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    principal: str = "local"
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the client that the configuration refers to; kept in memory only."""
    submit_key: str | None = None
    priority: int = 0
    """Runs with a higher one leave the queue first."""
    cache: bool | None = None
    """Whether model answers may come from the response cache; None: as the agent or the model says."""
    on_divergence: str | None = None
    """`wait`, `continue` or `stop`; None: as the project says."""
    parent: str | None = None
    """The run whose child it is."""
    generation: int = 0
    """How many runs are above it."""


class _Pinned(NamedTuple):
    """What an agent version fixes."""

    version: AgentVersion
    definition: AgentDefinition
    provisioned: Provisioned


class Preparing:
    """Makes `Prepared` for the runs of one project."""

    def __init__(
        self,
        root: Path,
        store: Store,
        provision: Provision,
        versions: AgentVersions,
        fencing: Fencing,
        private: Sequence[Path] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`private` are folders that no tool gets."""
        self._root = root
        self._clock = clock
        self._private = tuple(private)
        self._fencing = fencing
        self._store = store
        self._provision = provision
        self._versions = versions
        self._loaded: tuple[object, Project] | None = None
        self._shared = SharedWork[Prepared]()
        self._known: dict[AgentVersionId, _Pinned] = {}

    async def submitted(self, submission: Submission) -> Prepared:
        """Return what a submission means. Raises what is wrong with its agent, framework, model or project.

        Equal ones that come while the files of one are looked at share what comes next.
        """
        if not isinstance(submission.agent, str):
            return await self._prepare(submission)
        variables = frozenset(submission.variables.items())
        key = (submission.agent, submission.base_dir, submission.on, submission.latest, submission.model, variables)
        return await self._shared.do(key, lambda: self._prepare(submission))

    async def _prepare(self, submission: Submission) -> Prepared:
        project = self.project(submission.variables)
        definition = await asyncio.to_thread(definition_of, submission)
        reference = reference_of(definition, submission.on)
        if submission.latest:
            reference = await self._provision.latest(reference)
        level, permitted = await self.permitted(project, definition, submission.variables)
        target = resolve_model(project, submission.model or definition.file.model, submission.variables)
        added = packages(project, definition, reference)
        warnings = self.usable(project, reference, added, definition)
        provisioned = await self._provision.framework(
            reference, added.lines, roles=added.roles, as_of_now=submission.latest
        )
        tuned = self._tuned(project, definition, provisioned)
        version = await self._versions.make(definition, provisioned)
        settings = {**target.settings, **definition.settings}
        upstream = _upstream(target, submission.variables)
        return Prepared(
            reference, project, definition, provisioned, version, upstream, level, settings, submission.variables,
            permitted, tuned, warnings,
        )  # fmt: skip

    def usable(
        self, project: Project, reference: str, added: Packages, definition: AgentDefinition | None = None
    ) -> tuple[str, ...]:
        """Return what to warn of when a reference is used in a project, for an agent.

        Raises ReleaseEnded, CapabilityAbsent, and AF20x.
        """
        release, catalogue = self._provision.meant(reference, added.lines), self._provision.catalogue
        if definition is not None:
            require_able(release, _needed(definition), catalogue.releases(release.framework.name))
        warnings = require_usable(release, project.config.catalogue.deprecated, today(self._clock()))
        return (*warnings, *unknown_frameworks(project.config, catalogue))

    def _tuned(self, project: Project, definition: AgentDefinition, provisioned: Provisioned) -> Tuning:
        return tuning(project, definition, provisioned.release, self._provision.catalogue.names())

    async def permitted(
        self, project: Project, definition: AgentDefinition, variables: Mapping[str, str]
    ) -> tuple[Level, Permitted]:
        """Return how strong the fence around an agent's runs is, and what their tools may do. Raises AF44x, AF61x."""
        level = await self._fencing.level(project, definition.file)
        return level, permitted(definition, project, level, variables, self._private)

    async def recorded(self, run: Run, variables: Mapping[str, str], *, offline: bool = False) -> Prepared:
        """Return what a run was started with, whatever was edited since; only endpoints and keys are looked up anew.

        `offline` runs ask no model, so none is looked up.

        Raises VersionUnusable, and MissingVariableError where the variables of whoever started it are needed.
        """
        pinned: JsonObject | None = run.options.get("model")
        if pinned is None:
            raise VersionUnusable(f"the run `{run.run_id}` was started by a release that did not record its model")
        project = self.project(variables)
        if offline:
            upstream = Upstream(run.model, pinned["kind"], "", pinned["model"])
        else:  # first: what most often is missing is the key
            upstream = self._found_again(pinned, project, variables)
        version, definition, provisioned = await self._pinned(run)
        if offline:
            level, granted = await self._fencing.level(project, definition.file), only_described(definition, variables)
        else:
            level, granted = await self.permitted(project, definition, variables)
        return Prepared(
            run.options["on"], project, definition, provisioned, version, upstream, level, pinned["settings"],
            variables, granted, Tuning.from_json(run.options.get("tuning") or {}),
        )  # fmt: skip

    async def _pinned(self, run: Run) -> "_Pinned":
        """Return what a run's agent version fixes; the same object for the next run of it."""
        if run.agent_version not in self._known:
            version = await self._store.get_agent_version(run.agent_version)
            try:
                file = AgentFile.model_validate(version.spec["agent"], strict=False)
            except ValidationError as error:
                raise VersionUnusable(f"the agent of the run can't be read any more: {error}") from None
            definition = AgentDefinition(file, await self._versions.folder(version))
            provisioned = self._provision.recorded(run.framework, run.release, await self._versions.lock(version))
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[run.agent_version] = _Pinned(version, definition, provisioned)
        return self._known[run.agent_version]

    async def moved(self, prepared: Prepared, on: str) -> Prepared:
        """Return the same agent on another framework. Raises as `submitted`."""
        on = reference_of(prepared.definition, on)
        added = packages(prepared.project, prepared.definition, on)
        warnings = self.usable(prepared.project, on, added, prepared.definition)
        provisioned = await self._provision.framework(on, added.lines, roles=added.roles)
        tuned = self._tuned(prepared.project, prepared.definition, provisioned)
        version = await self._versions.make(prepared.definition, provisioned)
        return replace(
            prepared, reference=on, provisioned=provisioned, version=version, tuning=tuned, warnings=warnings
        )

    async def edited(self, run: Run, submission: Submission) -> Prepared:
        """Return what an edited agent means in place of a run's own: on the same release, for an offline run."""
        recorded = await self.recorded(run, submission.variables, offline=True)
        definition = await asyncio.to_thread(definition_of, submission)
        version = await self._versions.make(definition, recorded.provisioned)
        level = await self._fencing.level(recorded.project, definition.file)
        settings = {**recorded.settings, **definition.settings}
        granted = only_described(definition, submission.variables)
        tuned = self._tuned(recorded.project, definition, recorded.provisioned)
        return replace(
            recorded, definition=definition, version=version, level=level, settings=settings, permitted=granted,
            tuning=tuned,
        )  # fmt: skip

    def _found_again(self, pinned: JsonObject, project: Project, variables: Mapping[str, str]) -> Upstream:
        target = resolve_model(project, pinned["name"], variables)
        if target.kind != pinned["kind"]:
            raise MissingVariableError(
                f"the model `{pinned['name']}` of the run is configured by the environment of who started it",
                hint="Set the same variables and type `agentforge runs resume --all`.",
            )
        return _upstream(target, variables, model=pinned["model"])

    def project(self, variables: Mapping[str, str]) -> Project:
        """Return the project as a client's variables make it; the file is read again when it changed."""
        key = (_stamp(self._root / PROJECT_FILE), frozenset(variables.items()))
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = (key, load_project(self._root, variables))
        return self._loaded[1]


def new_run(submission: Submission, prepared: Prepared, run_id: str, lease: Lease, now: float) -> Run:
    """Return a submission as the run that is kept. Raises ThreadInvalid."""
    upstream = prepared.upstream
    options: JsonObject = {
        "stream": submission.stream,
        "on": prepared.reference,
        # What is needed to find the model again, and nothing secret.
        "model": {
            "name": upstream.alias,
            "kind": upstream.kind,
            "model": upstream.model,
            "settings": dict(prepared.settings),
        },
    }
    if tuned := prepared.tuning.to_json():
        options["tuning"] = tuned
    told = {name: getattr(submission, name) for name in ("cache", "on_divergence", "parent")}
    told["priority"] = submission.priority or None
    told["generation"] = submission.generation or None
    return Run(
        run_id=RunId(run_id),
        project=lease.project,
        principal=submission.principal,
        labels=dict(submission.labels),
        agent_name=prepared.definition.name,
        agent_version=prepared.version.id,
        framework=prepared.release.framework.name,
        release=prepared.release.version,
        model=upstream.alias,
        thread=_checked_thread(submission.thread),
        input=submission.input,
        options=options | {name: value for name, value in told.items() if value is not None},
        lease_epoch=lease.epoch,
        submit_key=submission.submit_key,
        created_at=now,
        sandbox=prepared.level,
    )


def started(run: Run, prepared: Prepared) -> JsonObject:
    """Return the data of a run's first event."""
    return {
        "agent": run.agent_name,
        "agent_version": run.agent_version,
        "framework": run.framework,
        "release": run.release,
        "model": prepared.upstream.model,
        "alias": prepared.upstream.alias,
        "sandbox": run.sandbox,
        "thread": run.thread,
    }


def _checked_thread(thread: str | None) -> str | None:
    if thread is not None and not (0 < len(thread) <= 200 and thread.isprintable()):
        raise ThreadInvalid(f"`{thread[:50]}` can't be the name of a thread")
    return thread


def definition_of(submission: Submission) -> AgentDefinition:
    """Return the agent that a submission names."""
    if isinstance(submission.agent, str):
        return load_agent(submission.base_dir / submission.agent)
    return load_agent_value(submission.agent, submission.base_dir)


def reference_of(definition: AgentDefinition, on: str | None) -> str:
    """Return the framework that an agent runs on. Raises AutoUnavailable, NativeElsewhere, ReferenceInvalid."""
    reference = on or definition.frameworks[0]
    if reference == "auto":
        raise AutoUnavailable(f"the agent `{definition.name}` names no framework to run on")
    native = definition.file.native
    if native is not None and Reference.parse(reference).name != (own := Reference.parse(native.framework).name):
        raise NativeElsewhere(
            f"the agent `{definition.name}` is native: `{native.entrypoint}` is an object of `{own}`, "
            f"which `{reference}` can't run",
            hint=f"Leave `--on` out, or name a release of its own framework: `--on {own}==VERSION`.",
        )
    return reference


def _needed(definition: AgentDefinition) -> dict[str, str]:
    """Return the capabilities without which an agent can't run, with what says so."""
    needed = {}
    if definition.tools:
        needed["tools"] = f"The agent `{definition.name}` has tools"
    if definition.file.output is not None:
        needed["structured-output"] = f"The agent `{definition.name}` has an output schema"
    if definition.is_native:
        needed["native"] = f"The agent `{definition.name}` is native"
    return needed


def _upstream(target: ModelTarget, variables: Mapping[str, str], model: str | None = None) -> Upstream:
    key = expand(target.api_key_ref, variables) if target.api_key_ref else None
    return Upstream(
        alias=target.alias,
        kind=target.kind,
        base_url=target.base_url or "",
        model=model or target.model,
        api_key=Secret(key) if key else None,
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes whenever the file does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
