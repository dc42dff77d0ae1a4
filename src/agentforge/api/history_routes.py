"""A run's history over HTTP: checkpoints, differences, rollback, fork, replay, export and import."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from agentforge.api.answers import JsonAnswer, documented
from agentforge.api.run_routes import Keys
from agentforge.api.schemas import CheckpointList, CheckpointObject, DiffObject, ReplayObject, RunResultObject
from agentforge.engine import Engine, Submission

__all__ = ["history_routes"]

_BYTES = "application/octet-stream"
_FILE: dict[str, Any] = {"content": {_BYTES: {"schema": {"type": "string", "format": "binary"}}}}


class RollbackRequest(BaseModel):
    """Where to take a run back to."""

    model_config = ConfigDict(extra="forbid")

    at: int = Field(ge=-1, description="Number of a checkpoint; -1: the beginning.")


class ForkRequest(Keys):
    """Where a new run leaves this one, and what is different there."""

    at: int | None = Field(default=None, ge=-1, description="Number of a checkpoint; default: the last one.")
    edit: Any = Field(default=None, description="Response of effect `at` in place of the recorded one.")
    input: Any = Field(default=None, description="What the user says, in place of the recorded input.")
    on: str | None = Field(default=None, description="Framework that goes on from the messages at `at`.")


class ReplayRequest(Keys):
    """What to replay with."""

    agent: str | None = Field(default=None, description="Path of an edited agent in place of the recorded one.")
    base_dir: str = Field(default="", description="Folder that a relative path starts from; default: the project.")


def history_routes(engine: Engine) -> APIRouter:
    """Return the routes below /runs that are about what is recorded of a run."""
    routes = APIRouter(prefix="/runs", tags=["history"])
    _add_reading(routes, engine)
    _add_branching(routes, engine)
    _add_files(routes, engine)
    return routes


def _add_reading(routes: APIRouter, engine: Engine) -> None:
    @routes.get("/{run_id}/checkpoints", summary="A run's checkpoints, one an effect", **documented(CheckpointList))
    async def checkpoints(
        run_id: str, voided: Annotated[bool, Query(description="Also those of ways that the run has left")] = False
    ) -> JsonAnswer:
        return JsonAnswer({"checkpoints": await engine.history.checkpoints(run_id, voided)})

    @routes.get(
        "/{run_id}/checkpoints/{number}",
        summary="One effect with request and response",
        **documented(CheckpointObject),
    )
    async def checkpoint(run_id: str, number: int) -> JsonAnswer:
        return JsonAnswer(await engine.history.effect(run_id, number))

    @routes.get("/{run_id}/diff", summary="Where two runs differ", **documented(DiffObject))
    async def diff(run_id: str, other: Annotated[str, Query(alias="with", description="The other run")]) -> JsonAnswer:
        return JsonAnswer(await engine.history.diff(run_id, other))


def _add_branching(routes: APIRouter, engine: Engine) -> None:
    @routes.post("/{run_id}/rollback", summary="Take a run back to a checkpoint", **documented(RunResultObject))
    async def rollback(run_id: str, request: RollbackRequest) -> JsonAnswer:
        await engine.lineage.rollback(run_id, request.at)
        return JsonAnswer(await engine.result(run_id))

    @routes.post(
        "/{run_id}/fork", summary="Start a new run that shares this one's past", **documented(RunResultObject, 201)
    )
    async def fork(run_id: str, request: ForkRequest) -> JsonAnswer:
        run = await engine.lineage.fork(
            run_id,
            request.at,
            request.edit,
            request.input,
            request.on,
            request.variables,
            edits="edit" in request.model_fields_set,
        )
        return JsonAnswer(await engine.result(run.run_id), 201)

    @routes.post(
        "/{run_id}/replay", summary="Run again from the journal alone, and compare", **documented(ReplayObject)
    )
    async def replay(run_id: str, request: ReplayRequest) -> JsonAnswer:
        submission = None
        if request.agent is not None:
            base = Path(request.base_dir) if request.base_dir else engine.root
            submission = Submission(request.agent, "", base, variables=request.variables)
        return JsonAnswer(await engine.lineage.replay(run_id, submission, request.variables))


def _add_files(routes: APIRouter, engine: Engine) -> None:
    @routes.get(
        "/{run_id}/export",
        summary="A run as one file, for any machine",
        response_class=Response,
        responses={200: _FILE, **documented(None)["responses"]},
    )
    async def export(run_id: str) -> Response:
        return Response(await engine.export_run(run_id), media_type=_BYTES)

    @routes.post(
        "/import",
        summary="Take a run from such a file",
        openapi_extra={"requestBody": {"required": True, **_FILE}},
        **documented(RunResultObject, 201),
    )
    async def import_run(request: Request) -> JsonAnswer:
        run = await engine.import_run(await request.body())
        return JsonAnswer(await engine.result(run.run_id), 201)
