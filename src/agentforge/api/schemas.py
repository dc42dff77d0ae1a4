"""The objects of the API as OpenAPI describes them. Answers are written by the engine and the routes, not by these."""

from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = [
    "EnvironmentList",
    "EnvironmentObject",
    "ErrorObject",
    "EventObject",
    "EventPage",
    "FrameworkList",
    "FrameworkObject",
    "FrameworkSummary",
    "HostObject",
    "Problem",
    "RunPage",
    "RunResultObject",
    "RunSummary",
    "Status",
    "Stopping",
]

Status = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]
Origin = Literal["user", "framework", "adapter", "worker", "model", "tool", "host"]


class ErrorObject(BaseModel):
    """Why something failed and what to do about it."""

    code: str = Field(description="AFnnn; each has a page in the documentation.")
    message: str
    hint: str = ""
    origin: Origin
    details: dict[str, Any] = Field(default_factory=dict, description="Native traceback, place in a file, ...")


class Problem(ErrorObject):
    """A refused request: RFC 9457 problem details with our code."""

    type: str
    title: str
    status: int
    detail: str
    exit_code: int = Field(description="What a command should end with.")


class Usage(BaseModel):
    """Tokens as the endpoints counted them."""

    input_tokens: int
    output_tokens: int
    uncounted_calls: int = Field(default=0, description="Model calls whose endpoint sent no usage.")


class RunSummary(BaseModel):
    """A run as a list shows it."""

    run_id: str
    agent: str
    framework: str
    release: str
    status: Status
    model: str = Field(description="Alias of the model.")
    model_calls: int
    usage: Usage
    cost_usd: float | None
    duration_ms: int | None
    thread: str | None
    labels: dict[str, str]
    created_at: str
    finished_at: str | None
    error: ErrorObject | None


class ToolCallObject(BaseModel):
    """One call of a tool."""

    name: str
    arguments: dict[str, Any]
    result: Any = None


class RunResultObject(RunSummary):
    """How a run stands or ended."""

    output: Any = Field(description="Text, or a JSON value where the agent has an output schema or is native.")
    tool_calls: list[ToolCallObject]
    replayed_effects: int
    sandbox: str = Field(description="The level that was in force.")
    warnings: list[str]
    metrics: dict[str, Any]
    agent_version: str
    started_at: str | None


class RunPage(BaseModel):
    """A page of runs, newest first."""

    runs: list[RunSummary]
    next: str | None = Field(description="`before` of the next page.")


class EventObject(BaseModel):
    """One event of a run."""

    seq: int
    kind: str
    at: str
    attempt: int
    data: dict[str, Any]


class EventPage(BaseModel):
    """A page of what is recorded of a run's events, in order."""

    events: list[EventObject]
    next: int | None = Field(description="`after` of the next page.")


class EnvironmentObject(BaseModel):
    """A built environment."""

    id: str
    framework: str | None
    release: str | None
    python: str
    path: str
    lock: str
    built_at: str
    size_bytes: int | None


class EnvironmentList(BaseModel):
    """The built environments of this user."""

    environments: list[EnvironmentObject]


class FrameworkSummary(BaseModel):
    """A framework as a list shows it."""

    name: str
    title: str
    summary: str
    releases: list[str] = Field(description="Tested releases, newest first.")
    built: list[str]


class FrameworkList(BaseModel):
    """The catalogue."""

    frameworks: list[FrameworkSummary]


class FrameworkObject(FrameworkSummary):
    """A framework with releases and capabilities."""

    homepage: str
    docs: str
    distribution: str
    capabilities: dict[str, Any]
    covers: list[dict[str, str]]
    model_settings: list[str]
    settings: dict[str, Any]
    adapter_digest: str
    folder: str


class HostObject(BaseModel):
    """What a host is and does."""

    version: str
    pid: int
    project: str
    socket: str
    started_at: str
    active_runs: int
    idle_s: float
    workers: list[dict[str, Any]]


class Stopping(BaseModel):
    """The host has heard."""

    stopping: bool
