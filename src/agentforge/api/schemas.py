"""The objects of the API as OpenAPI describes them. Answers are written by the engine and the routes, not by these."""

from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = [
    "CheckpointList",
    "CheckpointObject",
    "DiffObject",
    "ErrorObject",
    "EventPage",
    "HostObject",
    "Problem",
    "ReplayObject",
    "ResumedRuns",
    "RunPage",
    "RunResultObject",
    "Status",
    "Stopping",
    "ThreadList",
    "ThreadObject",
]

Status = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]
InterruptKind = Literal["question", "approval", "tool", "divergence", "recovery", "rollback"]
EffectKind = Literal["model", "tool", "run", "answer", "value", "checkpoint"]
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


class InterruptObject(BaseModel):
    """What a run waits for."""

    id: str
    kind: InterruptKind
    message: str
    data: dict[str, Any] = Field(description="The question's options, the tool call, the difference, ...")
    answers: list[str] = Field(description="The decisions that `answer` takes.")
    json_schema: dict[str, Any] | None = Field(alias="schema", description="JSON Schema of a question's answer.")
    raised_at: float
    expires_at: float | None


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
    interrupts: list[InterruptObject] = Field(description="What the run waits for.")


class ToolCallObject(BaseModel):
    """One call of a tool."""

    name: str
    arguments: dict[str, Any]
    result: Any = None


class ForkOrigin(BaseModel):
    """Where a run left another one."""

    run_id: str
    effect: int


class RunResultObject(RunSummary):
    """How a run stands or ended."""

    output: Any = Field(description="Text, or a JSON value where the agent has an output schema or is native.")
    tool_calls: list[ToolCallObject]
    attempts: int = Field(description="How many workers have tried it.")
    replayed_effects: int = Field(description="Effects answered from the journal in place of being done again.")
    forked_from: ForkOrigin | None
    sandbox: str = Field(description="The level that was in force.")
    warnings: list[str]
    metrics: dict[str, Any]
    agent_version: str
    started_at: str | None


class RunPage(BaseModel):
    """A page of runs, newest first."""

    runs: list[RunSummary]
    next: str | None = Field(description="`before` of the next page.")


class ResumedRuns(BaseModel):
    """What this host found left over by an earlier one."""

    runs: list[RunSummary] = Field(description="Those that went on; some may have ended since, or wait.")
    lacking: list[RunSummary] = Field(description="Those that can't go on yet: `resume` of one says why.")
    variables: list[str] = Field(description="Names of secrets that those lack: sent along, they go on.")


class CheckpointSummary(BaseModel):
    """The state of a run after one effect, as a list shows it."""

    effect: int = Field(description="The effect's place in the journal, and the checkpoint's number.")
    kind: EffectKind
    name: str = Field(description="The tool, the model, the name of a named checkpoint.")
    at: str
    attempt: int
    voided: bool = Field(description="It belongs to a way that the run has left.")
    usage: dict[str, Any] | None
    duration_ms: float


class CheckpointList(BaseModel):
    """A run's checkpoints, in order."""

    checkpoints: list[CheckpointSummary]


class CheckpointObject(CheckpointSummary):
    """One effect with what was asked and answered."""

    status: int = Field(description="HTTP status of a model's answer; of a tool 200, or 500 if it raised.")
    request_hash: str
    occurrence: int
    request: Any = Field(description="Of a model call the body, of a tool call `name` and `arguments`.")
    response: Any = Field(description="Of a model call the body, of a tool call `value` or `error`.")


class Change(BaseModel):
    """One difference between two JSON values."""

    path: str = Field(description="Where, from `$`.")
    kind: Literal["changed", "added", "removed"]
    before: Any = None
    after: Any = None


class EffectDiff(BaseModel):
    """How one effect of two runs compares."""

    effect: int = Field(description="Its number in the first run, or in the one that has it.")
    other_effect: int | None
    kind: EffectKind
    name: str
    status: Literal["same", "changed", "only_first", "only_second"]
    changes: list[Change]
    more_changes: bool


class DiffObject(BaseModel):
    """Where two runs differ."""

    run_id: str
    other_run_id: str
    same: bool
    first_difference: int | None
    output_same: bool
    output: list[Change]
    effects: list[EffectDiff]


class ReplayObject(BaseModel):
    """What a replay offline found."""

    run_id: str
    same: bool
    output_same: bool
    output: Any = Field(description="What the replay ended with.")
    effects: int
    replayed: int
    unused: list[int] = Field(description="Effects that the replay did not ask for.")
    divergence: dict[str, Any] | None = Field(description="The first request that was not recorded.")
    error: ErrorObject | None = Field(description="What else the replay ended with.")


class ThreadSummary(BaseModel):
    """A thread as a list shows it."""

    thread: str
    messages: int = Field(description="How many.")
    updated_at: str
    last_run: str | None
    frameworks: list[str] = Field(description="Those that it ran on lately.")


class ThreadList(BaseModel):
    """The project's threads, the one used last first."""

    threads: list[ThreadSummary]


class ThreadObject(BaseModel):
    """A conversation over several runs.

    With `export` it has `format`, `version` and `runs` in place of what a list shows.
    """

    thread: str
    messages: list[dict[str, Any]] = Field(description="In the neutral form, with `seq`, `at` and `run_id` of each.")
    updated_at: str | None = None
    last_run: str | None = None
    frameworks: list[str] | None = None
    format: str | None = None
    version: int | None = None
    runs: list[dict[str, Any]] | None = Field(default=None, description="Which run on which release took part.")


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
