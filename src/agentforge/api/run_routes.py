"""Runs over HTTP: start, list, follow, end, go on, answer."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agentforge.api.answers import JsonAnswer, documented
from agentforge.api.problems import problem
from agentforge.api.schemas import EventPage, ResumedRuns, RunPage, RunResultObject, Status
from agentforge.api.sse import MEDIA_TYPE, sse
from agentforge.engine import Engine, Submission, event_json, summary_json
from agentforge.errors.host import RequestInvalid
from agentforge.errors.runs import HostStopped

__all__ = ["MOST_KEY", "MOST_WAIT_S", "Keys", "RunRequest", "run_routes", "submit_run"]

MOST_KEY = 200
"""Characters of an `Idempotency-Key`."""
MOST_WAIT_S = 60
_MOST_EVENTS = 10_000
_UNDER_WAY = ("queued", "running")


class Keys(BaseModel):
    """What a request brings along so that a run can go on."""

    model_config = ConfigDict(extra="forbid")

    variables: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables that the configuration refers to, and the agent's secrets; never stored.",
    )


class RunRequest(Keys):
    """A run to start."""

    agent: str | dict[str, Any] = Field(description="Path of an agent file or folder, or an agent as an object.")
    input: Any = Field(default="", description="Text for portable agents, any JSON value for native ones.")
    base_dir: str = Field(default="", description="Folder that relative paths start from; default: the project.")
    on: str | None = Field(default=None, description="Framework: `name`, `name@series` or `name==version`.")
    latest: bool = Field(default=False, description="Whether the newest release of it on the index is meant.")
    model: str | None = Field(default=None, description="Model alias in place of the agent's.")
    thread: str | None = Field(default=None, description="Conversation to continue.")
    stream: bool = Field(default=False, description="Whether the framework should stream, for token events.")
    labels: dict[str, str] = Field(default_factory=dict)
    priority: int = Field(
        default=0, ge=-100, le=100, description="Of runs that wait for a place the highest goes first."
    )
    cache: bool | None = Field(default=None, description="Whether recorded answers of the model may be used.")
    on_divergence: Literal["wait", "continue", "stop"] | None = Field(
        default=None, description="What to do when a run that goes on asks for something else; default: the project's."
    )

    def submission(self, root: Path, submit_key: str | None = None) -> Submission:
        """Return it as the engine takes it."""
        return Submission(
            agent=self.agent,
            input=self.input,
            base_dir=Path(self.base_dir) if self.base_dir else root,
            on=self.on,
            latest=self.latest,
            model=self.model,
            thread=self.thread,
            stream=self.stream,
            labels=self.labels,
            variables=self.variables,
            submit_key=submit_key,
            priority=self.priority,
            cache=self.cache,
            on_divergence=self.on_divergence,
        )


class AnswerRequest(Keys):
    """A human's answer to what a run waits for."""

    decision: str = Field(description="One of the interrupt's `answers`.")
    value: Any = Field(default=None, description="The answer to a question, the result of a tool, the reason of a no.")
    interrupt: str | None = Field(default=None, description="Id of the interrupt, if several are open.")


async def submit_run(
    engine: Engine, stopping: Callable[[], bool], request: RunRequest, key: str | None, wait_s: float
) -> JsonAnswer:
    """Start a run and answer with how it stands after `wait_s`: the whole of `POST /v1/runs`."""
    run = await engine.submit(request.submission(engine.root, key))
    return JsonAnswer(await _result(engine, run.run_id, wait_s, stopping), 201)


def run_routes(engine: Engine, stopping: Callable[[], bool]) -> APIRouter:
    """Return the routes below /runs that are about runs as they go; `stopping` says whether the host is leaving."""
    routes = APIRouter(prefix="/runs", tags=["runs"])
    _add_starting(routes, engine, stopping)
    _add_showing(routes, engine, stopping)
    _add_going_on(routes, engine)
    return routes


def _add_starting(routes: APIRouter, engine: Engine, stopping: Callable[[], bool]) -> None:
    @routes.post("", summary="Start a run", **documented(RunResultObject, 201))
    async def submit(
        request: RunRequest,
        key: Annotated[str | None, Header(alias="Idempotency-Key", max_length=MOST_KEY)] = None,
        wait_s: Annotated[
            float, Query(ge=0, le=MOST_WAIT_S, description="Answer with the result if it ends by then")
        ] = 0,
    ) -> JsonAnswer:
        return await submit_run(engine, stopping, request, key, wait_s)

    @routes.post("/resume", summary="Go on with the runs that an earlier host left", **documented(ResumedRuns))
    async def resume_all(request: Keys) -> JsonAnswer:
        runs = await engine.resume_all(request.variables)
        answer: dict[str, list[Any]] = {"runs": [], "lacking": [], "variables": engine.recovery.lacking_secrets}
        for run in runs:
            goes_on = run.status not in _UNDER_WAY or engine.is_active(run.run_id)
            answer["runs" if goes_on else "lacking"].append(summary_json(run))
        return JsonAnswer(answer)


def _add_showing(routes: APIRouter, engine: Engine, stopping: Callable[[], bool]) -> None:
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
        run_id: str,
        wait_s: Annotated[float, Query(ge=0, le=MOST_WAIT_S, description="Wait for the end up to this long")] = 0,
    ) -> JsonAnswer:
        return JsonAnswer(await _result(engine, run_id, wait_s, stopping))

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
            return StreamingResponse(_event_stream(engine, run_id, after, stopping), media_type=MEDIA_TYPE)
        found = await engine.recorded_events(run_id, after, limit + 1)
        events = found[:limit]
        following = events[-1].seq if len(found) > limit else None
        return JsonAnswer({"events": [event_json(event) for event in events], "next": following})


def _add_going_on(routes: APIRouter, engine: Engine) -> None:
    @routes.post("/{run_id}/cancel", summary="Cancel a run and wait for its end", **documented(RunResultObject))
    async def cancel(run_id: str) -> JsonAnswer:
        await engine.cancel(run_id)
        return JsonAnswer(await engine.result(run_id))

    @routes.post(
        "/{run_id}/resume",
        summary="Go on with a run that was left, failed, rolled back or imported",
        **documented(RunResultObject),
    )
    async def resume(run_id: str, request: Keys) -> JsonAnswer:
        await engine.resume(run_id, request.variables)
        return JsonAnswer(await engine.result(run_id))

    @routes.post("/{run_id}/answer", summary="Answer what a run waits for", **documented(RunResultObject))
    async def answer(run_id: str, request: AnswerRequest) -> JsonAnswer:
        await engine.answer(run_id, request.decision, request.value, request.interrupt, request.variables)
        return JsonAnswer(await engine.result(run_id))


def _labels(given: Sequence[str]) -> dict[str, str] | None:
    """Return the labels to find runs by. Raises RequestInvalid."""
    for each in given:
        if each.find("=") < 1:
            raise RequestInvalid(f"the label `{each}` is not `key=value`")
    return dict(each.split("=", 1) for each in given) or None


async def _result(engine: Engine, run_id: str, wait_s: float, stopping: Callable[[], bool]) -> dict[str, Any]:
    """Return a run's result object; who waited for an end that this host won't see is told so."""
    result = await engine.result(run_id, wait_s)
    if wait_s and stopping() and result["status"] in _UNDER_WAY:
        raise _handed_over(run_id)
    return result


async def _event_stream(engine: Engine, run_id: str, after: int, stopping: Callable[[], bool]) -> AsyncIterator[bytes]:
    async for event in engine.events(run_id, after):
        yield sse(event_json(event), kind=event.kind, number=event.seq)
    result = await engine.result(run_id)
    if stopping() and result["status"] in _UNDER_WAY:
        yield sse(problem(_handed_over(run_id)), kind="error")
    else:
        yield sse(result, kind="result")


def _handed_over(run_id: str) -> HostStopped:
    """`run_id` among the details tells a client that the run was taken and must not be sent again."""
    return HostStopped(f"the host stops; run `{run_id}` goes on with the next one", run_id=run_id)
