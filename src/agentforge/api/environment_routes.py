"""Environments over HTTP: list, show, build with progress."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agentforge.api.answers import JsonAnswer, documented
from agentforge.api.environment_schemas import EnvironmentList, EnvironmentObject
from agentforge.api.keeping_routes import needed_by
from agentforge.api.progress_stream import Report, build_report, progress_stream
from agentforge.api.sse import MEDIA_TYPE
from agentforge.engine import Engine, Submission, building
from agentforge.environments import Environment
from agentforge.lifecycle import Generations, Health

__all__ = ["environment_routes"]


class EnvironmentBuild(BaseModel):
    """What to build: a framework's release, or all that an agent needs on it."""

    model_config = ConfigDict(extra="forbid")

    on: str | None = Field(default=None, description="Framework: `name`, `name@series` or `name==version`.")
    rebuild: bool = Field(
        default=False, description="Whether what is built is made anew; `on` may be an environment's id then."
    )
    latest: bool = Field(default=False, description="Whether the newest release on the index is meant.")
    agent: str | dict[str, Any] | None = Field(default=None, description="Agent whose packages and tools count too.")
    base_dir: str = ""
    variables: dict[str, str] = Field(default_factory=dict)


def environment_routes(engine: Engine, health: Health) -> APIRouter:
    """Return the routes below /environments."""
    routes = APIRouter(prefix="/environments", tags=["environments"])
    generations = Generations(engine)

    @routes.get("", summary="List built environments", **documented(EnvironmentList))
    async def list_environments(sizes: bool = False) -> JsonAnswer:
        found = await asyncio.to_thread(engine.environments.list)
        shown = await asyncio.to_thread(lambda: [environment_json(each, sizes=sizes) for each in found])
        here = [each.to_json() for each in await generations.list()]
        return JsonAnswer({"environments": [_with_requests(each, here) for each in shown], "generations": here})

    @routes.get("/{environment_id}", summary="One environment", **documented(EnvironmentObject))
    async def show(environment_id: str) -> JsonAnswer:
        found = await asyncio.to_thread(engine.environments.get, environment_id)
        shown = await asyncio.to_thread(environment_json, found, sizes=True)
        needs = await asyncio.to_thread(needed_by, engine, environment_id)
        uses = [each.to_json() for each in await generations.list()]
        return JsonAnswer({**_with_requests(shown, uses), **needs})

    @routes.post("", summary="Build; the answer is a stream of progress events, last `ready` or `error`")
    async def build(request: EnvironmentBuild) -> StreamingResponse:
        return StreamingResponse(progress_stream(partial(_build, engine, health, request)), media_type=MEDIA_TYPE)

    return routes


def environment_json(environment: Environment, *, sizes: bool) -> dict[str, Any]:
    """Return an environment's object; its size only if asked for, because that takes a walk."""
    return {
        "id": environment.id,
        "framework": environment.framework,
        "release": environment.release,
        "python": environment.python_version,
        "path": str(environment.path),
        "lock": environment.lock_digest,
        "built_at": datetime.fromtimestamp(environment.built_at, UTC).isoformat(timespec="seconds"),
        "size_bytes": environment.size_bytes if sizes else None,
    }


def _with_requests(environment: dict[str, Any], generations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return an environment's object with what this project has it for."""
    kept = ("request", "requirements", "generation", "active")
    own = [each for each in generations if each["environment"] == environment["id"]]
    return {**environment, "requests": [{key: each[key] for key in kept} for each in own]}


async def _build(engine: Engine, health: Health, request: EnvironmentBuild, report: Report) -> Mapping[str, Any]:
    base_dir = Path(request.base_dir) if request.base_dir else engine.root
    submission = None
    if request.agent is not None:
        submission = Submission(request.agent, "", base_dir, on=request.on, variables=request.variables)
    tell, on = build_report(report), request.on or ""
    warnings: tuple[str, ...] = ()
    known = await asyncio.to_thread(engine.environments.standing, on)
    if request.rebuild and submission is None and known is not None:
        environment = await building.rebuild(engine, on, tell)
    else:
        environment, warnings = await building.build(
            engine, submission, on, tell, latest=request.latest, anew=request.rebuild, variables=request.variables
        )
    if request.rebuild:
        await health.built_anew(environment)
    return {**environment_json(environment, sizes=False), "warnings": list(warnings)}
