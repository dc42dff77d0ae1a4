"""The compatibility of releases: each is built, tried with the conformance suite, and what came out is kept.

A report is a JSON value. It is kept below the project's state folder, and its figures among the store's measurements,
where `framework compare` reads them.
"""

import asyncio
import json
import os
import sysconfig
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentforge import __version__
from agentforge.engine.builds import Builds
from agentforge.engine.cataloguing import machine_name
from agentforge.engine.provision import Provision
from agentforge.environments import Environment, EnvironmentRequest, Progress
from agentforge.errors import AgentForgeError
from agentforge.errors.environments import InterpreterMissing
from agentforge.errors.frameworks import CapabilityUnknown
from agentforge.frameworks import Release
from agentforge.lifecycle.matrix import Outcome, capability_results, conformance, counted
from agentforge.lifecycle.suite import Suite, suite_digest
from agentforge.store import Measurement, Store
from agentforge_conformance.capabilities import CAPABILITIES

__all__ = ["Compat", "CompatProgress"]

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CompatProgress:
    """How far the suite of a release is."""

    release: str
    done: int
    total: int
    test: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A release to try; a `named` one was asked for by its version."""

    release: Release
    named: bool


class Compat:
    """Tries releases one after the other; what happens to one does not stop the others."""

    def __init__(
        self,
        provision: Provision,
        builds: Builds,
        store: Store,
        kept: Path,
        clock: Callable[[], float],
        suite: Suite | None = None,
    ) -> None:
        """`kept` is the folder of the reports."""
        self._provision, self._builds, self._store, self._kept, self._clock = provision, builds, store, kept, clock
        self._suite = suite or Suite()
        self._alone = asyncio.Lock()

    def releases(self, references: Sequence[str]) -> list[_Asked]:
        """Return the releases that are meant: all tested ones of a framework or series, or the exact one.

        Without references it is every tested release of the catalogue. Raises AF20x.
        """
        catalogue = self._provision.catalogue
        found: dict[str, _Asked] = {}
        for text in references or catalogue.names():
            reference, manifest = catalogue.covering(text)
            if reference.version is not None:
                release = catalogue.resolve(text)
                found[release.reference] = _Asked(release, True)
                continue
            tested = [each for each in catalogue.releases(manifest.name) if reference.admits(each.version)]
            if not tested and references:
                catalogue.resolve(text)  # says what there is
            for release in tested:
                found.setdefault(release.reference, _Asked(release, False))
        return list(found.values())

    async def run(
        self,
        references: Sequence[str],
        build: Progress,
        told: Callable[[CompatProgress], None],
        *,
        capabilities: Sequence[str] = (),
        only_missing: bool = False,
    ) -> AsyncIterator[Report]:
        """Yield the report of each release, in the catalogue's order, as soon as it is there.

        With `capabilities` only their tests run, and nothing is kept. With `only_missing` a release whose kept
        report holds for its adapter, environment and suite as they are now, without a failure, is not tried again.
        Raises AF20x for references, CapabilityUnknown.
        """
        for name in capabilities:
            if name not in CAPABILITIES:
                raise CapabilityUnknown(
                    f"The conformance suite proves no capability `{name}`", hint=f"It has {', '.join(CAPABILITIES)}."
                )
        asked = await asyncio.to_thread(self.releases, references)
        async with self._alone:
            for each in asked:
                known = await self._known(each.release) if only_missing and not capabilities else None
                yield known or await self._tried(each, capabilities, build, told)

    # ---- one release

    async def _tried(
        self, asked: _Asked, capabilities: Sequence[str], build: Progress, told: Callable[[CompatProgress], None]
    ) -> Report:
        release = asked.release
        try:
            environment = await self._builds.ensure(await self._request(release), release, build)
            with self._provision.environments.hold(environment.id):
                outcomes = await self._suite.run(
                    release,
                    environment.python,
                    capabilities,
                    lambda done, total, test: told(CompatProgress(release.reference, done, total, test)),
                )
        except AgentForgeError as error:
            absent = isinstance(error, InterpreterMissing) and not asked.named
            return self._about(release, status="unavailable" if absent else "error", error=error.info().to_dict())
        report = self._report(release, environment, outcomes, capabilities)
        if not capabilities:
            await self._keep(report)
        return report

    async def _request(self, release: Release) -> EnvironmentRequest:
        """Return what to build for a release; nothing is pinned in the project by trying it."""
        return EnvironmentRequest.for_release(release, await self._provision.environments.lock(release))

    def _report(
        self, release: Release, environment: Environment, outcomes: Sequence[Outcome], capabilities: Sequence[str]
    ) -> Report:
        counts = counted(outcomes)
        declared = {
            name: each for name, each in release.traits.capabilities.items() if not capabilities or name in capabilities
        }
        share = conformance(outcomes)
        return self._about(
            release,
            status="failed" if counts["failed"] else "passed",
            python=environment.python_version,
            environment=environment.id,
            **counts,
            conformance=None if share is None else round(share, 2),
            duration_ms=sum(each.duration_ms for each in outcomes),
            capabilities=capability_results(declared, outcomes, list(CAPABILITIES)),
            tests=[
                {
                    "name": each.name,
                    "capability": each.capability,
                    "outcome": each.outcome,
                    "duration_ms": each.duration_ms,
                    "message": each.message,
                }
                for each in outcomes
            ],
        )

    def _about(self, release: Release, **found: Any) -> Report:
        nothing = {"python": None, "environment": None, "passed": 0, "failed": 0, "skipped": 0, "conformance": None}
        return {
            "reference": release.reference,
            "framework": release.framework.name,
            "release": release.version,
            "tested": release.tested,
            "status": "",
            **nothing,
            "duration_ms": 0,
            "capabilities": {},
            "tests": [],
            "error": None,
            **found,
            "at": datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds"),
            "platform": sysconfig.get_platform(),
            "agentforge": __version__,
            "adapter": release.framework.digest,
            "suite": suite_digest(),
        }

    # ---- what is kept

    def _file(self, release: str) -> Path:
        return self._kept / f"{release}.json"

    async def _keep(self, report: Report) -> None:
        await asyncio.to_thread(_write, self._file(report["reference"]), report)
        await self._store.record_measurements(self._measurements(report))

    def _measurements(self, report: Report) -> list[Measurement]:
        """Return the share of the tests that passed: of all, and of each capability that was tried."""
        shares = {"conformance": report["conformance"]}
        for name, each in report["capabilities"].items():
            ran = each["passed"] + each["failed"]
            shares[f"conformance.{name}"] = 100 * each["passed"] / ran if ran else None
        at, command = self._clock(), f"agentforge compat {report['reference']}"
        return [
            Measurement(report["framework"], report["release"], machine_name(), name, value, "%", at, command)
            for name, value in shares.items()
            if value is not None
        ]

    async def _known(self, release: Release) -> Report | None:
        """Return the kept report of a release if it holds still and tells of no failure."""
        report = await asyncio.to_thread(_read, self._file(release.reference))
        if report is None or report.get("status") != "passed":
            return None
        if (report.get("adapter"), report.get("suite")) != (release.framework.digest, suite_digest()):
            return None
        try:
            request = await self._request(release)
            found = await asyncio.to_thread(self._provision.environments.find, request)
        except AgentForgeError:
            return None
        return report if found is not None and found.id == report.get("environment") else None


def _write(file: Path, report: Report) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(report, ensure_ascii=False), "utf-8")
    draft.replace(file)


def _read(file: Path) -> Report | None:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
