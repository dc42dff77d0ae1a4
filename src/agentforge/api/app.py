"""The HTTP API: resources over the engine. OpenAPI is at `/openapi.json`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agentforge import __version__
from agentforge.api.answers import JsonAnswer, documented
from agentforge.api.environment_routes import environment_routes
from agentforge.api.framework_routes import framework_routes
from agentforge.api.problems import install
from agentforge.api.schemas import EventPage, HostObject, RunPage, RunResultObject, Status, Stopping
from agentforge.api.sse import MEDIA_TYPE, sse
from agentforge.engine import Engine, Submission, event_json, summary_json
from agentforge.errors.host import RequestInvalid

__all__ = ["make_app"]

_MOST_EVENTS = 10_000


class RunRequest(BaseModel):
    """A run to start."""

    model_config = ConfigDict(extra="forbid")

    agent: str | dict[str, Any] = Field(description="Path of an agent file or folder, or an agent as an object.")
    input: Any = Field(default="", description="Text for portable agents, any JSON value for native ones.")
    base_dir: str = Field(default="", description="Folder that relative paths start from; default: the project.")
    on: str | None = Field(default=None, description="Framework: `name`, `name@series` or `name==version`.")
    model: str | None = Field(default=None, description="Model alias in place of the agent's.")
    thread: str | None = Field(default=None, description="Conversation to continue.")
    stream: bool = Field(default=False, description="Whether the framework should stream, for token events.")
    labels: dict[str, str] = Field(default_factory=dict)
    variables: dict[str, str] = Field(
        default_factory=dict, description="Environment variables that the configuration refers to; never stored."
    )

    def submission(self, root: Path, submit_key: str | None = None) -> Submission:
        """Return it as the engine takes it."""
        return Submission(
            agent=self.agent,
            input=self.input,
            base_dir=Path(self.base_dir) if self.base_dir else root,
            on=self.on,
            model=self.model,
            thread=self.thread,
            stream=self.stream,
            labels=self.labels,
            variables=self.variables,
            submit_key=submit_key,
        )


def make_app(engine: Engine, describe: Callable[[], dict[str, Any]], stop: Callable[[], None]) -> FastAPI:
    """Return the API of a host; `describe` says what the host is doing, `stop` has it leave."""
    app = FastAPI(
        title="AgentForge",
        version=__version__,
        description="The API of one host.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install(app)
    app.include_router(_host_routes(describe, stop), prefix="/v1")
    app.include_router(_run_routes(engine), prefix="/v1")
    app.include_router(environment_routes(engine), prefix="/v1")
    app.include_router(framework_routes(engine), prefix="/v1")
    return app


def _host_routes(describe: Callable[[], dict[str, Any]], stop: Callable[[], None]) -> APIRouter:
    routes = APIRouter(tags=["host"])

    @routes.get("/host", summary="What this host is and does", **documented(HostObject))
    async def host() -> JsonAnswer:
        return JsonAnswer(describe())

    @routes.post("/host/stop", summary="Stop this host", **documented(Stopping, 202))
    async def stop_host() -> JsonAnswer:
        asyncio.get_running_loop().call_later(0.05, stop)
        return JsonAnswer({"stopping": True}, 202)

    return routes


def _run_routes(engine: Engine) -> APIRouter:
    routes = APIRouter(prefix="/runs", tags=["runs"])

    @routes.post("", summary="Start a run", **documented(RunResultObject, 201))
    async def submit(
        request: RunRequest,
        key: Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)] = None,
        wait_s: Annotated[float, Query(ge=0, le=60, description="Answer with the result if it ends by then")] = 0,
    ) -> JsonAnswer:
        run = await engine.submit(request.submission(engine.root, key))
        return JsonAnswer(await engine.result(run.run_id, wait_s), 201)

    @routes.get("", summary="List runs, newest first", **documented(RunPage))
    async def list_runs(
        status: Status | None = None,
        agent: str | None = None,
        framework: str | None = None,
        label: Annotated[list[str] | None, Query(description="`key=value`, repeatable")] = None,
        before: Annotated[str | None, Query(description="Cursor: `next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> JsonAnswer:
        runs, following = await engine.runs(
            status=status, agent=agent, framework=framework, labels=_labels(label or []), before=before, limit=limit
        )
        return JsonAnswer({"runs": [summary_json(run) for run in runs], "next": following})

    @routes.get("/{run_id}", summary="A run's result object", **documented(RunResultObject))
    async def show(
        run_id: str, wait_s: Annotated[float, Query(ge=0, le=60, description="Wait for the end up to this long")] = 0
    ) -> JsonAnswer:
        return JsonAnswer(await engine.result(run_id, wait_s))

    @routes.post("/{run_id}/cancel", summary="Cancel a run and wait for its end", **documented(RunResultObject))
    async def cancel(run_id: str) -> JsonAnswer:
        await engine.cancel(run_id)
        return JsonAnswer(await engine.result(run_id))

    @routes.get(
        "/{run_id}/events",
        summary="A run's events: a page, or a live stream (text/event-stream)",
        **documented(EventPage),
    )
    async def list_events(
        request: Request,
        run_id: str,
        after: Annotated[int, Query(ge=0, description="Number of the last event seen")] = 0,
        limit: Annotated[int, Query(ge=1, le=_MOST_EVENTS, description="Most events of a page")] = _MOST_EVENTS,
        last_event_id: Annotated[int | None, Header(ge=0)] = None,
    ) -> Response:
        await engine.get(run_id)
        after = last_event_id if last_event_id is not None else after
        if MEDIA_TYPE in request.headers.get("accept", ""):
            return StreamingResponse(_event_stream(engine, run_id, after), media_type=MEDIA_TYPE)
        found = await engine.recorded_events(run_id, after, limit + 1)
        events = found[:limit]
        following = events[-1].seq if len(found) > limit else None
        return JsonAnswer({"events": [event_json(event) for event in events], "next": following})

    return routes


def _labels(given: Sequence[str]) -> dict[str, str] | None:
    """Return the labels to find runs by. Raises RequestInvalid."""
    for each in given:
        if each.find("=") < 1:
            raise RequestInvalid(f"the label `{each}` is not `key=value`")
    return dict(each.split("=", 1) for each in given) or None


async def _event_stream(engine: Engine, run_id: str, after: int) -> AsyncIterator[bytes]:
    async for event in engine.events(run_id, after):
        yield sse(event_json(event), kind=event.kind, number=event.seq)
    yield sse(await engine.result(run_id), kind="result")
