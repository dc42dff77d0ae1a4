"""Environments of a project that go into a bundle, and those of a bundle that come into a project."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.specifiers import SpecifierSet

from agentforge.engine import building
from agentforge.engine.provision import TOOLS
from agentforge.engine.tuning import packages
from agentforge.environments import EnvironmentRequest, Exported, Imported, LockEntry, Progress
from agentforge.errors import AgentForgeError
from agentforge.errors.keeping import BundleInvalid, BundleUnfit
from agentforge.frameworks import Reference, Release

if TYPE_CHECKING:
    from agentforge.engine.engine import Engine

__all__ = ["export_environments", "import_environments"]


async def export_environments(
    engine: "Engine", references: Sequence[str], target: Path, progress: Progress, variables: Mapping[str, str]
) -> dict[str, Any]:
    """Write a bundle with what references mean in this project (`tools`: its tool environment), built and checked.

    Raises what building raises, and what `environments.Moving.export` does.
    """
    exported = [await _exported(engine, each, progress, variables) for each in dict.fromkeys(references)]
    size = await engine.environments.moving.export(exported, target, progress)
    return {"file": str(target), "size_bytes": size, "environments": [_shown(each.entry) for each in exported]}


async def _exported(engine: "Engine", reference: str, progress: Progress, variables: Mapping[str, str]) -> Exported:
    project = engine.preparing.project(variables)
    if reference == TOOLS:
        request = await engine.provision.tools(project, progress)
        await engine.builds.ensure(request, None, progress)
        lines: Sequence[str] = request.lock.requirements
    else:
        await building.build(engine, None, reference, progress, variables=variables)
        added = packages(project, None, reference)
        provisioned = await engine.provision.framework(reference, added.lines, roles=added.roles)
        request, lines = provisioned.request, added.lines
    entry = await asyncio.to_thread(engine.provision.pinned, reference, lines)
    assert entry is not None, "it was pinned just now"
    return Exported(entry, request)


async def import_environments(
    engine: "Engine", file: Path, progress: Progress, *, build: bool = True
) -> dict[str, Any]:
    """Take a bundle's wheels and locks, pin its requests where the project pins none, and build its environments.

    Raises what `environments.Moving.take` and building raise, AF20x for a framework that is not known here, and
    BundleInvalid for an environment that is not what its request asks for.
    """
    taken = await asyncio.to_thread(engine.environments.moving.take, file, lambda each: _release_of(engine, each))
    known = [(each, _release_of(engine, each)) for each in taken]
    shown = []
    for each, release in known:
        pinned = await engine.provision.adopt(_entry_of(each, release))
        found = {**_shown(each.entry), "pinned": pinned, "built": list(each.built), "environment": None}
        if build:
            environment = await engine.builds.ensure(_request_of(each, release), release, progress)
            found["environment"] = environment.id
        shown.append(found)
    return {"file": str(file), "environments": shown}


def _release_of(engine: "Engine", imported: Imported) -> Release | None:
    entry = imported.entry
    if not entry.release:
        if (entry.framework, entry.request) != (TOOLS, TOOLS):
            raise BundleInvalid(f"`{entry.request}` of the bundle names no release")
        return None
    try:
        reference = Reference.parse(entry.request)
        release = engine.catalogue.resolve(f"{entry.framework}=={entry.release}")
    except AgentForgeError as error:
        error.hint = f"The bundle has an environment of it. {error.hint}".strip()
        raise
    named = (reference.name, str(reference), release.version)
    if named != (entry.framework, entry.request, entry.release) or not reference.admits(release.version):
        raise BundleInvalid(
            f"The bundle has {entry.framework} `{entry.release}` for `{entry.request}`, which does not ask for it"
        )
    _require_python(engine, entry, release)
    return release


def _require_python(engine: "Engine", entry: LockEntry, release: Release) -> None:
    version = engine.environments.interpreters.find(entry.python).version
    if not SpecifierSet(release.python).contains(version, prereleases=True):
        raise BundleUnfit(
            f"The bundle has {release.reference} for Python `{entry.python}`, and it runs on `{release.python}`",
            hint="Export the environments anew.",
        )


def _entry_of(imported: Imported, release: Release | None) -> LockEntry:
    """Return what the project's lock gets: without the text where this AgentForge ships it."""
    entry = imported.entry
    if release is None or release.lock_path is None or entry.requirements:
        return entry
    same = release.lock_path.read_text(encoding="utf-8") == entry.text
    return replace(entry, text="") if same else entry


def _request_of(imported: Imported, release: Release | None) -> EnvironmentRequest:
    entry = imported.entry
    if release is None:
        return EnvironmentRequest.for_tools(imported.lock, entry.python)
    return EnvironmentRequest.for_release(release, replace(imported.lock, python=entry.python))


def _shown(entry: LockEntry) -> dict[str, Any]:
    said = asdict(entry)
    return {key: said[key] for key in ("request", "framework", "release", "python", "lock")}
