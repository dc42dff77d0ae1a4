"""The objects of environments, their generations and their health, as OpenAPI describes them."""

from typing import Literal

from pydantic import BaseModel, Field

__all__ = [
    "CollectedThing",
    "CollectionObject",
    "EnvironmentDifference",
    "EnvironmentList",
    "EnvironmentObject",
    "HealthHistory",
    "HealthList",
    "Liveness",
    "Readiness",
]


class EnvironmentUse(BaseModel):
    """What this project has an environment for: one generation of a request."""

    request: str
    requirements: list[str]
    generation: int
    active: bool


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
    warnings: list[str] = Field(default_factory=list, description="What its user should know.")
    needed_by: list["EnvironmentNeed"] | None = Field(default=None, description="Of one environment: who needs it.")


class EnvironmentNeed(BaseModel):
    """Why an environment is not removed."""

    project: str = Field(description="The folder of the project.")
    by: Literal["lock", "run"]
    name: str = Field(description="The request in its agentforge.lock with the generation, or the run's id.")


class CollectedThing(BaseModel):
    """Something that was removed, or would be."""

    kind: Literal["environment", "half-made", "staging", "lock", "wheel"]
    name: str
    size_bytes: int = Field(description="Disk blocks of its files.")
    freed_bytes: int = Field(description="What of it came free: files that have no other name on the disk.")


class KeptThing(BaseModel):
    """An environment that stays."""

    name: str
    reason: str


class CollectionObject(BaseModel):
    """What a garbage collection did, or would do."""

    dry_run: bool
    removed: list[CollectedThing]
    kept: list[KeptThing]
    size_bytes: int
    freed_bytes: int
    forgotten: list[str] = Field(description="Projects that were taken off the register.")
    requests: list[EnvironmentUse] = Field(default_factory=list, description="Of this project; not told by a build.")


class GenerationObject(EnvironmentUse):
    """One generation of a request in this project's `agentforge.lock`."""

    framework: str
    release: str | None
    lock: str
    environment: str | None = Field(description="Id that its environment has or would have.")
    built: bool


class EnvironmentList(BaseModel):
    """The built environments of this user, and what this project has in its lock."""

    environments: list[EnvironmentObject]
    generations: list[GenerationObject]


class EnvironmentSide(BaseModel):
    """One of two environments that are compared; it need not be built."""

    name: str
    environment: str
    framework: str | None
    release: str | None
    python: str
    lock: str


class PythonChange(BaseModel):
    """The interpreters of two environments."""

    before: str
    after: str


class PackageChange(BaseModel):
    """A package that two environments have in different versions, or that one of them lacks."""

    name: str
    change: Literal["added", "removed", "changed"]
    before: str | None
    after: str | None


class EnvironmentDifference(BaseModel):
    """How two environments differ."""

    before: EnvironmentSide
    after: EnvironmentSide
    same: bool
    python: PythonChange | None = Field(description="Null: the same.")
    packages: list[PackageChange]
    unchanged: int


class HealthState(BaseModel):
    """How an environment is."""

    environment: str
    framework: str | None
    release: str | None
    python: str | None
    state: Literal["building", "ready", "degraded", "broken"]
    problem: str = Field(description="What is wrong; empty where nothing is.")
    used: bool = Field(description="Whether this project uses it.")
    checked_at: str | None
    checked_by: Literal["asked", "periodic", "run", "build"]
    files_s: float | None = Field(description="Seconds that reading all its files took.")
    start_s: float | None = Field(description="Seconds until a worker had started.")
    run_s: float | None = Field(description="Seconds of the scripted run.")
    cpu_s: float | None = Field(description="Processor time of both.")


class HealthList(BaseModel):
    """States of environments."""

    environments: list[HealthState]


class HealthRecordObject(BaseModel):
    """What was found once."""

    seq: int
    at: str
    environment: str
    framework: str | None
    release: str | None
    state: Literal["ready", "degraded", "broken"]
    previous: Literal["ready", "degraded", "broken"]
    changed: bool
    cause: Literal["asked", "periodic", "run", "build"]
    problem: str
    details: str
    files_s: float | None
    start_s: float | None
    run_s: float | None
    cpu_s: float | None


class HealthHistory(BaseModel):
    """What was found, the newest first."""

    records: list[HealthRecordObject]


class Liveness(BaseModel):
    """That the host lives, and the worst state of the environments that its project uses."""

    alive: bool
    state: Literal["ready", "building", "degraded", "broken", "unknown"]
    environments: dict[str, int] = Field(description="How many are in each state.")
    problem: str


class ReadinessCheck(BaseModel):
    """One thing that runs need."""

    ok: bool
    problem: str


class Readiness(BaseModel):
    """Whether the host takes runs."""

    ready: bool
    checks: dict[str, ReadinessCheck]
