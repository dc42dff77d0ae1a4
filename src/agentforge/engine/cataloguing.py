"""The catalogue as people look at it: lists, details, comparisons, pages, and which agents a deprecation concerns."""

import asyncio
import os
import platform
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentforge.config import AgentDefinition, Project
from agentforge.engine.catalogue_files import CatalogueFiles, today
from agentforge.engine.measuring import Measuring
from agentforge.engine.project_agents import agents_of, pinned_releases, releases_of
from agentforge.engine.provision import Provision
from agentforge.engine.tuning import open_schema, settings_given, unknown_frameworks
from agentforge.errors import AgentForgeError
from agentforge.frameworks import Broken, Catalogue, Manifest, Release, deprecation_of
from agentforge.frameworks.examples import Example, examples_of
from agentforge.frameworks.finding import capabilities_of, compared, search
from agentforge.store import HealthState, Measurement, ProjectId, Store

__all__ = ["Cataloguing", "example_json", "machine_name"]

MEASURED = ("size", "import", "memory", "overhead", "conformance")
"""What a comparison shows of measurements."""


def machine_name() -> str:
    """Return what measurements of this machine are kept under."""
    return f"{platform.node()}/{sysconfig.get_platform()}/{os.cpu_count() or 1}"


class Cataloguing:
    """Views on one project's catalogue, as JSON values."""

    def __init__(
        self,
        root: Path,
        project: ProjectId,
        provision: Provision,
        files: CatalogueFiles,
        store: Store,
        clock: Callable[[], float],
    ) -> None:
        self._root, self._project, self._provision = root, project, provision
        self._files, self._store, self._clock = files, store, clock
        self.measuring = Measuring(provision, store, machine_name(), clock)

    @property
    def _catalogue(self) -> Catalogue:
        return self._provision.catalogue

    async def frameworks(self) -> list[dict[str, Any]]:
        """Return every framework in short, those that can't be used with their error."""
        built = await self._built()
        catalogue = self._catalogue
        found = [self._summary(catalogue, catalogue.get(name), built) for name in catalogue.names()]
        return sorted([*found, *(_broken(each) for each in catalogue.broken)], key=lambda each: str(each["name"]))

    async def show(self, reference: str) -> dict[str, Any]:
        """Return a framework, or of a series or version what holds for that release. Raises AF2xx."""
        catalogue = self._catalogue
        asked, manifest = catalogue.covering(reference)
        release = catalogue.resolve(reference) if asked.series or asked.version else self._newest(manifest)
        traits = release.traits if release is not None else manifest
        built = await self._built()
        return {
            **self._summary(catalogue, manifest, built),
            "release": release.version if release is not None else None,
            "tested": release.tested if release is not None else False,
            "homepage": manifest.homepage,
            "docs": manifest.docs,
            "distribution": manifest.distribution if release is None else release.distribution,
            "capabilities": capabilities_of(traits),
            "covers": [{"versions": each.versions, "python": each.python} for each in manifest.releases],
            "model_settings": list(traits.model_settings),
            "settings": dict(traits.settings),
            "adapter_digest": await asyncio.to_thread(lambda: manifest.digest),
            "folder": str(manifest.folder),
            "affected": [each for each in await self.affected() if each["framework"] == manifest.name],
        }

    def search(self, text: str, needed: Sequence[str], level: str) -> list[dict[str, Any]]:
        """Return what `search` finds. Raises CapabilityUnknown."""
        return [
            {
                "name": hit.manifest.name,
                "title": hit.manifest.title,
                "summary": hit.manifest.summary,
                "release": hit.release,
                "capabilities": {name: each.model_dump() for name, each in hit.capabilities.items()},
            }
            for hit in search(self._catalogue, text, needed, level)
        ]

    async def compare(self, references: Sequence[str]) -> dict[str, Any]:
        """Return releases side by side: what they can, and what was measured of them on this machine. Raises AF2xx."""
        releases = [self._catalogue.resolve(reference) for reference in references]
        columns = []
        for release in releases:
            measured = await self.measuring.known(release)
            columns.append(
                {
                    "reference": release.reference,
                    "framework": release.framework.name,
                    "title": release.framework.title,
                    "release": release.version,
                    "tested": release.tested,
                    "python": release.python,
                    "deprecated": self._deprecated(release),
                    "measured": {name: _measured(measured, name) for name in MEASURED},
                }
            )
        rows = compared([release.traits for release in releases])
        capabilities = {name: [each.model_dump() for each in row] for name, row in rows.items()}
        return {"machine": machine_name(), "columns": columns, "capabilities": capabilities}

    def docs(self, name: str) -> dict[str, Any]:
        """Return our page of a framework and where its own are. Raises FrameworkUnknown."""
        manifest = self._catalogue.covering(name)[1]
        readme = manifest.folder / "README.md"
        text = readme.read_text("utf-8") if readme.is_file() else ""
        links = {key: value for key in ("homepage", "docs") if (value := getattr(manifest, key))}
        return {"name": manifest.name, "title": manifest.title, "text": text, "links": links}

    def examples(self, name: str) -> list[dict[str, Any]]:
        """Return the examples of a framework. Raises FrameworkUnknown."""
        return [example_json(each) for each in examples_of(self._catalogue.covering(name)[1])]

    def config(self, reference: str, project: Project, definition: AgentDefinition | None) -> dict[str, Any]:
        """Return the settings of a release, and what project and agent set of them. Raises AF2xx."""
        release = self._catalogue.resolve(reference)
        name = release.framework.name
        given = list(settings_given(project, definition, name, self._catalogue.names()))
        schema = open_schema(release.traits.settings)
        rows = [
            {
                "setting": key,
                "type": each.get("type", "any value"),
                "default": each.get("default"),
                "description": each.get("description", ""),
                "minimum": each.get("minimum"),
                "choices": each.get("enum"),
                **{by: next((g.value for g in reversed(given) if g.name == key and g.by == by), None) for by in _BY},
            }
            for key, each in schema.get("properties", {}).items()
        ]
        config = project.config.frameworks.get(name)
        added = config.model_dump(mode="json", exclude={"settings"}) if config is not None else {}
        return {
            "name": name,
            "release": release.version,
            "settings": rows,
            "project": {key: value for key, value in added.items() if value},
            "agent": {"requirements": list(definition.file.requirements)} if definition is not None else {},
            "variables": {**release.traits.variables, **(config.env if config is not None else {})},
            "warnings": list(unknown_frameworks(project.config, self._catalogue)),
        }

    async def deprecations(self) -> list[dict[str, Any]]:
        """Return every release that is deprecated, with the agents of the project that use it."""
        affected = await self.affected()
        found = []
        for name in self._catalogue.names():
            for release in self._catalogue.releases(name):
                said = self._deprecated(release)
                if said is not None:
                    agents = [
                        each for each in affected if (each["framework"], each["release"]) == (name, release.version)
                    ]
                    found.append({"reference": release.reference, **said, "agents": agents})
        known = {each["reference"] for each in found}
        for use in affected:  # releases that are not tested
            reference = f"{use['framework']}=={use['release']}"
            if reference not in known:
                known.add(reference)
                agents = [e for e in affected if f"{e['framework']}=={e['release']}" == reference]
                found.append({"reference": reference, **use["deprecated"], "agents": agents})
        return found

    async def affected(self) -> list[dict[str, Any]]:
        """Return the agents of the project that use a deprecated release: by their files, and by their runs."""
        pinned = await asyncio.to_thread(pinned_releases, self._root)
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for use in await asyncio.to_thread(agents_of, self._root):
            for release in releases_of(use, self._catalogue, pinned):
                self._note(found, use.agent, release, file=use.shown(self._root))
        for ran in await self._store.used_releases(self._project):
            if ran.framework in self._catalogue.names():
                for release in self._resolved(f"{ran.framework}=={ran.release}"):
                    self._note(found, ran.agent, release, last_run_at=_moment(ran.last_at), runs=ran.runs)
        return list(found.values())

    def _resolved(self, reference: str) -> Sequence[Release]:
        try:
            return [self._catalogue.resolve(reference)]
        except AgentForgeError:  # no adapter covers it any more
            return []

    def _note(
        self, found: dict[tuple[str, str, str], dict[str, Any]], agent: str, release: Release, **how: Any
    ) -> None:
        said = self._deprecated(release)
        if said is None:
            return
        name = release.framework.name
        use = found.setdefault(
            (agent, name, release.version),
            {
                "agent": agent,
                "framework": name,
                "release": release.version,
                "file": None,
                "runs": 0,
                "last_run_at": None,
            },
        )
        use.update(how)
        use["deprecated"] = said

    def _deprecated(self, release: Release) -> dict[str, Any] | None:
        said = deprecation_of(release, self._files.config.deprecated)
        return None if said is None else said.to_json(today(self._clock()))

    def _newest(self, manifest: Manifest) -> Release | None:
        releases = self._catalogue.releases(manifest.name)
        return self._catalogue.resolve(manifest.name) if releases else None

    async def _built(self) -> dict[str, dict[str, HealthState]]:
        """Return the releases that are built, by framework, each with the worst known state of its environments."""
        records = await self._store.latest_health(self._project, machine_name())
        known = {each.environment: each for each in records}
        built: dict[str, dict[str, HealthState]] = {}
        for environment in await asyncio.to_thread(self._provision.environments.list_standing):
            if environment.framework is not None and environment.release is not None:
                record = known.get(environment.id)
                state: HealthState = "ready"
                if record is not None and record.at >= environment.built_at:
                    state = record.state
                if not environment.python.exists():
                    state = "broken"
                states = built.setdefault(environment.framework, {})
                states[environment.release] = max(state, states.get(environment.release, "ready"), key=_RANKS.index)
        return built

    def _summary(
        self, catalogue: Catalogue, manifest: Manifest, built: Mapping[str, Mapping[str, HealthState]]
    ) -> dict[str, Any]:
        releases = catalogue.releases(manifest.name)
        said = {release.version: self._deprecated(release) for release in releases}
        return {
            "name": manifest.name,
            "title": manifest.title,
            "summary": manifest.summary,
            "releases": [release.version for release in releases],
            "built": sorted(built.get(manifest.name, {})),
            "health": dict(sorted(built.get(manifest.name, {}).items())),
            "origin": catalogue.origin(manifest.name),
            "deprecated": {version: each for version, each in said.items() if each is not None},
            "error": None,
        }


_BY = ("project", "agent")
_RANKS: tuple[HealthState, ...] = ("ready", "building", "degraded", "broken")


def example_json(example: Example) -> dict[str, Any]:
    """Return an example as the API shows it."""
    return {"name": example.name, "summary": example.summary, "input": example.input, "kind": example.kind}


def _broken(each: Broken) -> dict[str, Any]:
    summary = {"name": each.name, "title": each.name, "summary": "", "releases": [], "built": [], "deprecated": {}}
    return {**summary, "health": {}, "origin": each.origin, "error": each.error.info().to_dict()}


def _measured(found: Sequence[Measurement], name: str) -> dict[str, Any] | None:
    measurement = next((each for each in found if each.name == name), None)
    if measurement is None:
        return None
    value = {"value": measurement.value, "unit": measurement.unit}
    return {**value, "at": _moment(measurement.at), "command": measurement.command}


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
