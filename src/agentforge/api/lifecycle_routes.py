"""Generations of environments over HTTP: update, rollback, diff."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agentforge.api.answers import JsonAnswer, documented
from agentforge.api.environment_schemas import EnvironmentDifference
from agentforge.api.progress_stream import Report, build_report, progress_stream
from agentforge.api.sse import MEDIA_TYPE
from agentforge.engine import Engine
from agentforge.lifecycle import RUNS, Generations, Update, Updating, compared, side_of

__all__ = ["lifecycle_routes"]


class EnvironmentUpdate(BaseModel):
    """What to update in this project, and how."""

    model_config = ConfigDict(extra="forbid")

    requests: list[str] = Field(default_factory=list, description="As `agentforge.lock` has them; none: all.")
    to: str | None = Field(default=None, description="Version to go to.")
    latest: bool = Field(default=False, description="Whether the newest release on the index is meant.")
    refresh: bool = Field(default=False, description="Whether locks are resolved anew, with the packages of today.")
    runs: int = Field(default=RUNS, ge=0, le=1000, description="Recorded runs of each agent that are played.")
    dry_run: bool = Field(default=False, description="Whether the old generation stays active in any case.")
    variables: dict[str, str] = Field(default_factory=dict)


class EnvironmentRollback(BaseModel):
    """Which generation is to be active again."""

    model_config = ConfigDict(extra="forbid")

    request: str = Field(description="As `agentforge.lock` has it: `langchain`, `langchain@1`.")
    to: int | None = Field(default=None, description="Generation; default: the one before the active one.")
    packages: list[str] | None = Field(
        default=None, description="Additional packages of the request, where it is there with several sets of them."
    )
    build: bool = Field(default=False, description="Whether an environment that is not there any more is built again.")


def lifecycle_routes(engine: Engine) -> APIRouter:
    """Return the routes below /environments that change generations; before those of single environments."""
    routes = APIRouter(prefix="/environments", tags=["environments"])
    generations = Generations(engine)

    @routes.get("/diff", summary="How two environments differ", **documented(EnvironmentDifference))
    async def diff(
        before: Annotated[str, Query(description="Id, reference, or `REQUEST#GENERATION`")],
        after: Annotated[str, Query(description="The same")],
    ) -> JsonAnswer:
        return JsonAnswer(compared(await side_of(engine, before), await side_of(engine, after)))

    @routes.post("/updates", summary="Update; a stream of progress events, last `ready` with reports or `error`")
    async def update(request: EnvironmentUpdate) -> StreamingResponse:
        wanted = Update(**request.model_dump())

        async def work(report: Report) -> Mapping[str, Any]:
            reports = await Updating(engine).update(wanted, report)
            return {"updates": [each.to_json() for each in reports]}

        return StreamingResponse(progress_stream(work), media_type=MEDIA_TYPE)

    @routes.post("/rollbacks", summary="Go back; a stream of progress events, last `ready` or `error`")
    async def rollback(request: EnvironmentRollback) -> StreamingResponse:
        async def work(report: Report) -> Mapping[str, Any]:
            before, after, environment = await generations.rollback(
                request.request,
                request.to,
                request.packages,
                build=request.build,
                progress=build_report(report),
            )
            return {
                "request": after.request,
                "generation": after.generation,
                "release": after.release,
                "environment": environment.id,
                "before": {"generation": before.generation, "release": before.release},
            }

        return StreamingResponse(progress_stream(work), media_type=MEDIA_TYPE)

    return routes
