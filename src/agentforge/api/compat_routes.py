"""The compatibility of releases over HTTP: the suite runs on each, and its reports come as they are there."""

import time
from dataclasses import asdict
from functools import cache, partial

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agentforge.api.progress_stream import Report, progress_stream
from agentforge.api.sse import MEDIA_TYPE
from agentforge.engine import Engine
from agentforge.lifecycle import Compat

__all__ = ["compat_routes"]


class CompatRequest(BaseModel):
    """Which releases to try, and how."""

    model_config = ConfigDict(extra="forbid")

    on: list[str] = Field(
        default_factory=list,
        description="`name` or `name@series`: all tested releases of it; `name==version`: that one. Empty: all.",
    )
    capabilities: list[str] = Field(
        default_factory=list, description="Run only the tests of these; the report is not kept."
    )
    only_missing: bool = Field(default=False, description="Do not try again what passed as it is now.")


def compat_routes(engine: Engine) -> APIRouter:
    """Return the routes below /compat."""
    routes = APIRouter(prefix="/compat", tags=["compat"])

    @cache
    def compat() -> Compat:  # made with the first request: the API is described without an engine
        return Compat(engine.provision, engine.builds, engine.store, engine.project.state_dir / "compat", time.time)

    @routes.post(
        "",
        summary="Try releases with the conformance suite; the answer is a stream of `progress`, `test` and `report`"
        " events, last `ready` or `error`",
    )
    async def try_releases(request: CompatRequest) -> StreamingResponse:
        return StreamingResponse(progress_stream(partial(_tried, compat(), request)), media_type=MEDIA_TYPE)

    return routes


async def _tried(compat: Compat, request: CompatRequest, report: Report) -> dict[str, int]:
    counts: dict[str, int] = {}
    reports = compat.run(
        request.on,
        lambda progress: report(asdict(progress)),
        lambda test: report(asdict(test), "test"),
        capabilities=request.capabilities,
        only_missing=request.only_missing,
    )
    async for each in reports:
        counts[each["status"]] = counts.get(each["status"], 0) + 1
        report(each, "report")
    return counts
