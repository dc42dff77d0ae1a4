"""How well the environments are: states, probes, history, changes. One per host, on the engine's loop.

What is known is a record of the store for each probe; a state is read from the newest one, from what is being built,
and from a quick look at the files. The API asks, runs tell of what they find broken, and while the host lives the
environments that this project uses are probed by and by.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentforge.engine import Engine
from agentforge.engine.cataloguing import machine_name
from agentforge.environments import Environment, Inspection, inspect
from agentforge.errors import AgentForgeError
from agentforge.errors.environments import EnvironmentUnknown, ProbeFailed
from agentforge.frameworks import Reference, Release, deprecation_of
from agentforge.lifecycle.probing import judged, probe
from agentforge.store import HealthRecord, HealthState

__all__ = ["Condition", "Health"]

_log = logging.getLogger(__name__)
_FIRST_S = 30.0
_LOOK_S = 60.0
_STARTS = 20
_RANKS: tuple[HealthState, ...] = ("ready", "building", "degraded", "broken")
Cause = Literal["asked", "periodic", "run", "build"]


@dataclass(frozen=True, slots=True)
class Condition:
    """How one environment is right now."""

    id: str
    state: HealthState
    problem: str = ""
    environment: Environment | None = None
    """None for one that is being built for the first time."""
    record: HealthRecord | None = None
    """The newest one of it."""
    used: bool = False
    """Whether this project uses it."""


class Health:
    """Made with an open engine; `begin` has it watch, `close` ends that."""

    def __init__(
        self, engine: Engine, environ: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._environ = environ
        self._clock = clock
        self._machine = machine_name()
        self._interval_s = engine.project.config.health.interval_s
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        engine.soundness.on_broken = self._found_broken

    def begin(self) -> None:
        """Probe the environments that this project uses when their time has come, as long as the host lives."""
        if self._interval_s > 0:
            self._keep(self._go_on())

    async def close(self) -> None:
        """Stop, and let go who follows the changes."""
        self._closed = True
        self._changed.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- states

    async def conditions(
        self, wanted: Sequence[str] = (), *, everything: bool = False, look: bool = True
    ) -> list[Condition]:
        """Return how environments are, by id: those of this project, those that are `wanted`, or `everything`.

        Wanted are ids, or references to frameworks with all that is built of them. Without a `look` at their files
        it says what is known. Raises EnvironmentUnknown.
        """
        chosen, used, under_way = await self._choose(wanted, everything)
        latest = {each.environment: each for each in await self._latest()}
        found = []
        for environment in chosen:
            state, problem, record = await self._known(environment, latest.get(environment.id), look)
            if environment.id in under_way:
                state, problem = "building", problem
            found.append(Condition(environment.id, state, problem, environment, record, environment.id in used))
        fresh = under_way - {each.id for each in chosen}
        if wanted:
            fresh = {id for id in fresh if any(_may_be(name, id) for name in wanted)}
        found += [Condition(id, "building") for id in fresh]
        return sorted(found, key=lambda each: each.id)

    async def worst(self) -> tuple[HealthState, dict[str, int]]:
        """Return the worst state of the environments that this project uses, and how many are in each."""
        found = await self.conditions(look=False)
        counts: dict[str, int] = {state: sum(1 for each in found if each.state == state) for state in _RANKS}
        return max((each.state for each in found), key=_RANKS.index, default="ready"), counts

    async def _choose(self, wanted: Sequence[str], everything: bool) -> tuple[list[Environment], set[str], set[str]]:
        """Return what is meant, and the ids of what this project uses and of what is being built."""
        working = {worker.spec.environment for worker, _ in self._engine.staff.workers()}
        return await asyncio.to_thread(self._chosen, wanted, everything, working)

    def _chosen(
        self, wanted: Sequence[str], everything: bool, working: set[str]
    ) -> tuple[list[Environment], set[str], set[str]]:
        environments = self._engine.environments
        standing = environments.list_standing()
        under_way = environments.under_way()
        used = {each.id for each in self._engine.provision.used()} | working
        if everything and not wanted:
            return standing, used, under_way
        if not wanted:
            return [each for each in standing if each.id in used], used, under_way
        chosen: dict[str, Environment] = {}
        for name in wanted:
            matching = [each for each in standing if each.id == name or _admits(name, each)]
            if not matching and not any(_may_be(name, id) for id in under_way):
                raise EnvironmentUnknown(
                    f"Nothing that is built is `{name}`",
                    hint=f"`agentforge env build {name}` builds it; `agentforge env list` shows what is built.",
                )
            chosen |= {each.id: each for each in matching}
        return list(chosen.values()), used, under_way

    async def _known(
        self, environment: Environment, record: HealthRecord | None, look: bool
    ) -> tuple[HealthState, str, HealthRecord | None]:
        """Return the state of an environment, noting what a look shows and no record says yet."""
        if record is not None and record.at < environment.built_at:  # it was built anew, and that checks it
            record = await self._record(environment, "ready", "build") if record.state != "ready" else None
        if look and (record is None or record.state != "broken"):
            found = await asyncio.to_thread(inspect, environment)
            if found.broken and self._engine.environments.standing(environment.id) == environment:
                record = await self._record(environment, "broken", "asked", found.problem)
        state, problem = (record.state, record.problem) if record is not None else ("ready", "")
        ending = self._deprecated(environment)
        if ending and state in ("ready", "degraded"):
            return "degraded", "; ".join(filter(None, [problem, ending])), record
        return state, problem, record

    def _deprecated(self, environment: Environment) -> str:
        """Return what is said of a release that should not be used any more; empty for one that may be."""
        release = self._release_of(environment)
        said = deprecation_of(release, self._engine.catalogue_files.config.deprecated) if release else None
        if release is None or said is None or said.state(self._engine.today) == "announced":
            return ""
        return said.warning(release)

    def _release_of(self, environment: Environment) -> Release | None:
        """Return the release of an environment; None for tools, and where this project has no adapter for it."""
        if environment.framework is None:
            return None
        try:
            return self._engine.catalogue.resolve(f"{environment.framework}=={environment.release}")
        except AgentForgeError:
            return None

    # ---- probes

    async def probe(self, environment: Environment, cause: Cause = "asked", *, gently: bool = False) -> HealthRecord:
        """Look at all of an environment's files, start it, have it make a scripted run, and keep what was found.

        One at a time. Raises ProbeFailed, EnvironmentUnknown.
        """
        async with self._turn:
            engine = self._engine
            release = self._release_of(environment)
            found = await probe(
                environment, release, engine.home, engine.project.config.sandbox.level, self._environ, gently=gently
            )
            if engine.environments.standing(environment.id) != environment:
                raise ProbeFailed(f"`{environment.id}` was built anew, or removed, while it was probed")
            earlier = await self._history([environment.id], limit=_STARTS)
            well = [each for each in earlier if each.state == "ready" and each.at >= environment.built_at]
            state, problem = judged(environment, found, well, engine.project.config.workers.start_timeout_s)
            if found.inspection is not None and found.inspection.broken:
                engine.soundness.condemn(environment, found.inspection)
            else:
                engine.soundness.acquit(environment.id)
            if release is not None and not found.problem:
                await engine.cataloguing.measuring.probed(
                    environment, release, found.start_s, found.memory_mib, busy=found.loaded
                )
            return await self._record(
                environment,
                state,
                cause,
                problem,
                details=found.details,
                files_s=found.inspection.duration_s if found.inspection is not None else None,
                start_s=found.start_s,
                run_s=found.run_s,
                cpu_s=found.cpu_s,
            )

    async def built_anew(self, environment: Environment) -> None:
        """Note that an environment was built anew, which checks it, and clean up once the old one is free."""
        latest = {each.environment: each for each in await self._latest()}
        if environment.id in latest and latest[environment.id].state != "ready":
            await self._record(environment, "ready", "build")
        self._engine.soundness.acquit(environment.id)
        self._keep(self._tidy_soon())

    async def _tidy_soon(self) -> None:
        for pause_s in (1.0, 5.0, 30.0):
            await asyncio.sleep(pause_s)
            await asyncio.to_thread(self._engine.environments.tidy)

    # ---- history and changes

    async def history(self, wanted: Sequence[str] = (), limit: int = 100) -> list[HealthRecord]:
        """Return what was found, the newest first; of environments (ids, or references) or of all."""
        if not wanted:
            return await self._history(None, limit=limit)
        known = {each.environment: each for each in await self._latest()}
        ids = {id for id, each in known.items() if any(id == name or _admits(name, each) for name in wanted)}
        if not ids:
            await self._choose(wanted, False)  # it may be that it is built and was never probed
        return await self._history(sorted(ids), limit=limit)

    async def changes(self, after: int | None = None, *, follow: bool = True) -> AsyncIterator[HealthRecord]:
        """Yield the records that say something else than those before them, above a number, and those to come.

        Without a number only those to come.
        """
        if after is None:
            newest = await self._history(None, limit=1)
            after = newest[0].number if newest else 0
        while True:
            changed = self._changed
            for record in await self._history(None, changes=True, after=after, newest=False):
                after = record.number
                yield record
            if self._closed or not follow:
                return
            if changed is self._changed:
                await changed.wait()

    async def _history(self, environments: Sequence[str] | None, **how: Any) -> list[HealthRecord]:
        return await self._engine.store.list_health(self._engine.lease.project, self._machine, environments, **how)

    async def _latest(self) -> list[HealthRecord]:
        return await self._engine.store.latest_health(self._engine.lease.project, self._machine)

    async def _record(
        self, environment: Environment, state: HealthState, cause: Cause, problem: str = "", **more: Any
    ) -> HealthRecord:
        record = await self._engine.store.record_health(
            HealthRecord(
                self._engine.lease.project,
                self._machine,
                environment.id,
                environment.framework,
                environment.release,
                self._clock(),
                cause,
                state,
                problem,
                **more,
            )
        )
        if record.changed:
            tell = _log.info if state == "ready" else _log.warning
            said = f": {problem}" if problem else ""
            tell("environment %s is %s now, and was %s%s", environment.id, state, record.previous, said)
            self._changed.set()
            self._changed = asyncio.Event()
        return record

    # ---- what happens by itself

    def _found_broken(self, environment: Environment, found: Inspection) -> None:
        """Note what a run has found, unless it is known."""

        async def note() -> None:
            with contextlib.suppress(AgentForgeError):
                latest = {each.environment: each for each in await self._latest()}
                known = latest.get(environment.id)
                if known is None or known.state != "broken" or known.at < environment.built_at:
                    await self._record(environment, "broken", "run", found.problem)

        if not self._closed:
            self._keep(note())

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _go_on(self) -> None:
        await asyncio.sleep(min(_FIRST_S, self._interval_s))
        first = True
        while True:
            try:
                await self._look_after(first=first)
            except AgentForgeError as error:
                _log.warning("the environments could not be probed: %s", error.message)
            except Exception:
                _log.exception("the environments could not be probed")  # the next time they may be
            first = False
            await asyncio.sleep(min(_LOOK_S, self._interval_s))

    async def _look_after(self, *, first: bool) -> None:
        await asyncio.to_thread(self._engine.environments.tidy)
        for condition in await self.conditions(look=False):
            environment = condition.environment
            if environment is None or not condition.used or condition.state == "building":
                continue
            # What a host knows of damages that only reading shows, it knows from its own probes.
            known_broken = first and condition.state == "broken"
            if not (known_broken or await self._is_due(environment)):
                continue
            if self._engine.loaded or self._engine.closing:
                return
            try:
                await self.probe(environment, "periodic", gently=True)
            except (ProbeFailed, EnvironmentUnknown) as error:
                _log.warning("%s", error.message)
            except Exception:
                _log.exception("`%s` could not be probed", environment.id)

    async def _is_due(self, environment: Environment) -> bool:
        records = await self._history([environment.id], limit=_STARTS)
        probed = [each.at for each in records if each.files_s is not None]
        return self._clock() - max([environment.built_at, *probed]) >= self._interval_s


def _admits(name: str, what: Environment | HealthRecord) -> bool:
    """Whether a reference means the release that something is of; `tools` means the environments of tools."""
    try:
        reference = Reference.parse(name)
    except AgentForgeError:
        return False
    if what.framework is None or what.release is None:
        return reference.name == "tools"
    return reference.name == what.framework and reference.admits(what.release)


def _may_be(name: str, id: str) -> bool:
    """Whether an id, of which nothing else is known yet, may be of what a reference means."""
    framework = name.partition("@")[0].partition("==")[0]
    rest = id.removeprefix(f"{framework}-")
    return name == id or (rest != id and (rest[0].isdigit() or framework == "tools"))
