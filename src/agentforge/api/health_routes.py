"""Health over HTTP: states of environments, probes, history and changes; and whether this host lives and is ready."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agentforge.api.answers import JsonAnswer, documented
from agentforge.api.environment_schemas import HealthHistory, HealthList, Liveness, Readiness
from agentforge.api.problems import problem
from agentforge.api.progress_stream import Report, progress_stream
from agentforge.api.sse import MEDIA_TYPE, sse
from agentforge.engine import Engine
from agentforge.errors import AgentForgeError
from agentforge.lifecycle import Condition, Health
from agentforge.store import HealthRecord

__all__ = ["health_routes", "host_health_routes"]

Wanted = Annotated[list[str] | None, Query(description="Id of an environment, or a framework's reference; repeatable.")]
Everything = Annotated[bool, Query(alias="all", description="Whether other projects' environments are meant too.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Last = Annotated[str | None, Header(alias="Last-Event-ID")]


class ProbeRequest(BaseModel):
    """What to probe."""

    model_config = ConfigDict(extra="forbid")

    on: list[str] = Field(default_factory=list, description="Ids or references; none: what this project uses.")
    all: bool = Field(default=False, description="Whether other projects' environments are meant too.")


def health_routes(health: Health) -> APIRouter:
    """Return the routes below /health."""
    routes = APIRouter(prefix="/health", tags=["health"])

    @routes.get("", summary="States of environments", **documented(HealthList))
    async def states(on: Wanted = None, everything: Everything = False) -> JsonAnswer:
        found = await health.conditions(on or [], everything=everything)
        return JsonAnswer({"environments": [condition_json(each) for each in found]})

    @routes.post("/probes", summary="Probe; the answer is a stream of `progress` and `probed`, last `ready` or `error`")
    async def probe(request: ProbeRequest) -> StreamingResponse:
        chosen = await health.conditions(request.on, everything=request.all, look=False)
        return StreamingResponse(progress_stream(partial(_probe, health, chosen)), media_type=MEDIA_TYPE)

    @routes.get("/history", summary="What was found, the newest first", **documented(HealthHistory))
    async def history(on: Wanted = None, limit: Limit = 100) -> JsonAnswer:
        return JsonAnswer({"records": [record_json(each) for each in await health.history(on or [], limit)]})

    @routes.get("/events", summary="Changes of states as they come; with `after` those since then too")
    async def events(
        after: Annotated[int | None, Query(ge=0)] = None, follow: bool = True, last: Last = None
    ) -> StreamingResponse:
        since = int(last) if last is not None and last.isdecimal() else after
        return StreamingResponse(_events(health, since, follow), media_type=MEDIA_TYPE)

    return routes


def host_health_routes(engine: Engine, health: Health) -> APIRouter:
    """Return the routes that tell whoever watches this host how it is: /healthz and /readyz."""
    routes = APIRouter(tags=["host"])

    @routes.get("/healthz", summary="That this host lives, and the worst state it knows of", **documented(Liveness))
    async def healthz() -> JsonAnswer:
        return JsonAnswer(await _liveness(health))

    @routes.get("/readyz", summary="Whether this host takes runs; 503 if not", **documented(Readiness))
    async def readyz() -> JsonAnswer:
        found = await _readiness(engine, health)
        return JsonAnswer(found, 200 if found["ready"] else 503)

    return routes


async def _liveness(health: Health) -> dict[str, Any]:
    try:
        state, counts = await health.worst()
    except AgentForgeError as error:  # the host lives all the same
        return {"alive": True, "state": "unknown", "environments": {}, "problem": f"{error.code}: {error.message}"}
    return {"alive": True, "state": state, "environments": counts, "problem": ""}


async def _readiness(engine: Engine, health: Health) -> dict[str, Any]:
    checks = {"host": "the host is stopping" if engine.closing else "", "store": "", "environments": ""}
    try:
        await engine.renew_lease()  # a write, as every run needs them
    except AgentForgeError as error:
        checks["store"] = f"{error.code}: {error.message}"
    try:
        _, counts = await health.worst()
        if counts["broken"] and counts["broken"] == sum(counts.values()):
            checks["environments"] = "all environments that this project uses are broken"
    except AgentForgeError as error:
        checks["environments"] = f"{error.code}: {error.message}"
    return {
        "ready": not any(checks.values()),
        "checks": {name: {"ok": not why, "problem": why} for name, why in checks.items()},
    }


async def _probe(health: Health, chosen: list[Condition], report: Report) -> Mapping[str, Any]:
    probed = [each.environment for each in chosen if each.environment is not None]
    for number, environment in enumerate(probed):
        message = f"probing ({number + 1} of {len(probed)})"
        report({"environment": environment.id, "stage": "checking", "done": 0, "total": 0, "message": message})
        try:
            await health.probe(environment)
        except AgentForgeError as error:
            report(problem(error), "failed")
            if len(probed) == 1:
                raise
            continue
        (now,) = await health.conditions([environment.id], look=False)
        report(condition_json(now), "probed")
    return {"probed": len(probed)}


async def _events(health: Health, after: int | None, follow: bool) -> AsyncIterator[bytes]:
    yield b": the changes of environments\n\n"  # so that who follows knows that it is connected
    async for record in health.changes(after, follow=follow):
        yield sse(record_json(record), kind="health.changed", number=record.number)


def condition_json(condition: Condition) -> dict[str, Any]:
    """Return how an environment is, as the API shows it."""
    environment, record = condition.environment, condition.record
    at = record.at if record is not None else environment.built_at if environment is not None else None
    return {
        "environment": condition.id,
        "framework": environment.framework if environment is not None else None,
        "release": environment.release if environment is not None else None,
        "python": environment.python_version if environment is not None else None,
        "state": condition.state,
        "problem": condition.problem,
        "used": condition.used,
        "checked_at": _moment(at) if at is not None else None,
        "checked_by": record.cause if record is not None else "build",
        "files_s": record.files_s if record is not None else None,
        "start_s": record.start_s if record is not None else None,
        "run_s": record.run_s if record is not None else None,
        "cpu_s": record.cpu_s if record is not None else None,
    }


def record_json(record: HealthRecord) -> dict[str, Any]:
    """Return a record of the history, as the API shows it."""
    return {
        "seq": record.number,
        "at": _moment(record.at),
        "environment": record.environment,
        "framework": record.framework,
        "release": record.release,
        "state": record.state,
        "previous": record.previous,
        "changed": record.changed,
        "cause": record.cause,
        "problem": record.problem,
        "details": record.details,
        "files_s": record.files_s,
        "start_s": record.start_s,
        "run_s": record.run_s,
        "cpu_s": record.cpu_s,
    }


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
