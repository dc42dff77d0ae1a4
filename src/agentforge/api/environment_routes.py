"""Environments over HTTP: list, build with progress, remove."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agentforge.api.answers import JsonAnswer, documented
from agentforge.api.problems import problem
from agentforge.api.schemas import EnvironmentList, EnvironmentObject
from agentforge.api.sse import MEDIA_TYPE, sse
from agentforge.engine import Engine, Submission
from agentforge.environments import BuildProgress, Environment
from agentforge.errors import AgentForgeError, InternalError

__all__ = ["environment_routes"]


class EnvironmentBuild(BaseModel):
    """What to build: a framework's release, or all that an agent needs on it."""

    model_config = ConfigDict(extra="forbid")

    on: str | None = Field(default=None, description="Framework: `name`, `name@series` or `name==version`.")
    agent: str | dict[str, Any] | None = Field(default=None, description="Agent whose packages and tools count too.")
    base_dir: str = ""
    variables: dict[str, str] = Field(default_factory=dict)


def environment_routes(engine: Engine) -> APIRouter:
    """Return the routes below /environments."""
    routes = APIRouter(prefix="/environments", tags=["environments"])

    @routes.get("", summary="List built environments", **documented(EnvironmentList))
    async def list_environments(sizes: bool = False) -> JsonAnswer:
        found = await asyncio.to_thread(engine.environments.list)
        shown = await asyncio.to_thread(lambda: [environment_json(each, sizes=sizes) for each in found])
        return JsonAnswer({"environments": shown})

    @routes.get("/{environment_id}", summary="One environment", **documented(EnvironmentObject))
    async def show(environment_id: str) -> JsonAnswer:
        found = await asyncio.to_thread(engine.environments.get, environment_id)
        return JsonAnswer(await asyncio.to_thread(environment_json, found, sizes=True))

    @routes.post("", summary="Build; the answer is a stream of progress events, last `ready` or `error`")
    async def build(request: EnvironmentBuild) -> StreamingResponse:
        return StreamingResponse(_build(engine, request), media_type=MEDIA_TYPE)

    @routes.delete("/{environment_id}", status_code=204, summary="Remove an environment")
    async def remove(environment_id: str) -> None:
        await asyncio.to_thread(engine.environments.remove, environment_id)
        engine.provision.forget(environment_id)

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


async def _build(engine: Engine, request: EnvironmentBuild) -> AsyncIterator[bytes]:
    reports: asyncio.Queue[BuildProgress | None] = asyncio.Queue()
    base_dir = Path(request.base_dir) if request.base_dir else engine.root
    submission = None
    if request.agent is not None:
        submission = Submission(request.agent, "", base_dir, on=request.on, variables=request.variables)
    work = asyncio.create_task(engine.ensure(submission, request.on or "", reports.put_nowait))
    work.add_done_callback(lambda _: reports.put_nowait(None))
    try:
        while (report := await reports.get()) is not None:
            yield sse(asdict(report), kind="progress")
        try:
            environment = work.result()
        except AgentForgeError as error:
            yield sse(problem(error), kind="error")
        except Exception as error:
            yield sse(problem(InternalError(f"`{type(error).__name__}`: {error}")), kind="error")
        else:
            yield sse(environment_json(environment, sizes=False), kind="ready")
    finally:
        work.cancel()
