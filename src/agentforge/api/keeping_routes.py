"""Keeping environments over HTTP: remove one, collect what nobody needs, export and import bundles."""

import asyncio
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agentforge.api.answers import JsonAnswer, documented
from agentforge.api.environment_schemas import CollectedThing, CollectionObject
from agentforge.api.progress_stream import Report, build_report, progress_stream
from agentforge.api.sse import MEDIA_TYPE
from agentforge.engine import Engine
from agentforge.engine.moving import export_environments, import_environments

__all__ = ["keeping_routes", "needed_by"]


class EnvironmentCollection(BaseModel):
    """What a garbage collection may do."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(default=False, description="Whether it only says what it would remove.")
    older_than_s: float = Field(default=0.0, ge=0, description="What was built or used since then stays.")
    forget: list[str] = Field(default_factory=list, description="Projects that count no more, by their folders.")


class EnvironmentExport(BaseModel):
    """What goes into a bundle, and which file it becomes."""

    model_config = ConfigDict(extra="forbid")

    references: list[str] = Field(min_length=1, description="`name`, `name@series`, `name==version`, or `tools`.")
    file: str = Field(min_length=1, description="A file on the host's machine.")
    base_dir: str = Field(default="", description="What a relative file starts from; empty: the project.")
    variables: dict[str, str] = Field(default_factory=dict)


class EnvironmentImport(BaseModel):
    """Which bundle is taken."""

    model_config = ConfigDict(extra="forbid")

    file: str = Field(min_length=1, description="A file on the host's machine.")
    base_dir: str = Field(default="", description="What a relative file starts from; empty: the project.")
    build: bool = Field(default=True, description="Whether its environments are built at once.")


def keeping_routes(engine: Engine) -> APIRouter:
    """Return the routes below /environments that take away and move."""
    routes = APIRouter(prefix="/environments", tags=["environments"])

    @routes.delete("/{environment_id}", summary="Remove an environment", **documented(CollectedThing))
    async def remove(environment_id: str) -> JsonAnswer:
        removed = await asyncio.to_thread(engine.environments.remove, environment_id)
        engine.builds.forget(environment_id)
        return JsonAnswer(asdict(removed))

    @routes.post("/collect", summary="Remove what nobody needs", **documented(CollectionObject))
    async def collect(request: EnvironmentCollection) -> JsonAnswer:
        found = await asyncio.to_thread(
            engine.environments.collect,
            dry_run=request.dry_run,
            older_than_s=request.older_than_s,
            forget=[engine.root / each for each in request.forget],
        )
        for each in found.removed:
            if each.kind == "environment" and not found.dry_run:
                engine.builds.forget(each.name)
        sums = {"size_bytes": found.size_bytes, "freed_bytes": found.freed_bytes}
        return JsonAnswer({**asdict(found), **sums})

    @routes.post("/export", summary="Write a bundle; the answer is a stream, last `ready` or `error`")
    async def export(request: EnvironmentExport) -> StreamingResponse:
        file = _file(engine, request.base_dir, request.file)

        async def work(report: Report) -> dict[str, Any]:
            return await export_environments(engine, request.references, file, build_report(report), request.variables)

        return StreamingResponse(progress_stream(work), media_type=MEDIA_TYPE)

    @routes.post("/import", summary="Take a bundle; the answer is a stream, last `ready` or `error`")
    async def take(request: EnvironmentImport) -> StreamingResponse:
        file = _file(engine, request.base_dir, request.file)

        async def work(report: Report) -> dict[str, Any]:
            return await import_environments(engine, file, build_report(report), build=request.build)

        return StreamingResponse(progress_stream(work), media_type=MEDIA_TYPE)

    return routes


def _file(engine: Engine, base_dir: str, file: str) -> Path:
    return Path(os.path.normpath(engine.root / base_dir / file))


def needed_by(engine: Engine, environment_id: str) -> dict[str, Any]:
    """Return who needs an environment, with a warning for each project of which that can't be read."""
    needs, unreadable = engine.environments.needs(environment_id)
    return {
        "needed_by": [{"project": str(need.project), "by": need.by, "name": need.name} for need in needs],
        "warnings": [error.message for error in unreadable],
    }
