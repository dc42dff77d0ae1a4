"""What the store keeps, as frozen values: who ran what, when, with which effects.

The engine makes these and the store gives them back equal. Times are epoch seconds; `Json` is whatever JSON can hold.
Order is `seq`, `number` or `position`, never a time.
"""

from typing import Any, Literal, NewType, TypeAlias, TypedDict

from msgspec import Struct, field

__all__ = [
    "BLOB_LIMIT",
    "FINISHED",
    "UNFINISHED",
    "AgentVersion",
    "AgentVersionId",
    "Attempt",
    "AttemptStatus",
    "BlobId",
    "Effect",
    "EffectKind",
    "Event",
    "HealthRecord",
    "HealthState",
    "Json",
    "JsonObject",
    "Lease",
    "Measurement",
    "Project",
    "ProjectId",
    "Run",
    "RunChanges",
    "RunId",
    "RunStatus",
    "Thread",
    "ThreadMessage",
    "UsedRelease",
]

ProjectId = NewType("ProjectId", str)
RunId = NewType("RunId", str)
AgentVersionId = NewType("AgentVersionId", str)
BlobId = NewType("BlobId", str)
"""The SHA-256 of a blob's bytes, in hex."""

Json: TypeAlias = Any
"""A payload of the user's or a framework's: null, bool, number, text, list or object."""
JsonObject: TypeAlias = dict[str, Any]

RunStatus = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]
AttemptStatus = Literal["running", "waiting", "succeeded", "failed", "cancelled", "lost"]
"""`lost`: its host or worker went away before it ended."""
EffectKind = Literal["model", "tool", "run", "answer", "value", "checkpoint"]

FINISHED: frozenset[RunStatus] = frozenset({"succeeded", "failed", "cancelled"})
UNFINISHED: frozenset[RunStatus] = frozenset({"queued", "running", "waiting"})
BLOB_LIMIT = 64 * 1024
"""A payload above this many bytes is kept as a blob beside the database."""


class Project(Struct, frozen=True):
    """A project that has had a host on this store."""

    project: ProjectId
    created_at: float


class Lease(Struct, frozen=True):
    """The right to write a project's runs. Only the newest epoch of a project has it.

    `renewed_at` is when its holder last took or renewed it; who else wants the project may look at it, the store
    itself never does.
    """

    project: ProjectId
    epoch: int
    holder: str
    renewed_at: float = 0.0


class AgentVersion(Struct, frozen=True, kw_only=True):
    """An agent as it was when a run began: immutable, named by the digest of its content."""

    id: AgentVersionId
    name: str
    spec: JsonObject
    files: dict[str, BlobId] = field(default_factory=dict)
    created_at: float


class Run(Struct, frozen=True, kw_only=True):
    """One execution of an agent version.

    `environment` and `release` are empty until they are resolved; `lease_epoch` is the epoch that may write it;
    `submit_key` makes a repeated submission return the same run. `unreadable` is not kept: where many runs are read at
    once, one whose `input` or `output` is missing or damaged on the disk says so there and has `None` in its place.
    """

    run_id: RunId
    project: ProjectId
    principal: str = "local"
    labels: dict[str, str] = field(default_factory=dict)
    agent_name: str
    agent_version: AgentVersionId
    framework: str
    release: str = ""
    environment: str = ""
    model: str = ""
    thread: str | None = None
    input: Json = None
    options: JsonObject = field(default_factory=dict)
    status: RunStatus = "queued"
    lease_epoch: int
    submit_key: str | None = None
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    output: Json = None
    error: JsonObject | None = None
    usage: JsonObject = field(default_factory=dict)
    cost_usd: float | None = None
    metrics: JsonObject = field(default_factory=dict)
    sandbox: str = "standard"
    unreadable: str | None = None


class RunChanges(TypedDict, total=False):
    """What may change of a run after it was made; everything else of it never does."""

    labels: dict[str, str]
    release: str
    environment: str
    model: str
    options: JsonObject
    status: RunStatus
    started_at: float | None
    finished_at: float | None
    output: Json
    error: JsonObject | None
    usage: JsonObject
    cost_usd: float | None
    metrics: JsonObject
    sandbox: str


class Attempt(Struct, frozen=True):
    """One try of a run in one worker, counted from 1."""

    run_id: RunId
    number: int
    worker: str
    started_at: float
    finished_at: float | None = None
    status: AttemptStatus = "running"
    error: JsonObject | None = None


class Event(Struct, frozen=True):
    """Something that happened in a run; the engine numbers them from 1 (`attempt` 0: before the first one)."""

    run_id: RunId
    seq: int
    attempt: int
    kind: str
    at: float
    data: JsonObject


class Effect(Struct, frozen=True, kw_only=True):
    """One finished effect: the journal's entry from which a replay answers.

    `position` counts the effects of the run, `occurrence` the valid effects of the run with this `request_hash`.
    `status` is the HTTP status of a model's answer; for a tool 200 when it returned and 500 when it raised and the
    model was told. `voided`: it belongs to a way that the run has left; kept, but no replay answers from it.
    """

    run_id: RunId
    position: int
    attempt: int
    kind: EffectKind
    request_hash: str
    occurrence: int
    request: bytes
    response: bytes
    status: int
    usage: JsonObject | None = None
    cost_usd: float | None = None
    started_at: float
    duration_ms: float
    voided: bool = False


class Thread(Struct, frozen=True):
    """A conversation of a project over several runs, as a list shows it."""

    project: ProjectId
    thread: str
    messages: int
    updated_at: float


class ThreadMessage(Struct, frozen=True):
    """One message of a thread in the neutral form; the store numbers them from 1 within the thread."""

    thread: str
    seq: int
    run_id: RunId
    message: JsonObject
    at: float


class Measurement(Struct, frozen=True):
    """Something that was measured of a release on a machine: its size, how long an import takes, ..."""

    framework: str
    release: str
    machine: str
    """Which machine: a number of another one says little here."""
    name: str
    """`size`, `import` (the start of a worker with it), `memory`, `overhead`, `conformance`."""
    value: float
    unit: str
    """`MiB`, `ms`, `%`."""
    at: float
    command: str = ""
    """What to type to measure it again."""


class UsedRelease(Struct, frozen=True):
    """That an agent has run on a release."""

    agent: str
    framework: str
    release: str
    runs: int
    last_at: float


HealthState = Literal["building", "ready", "degraded", "broken"]


class HealthRecord(Struct, frozen=True):
    """What one probe of an environment found."""

    project: ProjectId
    machine: str
    """Which machine the environment is on: another one's says nothing here."""
    environment: str
    framework: str | None
    release: str | None
    at: float
    cause: Literal["asked", "periodic", "run", "build"]
    """Why it was looked at: somebody asked, its time had come, a run wanted it, it was built."""
    state: HealthState
    problem: str = ""
    """A sentence; empty where nothing is wrong."""
    details: str = ""
    files_s: float | None = None
    """How long it took to read all its files; None where they were not all read."""
    start_s: float | None = None
    """How long a worker took to start and to import the framework."""
    run_s: float | None = None
    """How long the scripted run took."""
    cpu_s: float | None = None
    """Processor time of both, whatever else the machine did meanwhile."""
    previous: HealthState = "ready"
    """What the record before it says; set by the store. An environment is built checked, so it begins as ready."""
    number: int = 0
    """Its place in the project's history; set by the store."""

    @property
    def changed(self) -> bool:
        """Whether it says something else than the one before it."""
        return self.state != self.previous
