"""Environments that somebody asks for by a reference, an agent or an id, built before anything runs in them."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agentforge.engine.preparing import Submission, definition_of, reference_of
from agentforge.engine.tuning import packages, tuning
from agentforge.environments import Environment, EnvironmentRequest, Progress
from agentforge.frameworks import Release

if TYPE_CHECKING:
    from agentforge.engine.engine import Engine

__all__ = ["build", "rebuild"]


async def build(
    engine: "Engine",
    submission: Submission | None,
    reference: str,
    progress: Progress,
    *,
    latest: bool = False,
    anew: bool = False,
    variables: Mapping[str, str] | None = None,
) -> tuple[Environment, tuple[str, ...]]:
    """Build what a reference (or an agent on it) needs, telling of the progress; `anew` even what is built.

    `latest` means the newest release on the index that the reference admits; `variables` are those of the client.
    Returns what is built with what to warn of.
    """
    definition = None
    project = engine.preparing.project(variables or {})
    if submission is not None:
        definition = await asyncio.to_thread(definition_of, submission)
        await engine.preparing.permitted(project, definition, submission.variables)
        reference = reference_of(definition, submission.on)
    if latest:
        reference = await engine.provision.latest(reference)
    added = packages(project, definition, reference)
    warnings = engine.preparing.usable(project, reference, added, definition)
    found = await engine.provision.framework(reference, added.lines, progress, roles=added.roles, as_of_now=latest)
    tuning(project, definition, found.release, engine.catalogue.names())  # a wrong setting is told before a build
    environment = await _built(engine, found.request, found.release, progress, anew)
    if definition is not None and definition.tools:
        await _built(engine, await engine.provision.tools(project, progress), None, progress, anew)
    return environment, warnings


async def rebuild(engine: "Engine", id: str, progress: Progress) -> Environment:
    """Make an environment anew beside the one that is there. Raises RebuildImpossible, AF3xx."""
    request, release = await asyncio.to_thread(engine.provision.built_from, id)
    return await _built(engine, request, release, progress, True)


async def _built(
    engine: "Engine", request: EnvironmentRequest, release: Release | None, progress: Progress, anew: bool
) -> Environment:
    if not anew:
        environment = await engine.builds.ensure(request, release, progress)
        await engine.soundness.require(environment.id)
        return environment
    environment = await engine.builds.rebuild(request, release, progress)
    engine.staff.renew(environment.id)
    return environment
