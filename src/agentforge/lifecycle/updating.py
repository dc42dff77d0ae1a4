"""Updates of a project's environments: a new generation beside the old, tried before it takes its place.

Who calls it: the API. The steps of one request: *resolve* what it may be updated to, *build* that environment beside
the present one (with the build's own check), *smoke* scenarios in it, play the project's recorded *runs* on it, and
*promote* it in `agentforge.lock`. Whatever fails, the present generation stays active, and runs under way are never
touched: they hold what they were started with.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from packaging.version import Version

from agentforge.engine import Engine
from agentforge.engine.catalogue_files import today
from agentforge.engine.provision import Provisioned
from agentforge.engine.tuning import tuning
from agentforge.environments import Environment, LockEntry
from agentforge.errors import AgentForgeError, ErrorInfo, InternalError
from agentforge.errors.environments import (
    LockUnavailable,
    RequestUnknown,
    RunsDiffer,
    SmokeFailed,
    VersionNotAdmitted,
)
from agentforge.errors.frameworks import ReleaseUnknown, SeriesUnknown
from agentforge.frameworks import Reference, Release, require_usable
from agentforge.lifecycle.comparing import package_changes, packages_in
from agentforge.lifecycle.evidence import Evidence, evidence_of, recorded_runs, unhooked_tools
from agentforge.lifecycle.generations import packages_of
from agentforge.lifecycle.journalled import Difference, Journalled
from agentforge.lifecycle.playing import Player, open_player
from agentforge.lifecycle.smoke import Outcome, smoke
from agentforge.store import Run

__all__ = ["RUNS", "Report", "Update", "Updating", "excuse"]

RUNS = 20
"""Recorded runs of each agent that a candidate has to repeat, unless told otherwise."""
StepName = Literal["resolve", "build", "smoke", "runs", "promote"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Update:
    """What is to be updated, and how."""

    requests: Sequence[str] = ()
    """Empty: all framework requests of the project."""
    to: str | None = None
    """Version to go to; it may be an older one."""
    latest: bool = False
    """Whether the newest release on the index is meant, tested or not."""
    refresh: bool = False
    """Whether what was resolved once is resolved anew, with the packages of today."""
    runs: int = RUNS
    dry_run: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Played:
    """How one recorded run went on the candidate."""

    run: Run
    state: Literal["same", "different", "unplayable"]
    journalled: Journalled | None = None
    reason: str = ""
    """Why it says nothing about the candidate."""

    def to_json(self) -> dict[str, Any]:
        """Return it as reports show it."""
        found = self.journalled.differences if self.journalled is not None else []
        recorded = self.journalled.recorded if self.journalled is not None else (None, None)
        return {
            "run_id": self.run.run_id,
            "agent": self.run.agent_name,
            "state": self.state,
            "reason": self.reason,
            "model_calls": recorded[0],
            "tool_calls": recorded[1],
            "differences": [each.to_json() for each in found if not each.harmless],
            "wire": [each.to_json() for each in found if each.harmless],
        }


@dataclass
class Report:
    """How the update of one request went."""

    entry: LockEntry
    status: Literal["current", "promoted", "passed", "refused"] = "current"
    found: Provisioned | None = None
    promoted: LockEntry | None = None
    environment: Environment | None = None
    packages: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    smoke: list[Outcome] = field(default_factory=list)
    runs: list[Played] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refused: ErrorInfo | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        entry, found = self.entry, self.found
        to = None
        if found is not None:
            to = {
                "generation": self.promoted.generation if self.promoted is not None else None,
                "release": found.release.version,
                "tested": found.release.tested,
                "lock": found.lock.digest,
                "environment": self.environment.id if self.environment is not None else None,
            }
        return {
            "request": entry.request,
            "requirements": packages_of(entry),
            "framework": entry.framework,
            "status": self.status,
            "from": {"generation": entry.generation, "release": entry.release, "lock": entry.lock},
            "to": to,
            "packages": self.packages,
            "steps": self.steps,
            "smoke": [each.to_json() for each in self.smoke],
            "runs": [each.to_json() for each in self.runs],
            "warnings": self.warnings,
            "refused": self.refused.to_dict() if self.refused is not None else None,
        }


Tell = Callable[[Mapping[str, Any]], None]
"""Takes progress, in the form of a build's."""


class Updating:
    """Updates the requests of the engine's project, one after the other."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    async def update(self, update: Update, tell: Tell) -> list[Report]:
        """Update what is asked for, and return how each went. Raises RequestUnknown before anything is tried."""
        entries = await self._chosen(update.requests)
        return [await _Course(self._engine, each, update, tell, self._clock).run() for each in entries]

    async def _chosen(self, requests: Sequence[str]) -> list[LockEntry]:
        active = [each for each in await self._engine.provision.pins() if each.active and each.release]
        known = {each.request for each in active}
        for request in requests:
            if request not in known:
                listed = ", ".join(f"`{each}`" for each in sorted(known)) or "none"
                raise RequestUnknown(f"`agentforge.lock` has no request `{request}`; it has {listed}")
        return [each for each in active if not requests or each.request in requests]


class _Course:
    """The update of one request, step by step."""

    def __init__(
        self, engine: Engine, entry: LockEntry, update: Update, tell: Tell, clock: Callable[[], float]
    ) -> None:
        self._engine, self._entry, self._update, self._tell, self._clock = engine, entry, update, tell, clock
        self.report = Report(entry)
        self._present: Provisioned | None = None

    async def run(self) -> Report:
        """Go through the steps; the first one that fails is the last."""
        try:
            found = await self._step("resolve", self._resolve)
            if found is not None:
                await self._try(found)
        except AgentForgeError as error:
            self._refuse(error)
        except Exception as error:  # a defect must not take the reports of the other requests along
            _log.exception("the update of `%s` failed by a defect", self._entry.request)
            self._refuse(InternalError(f"`{type(error).__name__}`: {error}"))
        self._say("ready", "")
        return self.report

    def _refuse(self, error: AgentForgeError) -> None:
        self.report.status = "refused"
        self.report.refused = error.info()

    async def _try(self, found: Provisioned) -> None:
        environment = await self._step("build", lambda: self._build(found))
        await self._step("smoke", lambda: self._smoke(found.release, environment))
        await self._step("runs", lambda: self._runs(found, environment))
        if self._update.dry_run:
            self.report.status = "passed"
            return
        self.report.promoted = await self._step("promote", lambda: self._engine.provision.promote(self._entry, found))
        self.report.status = "promoted"

    async def _step(self, name: StepName, work: Callable[[], Any]) -> Any:
        started = time.monotonic()
        state, message = "failed", ""
        try:
            done = await work()
            state = "passed"
            return done
        except AgentForgeError as error:
            message = error.message
            raise
        finally:
            duration_ms = round((time.monotonic() - started) * 1000)
            self.report.steps.append({"step": name, "state": state, "message": message, "duration_ms": duration_ms})

    def _say(self, stage: str, message: str, done: int = 0, total: int = 0) -> None:
        named = " ".join((self._entry.request, *packages_of(self._entry)))
        self._tell({"environment": named, "stage": stage, "done": done, "total": total, "message": message})

    # ---- resolve

    async def _resolve(self) -> Provisioned | None:
        """Return what the request is to be updated to; None if it is that already."""
        entry, update = self._entry, self._update
        provision = self._engine.provision
        try:
            self._present = await asyncio.to_thread(provision.generation, entry)
        except (LockUnavailable, ReleaseUnknown) as error:
            self.report.warnings.append(error.message)
        release, as_of_now = await self._release()
        self._say("resolving", f"from {entry.release} to {release.version}")
        if release.version == entry.release and not (release.tested or update.refresh or update.latest):
            return None  # it was resolved as of its own time, which does not change
        project = self._engine.preparing.project(update.variables)
        policies = project.config.catalogue.deprecated
        self.report.warnings += require_usable(release, policies, today(self._clock()))
        tuning(project, None, release, self._engine.catalogue.names())
        found = await provision.candidate(entry, release, refresh=update.refresh, as_of_now=as_of_now)
        if (found.release.version, found.lock.digest) == (entry.release, entry.lock):
            return None
        self.report.found = found
        python = self._engine.environments.interpreters.find(found.request.python).version
        before: Mapping[str, str] = {}
        if self._present is not None:
            old = self._engine.environments.interpreters.find(self._present.request.python).version
            before = packages_in(self._present.lock, old)
        self.report.packages = package_changes(before, packages_in(found.lock, python))
        return found

    async def _release(self) -> tuple[Release, bool]:
        """Return the release to go to, and whether it is resolved with all that there is today."""
        entry, update = self._entry, self._update
        catalogue = self._engine.catalogue
        wanted = Reference.parse(entry.request)
        if update.to is not None:
            release = catalogue.resolve(f"{entry.framework}=={update.to}")
            if not wanted.admits(update.to):
                raise VersionNotAdmitted(
                    f"`{entry.request}` does not admit {update.to}",
                    hint=f"Change the agents that ask for it, or `--on {entry.framework}=={update.to}` for one run.",
                )
            return release, update.refresh
        if wanted.version is None and update.latest:
            return catalogue.resolve(await self._engine.provision.latest(entry.request)), True
        if wanted.version is None:
            try:
                newest = catalogue.resolve(entry.request)
            except SeriesUnknown:  # nothing of it is tested: `--latest` asks the index
                newest = None
            if newest is not None and (Version(newest.version) > Version(entry.release) or not self._covered()):
                return newest, update.refresh
        return catalogue.resolve(f"{entry.framework}=={entry.release}"), update.refresh

    def _covered(self) -> bool:
        """Whether an adapter still serves the present release."""
        try:
            self._engine.catalogue.resolve(f"{self._entry.framework}=={self._entry.release}")
        except ReleaseUnknown:
            return False
        return True

    # ---- build, smoke

    async def _build(self, found: Provisioned) -> Environment:
        self._say("building", f"building {found.release.reference}")

        def tell(progress: Any) -> None:
            if progress.stage != "ready":
                self._say(progress.stage, f"{progress.message}", progress.done, progress.total)

        environment = await self._engine.builds.ensure(found.request, found.release, tell)
        self.report.environment = environment
        return environment

    async def _smoke(self, release: Release, environment: Environment) -> None:
        self._say("smoke", f"scripted scenarios on {release.reference}")
        level = self._engine.project.config.sandbox.level
        with self._engine.environments.hold(environment.id):
            async for outcome in smoke(environment, release, self._engine.builds.adapters, level):
                self.report.smoke.append(outcome)
        failed = [each for each in self.report.smoke if each.state == "failed"]
        if failed:
            said = "; ".join(f"`{each.scenario}`: {each.message}" for each in failed)
            raise SmokeFailed(
                f"{release.reference} failed {len(failed)} of the scripted scenarios: {said}",
                scenarios=[each.scenario for each in failed],
            )

    # ---- runs

    async def _runs(self, found: Provisioned, environment: Environment) -> None:
        entries = [each for each in await self._engine.provision.pins() if each.key == self._entry.key]
        runs = await recorded_runs(self._engine, entries, self._update.runs)
        if self._update.runs and not runs:
            said = f"there is no recorded run on `{self._entry.request}`: only the scripted scenarios were tried"
            self.report.warnings.append(said)
        async with open_player(self._engine, found, environment, self._update.variables) as player:
            for number, run in enumerate(runs):
                message = f"playing recorded runs on {found.release.reference}"
                self._say("runs", message, number, len(runs))
                self.report.runs.append(await self._played(player, found, run))
        await self._control()
        different = [each for each in self.report.runs if each.state == "different"]
        if different:
            first = different[0]
            why = first.journalled.fatal if first.journalled is not None else None
            raise RunsDiffer(
                f"{_counted(different, self.report.runs)} went another way on {found.release.reference}; "
                f"`{first.run.run_id}` of `{first.run.agent_name}`: {why.message if why else ''}",
                runs=[each.run.run_id for each in different],
                **_details(why),
            )
        self.report.warnings += _unplayable(self.report.runs)

    async def _played(self, player: Player, found: Provisioned, run: Run) -> Played:
        try:
            if run.unreadable:
                return Played(run, "unplayable", reason=f"its {run.unreadable} can't be read any more")
            evidence = await self._evidence(run)
            levels = [each.release.traits.capability("tool-replay").level for each in (found, evidence.prepared)]
            if unhooked := unhooked_tools(evidence, levels):
                return Played(run, "unplayable", reason=unhooked)
            journalled = self._refused_settings(found.release, evidence) or await player.play(evidence)
        except AgentForgeError as error:
            return Played(run, "unplayable", reason=error.message)
        return Played(run, "same" if journalled.fatal is None else "different", journalled)

    def _refused_settings(self, release: Release, evidence: Evidence) -> Journalled | None:
        """Return the end of a run whose agent sets what a release does not take: it would not even be submitted."""
        try:
            names = self._engine.catalogue.names()
            tuning(evidence.prepared.project, evidence.prepared.definition, release, names)
        except AgentForgeError as error:
            journalled = Journalled(evidence.effects, release.traits.varies)
            journalled.fail(error.message)
            return journalled
        return None

    async def _evidence(self, run: Run) -> Evidence:
        return await evidence_of(self._engine, run, self._update.variables)

    async def _control(self) -> None:
        """Play what went another way on the present environment too: a run that it can't repeat says nothing."""
        doubtful = [each for each in self.report.runs if each.state == "different"]
        if not doubtful or self._present is None:
            return
        environment = await asyncio.to_thread(self._engine.environments.find, self._present.request)
        if environment is None:
            self.report.warnings.append("the present environment is not built, so the runs can't be tried on it")
            return
        self._say("runs", f"those that went another way, on {self._present.release.reference}")
        async with open_player(self._engine, self._present, environment, self._update.variables) as player:
            for each in doubtful:
                again = await self._played(player, self._present, each.run)
                if each.journalled is None or again.journalled is None:
                    continue
                if why := excuse(each.journalled, again.journalled):
                    each.state = "unplayable"
                    each.reason = f"the present environment does not repeat it either: {why.message}"


def excuse(candidate: Journalled, present: Journalled) -> Difference | None:
    """Return what a run does differently on the present environment, if that is no later than on the candidate.

    What the present environment repeats has to be repeated by the candidate, whatever comes after it. Slowness is no
    excuse.
    """
    if present.fatal is None or present.timed_out or present.reached > candidate.reached:
        return None
    return present.fatal


def _details(why: Difference | None) -> dict[str, Any]:
    return {} if why is None else {"difference": why.to_json()}


def _counted(some: Sequence[object], of: Sequence[object]) -> str:
    return f"{len(some)} of {len(of)} recorded run{'' if len(of) == 1 else 's'}"


def _unplayable(runs: Sequence[Played]) -> list[str]:
    """Return what to say of runs that were left out, once for each reason."""
    reasons: dict[str, list[str]] = {}
    for each in runs:
        if each.state == "unplayable":
            reasons.setdefault(each.reason, []).append(each.run.run_id)
    return [f"{_counted(ids, runs)} left out ({', '.join(ids[:3])}): {reason}" for reason, ids in reasons.items()]
