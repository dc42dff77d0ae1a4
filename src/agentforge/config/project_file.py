"""What `agentforge.toml` may say."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, Strict, field_validator, model_validator

from agentforge.config.checking import Section, refusal
from agentforge.config.framework_config import CatalogueConfig, FrameworkConfig, checked_frameworks
from agentforge.config.reference import check_references, is_reference, referenced_names
from agentforge.config.requirement import Requirements
from agentforge.config.settings import ModelSettings
from agentforge.errors.config import (
    ConflictingKeysError,
    InvalidReferenceError,
    LiteralSecretError,
    MissingKeyError,
)

__all__ = [
    "Count",
    "DurabilityConfig",
    "HealthConfig",
    "HostConfig",
    "LimitsConfig",
    "ModelConfig",
    "Paths",
    "ProjectConfig",
    "QueueConfig",
    "ResourceLimits",
    "SandboxConfig",
    "SandboxLevel",
    "ToolsConfig",
    "WorkersConfig",
    "references",
]

SandboxLevel = Literal["strict", "standard", "none"]
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_AGENT = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_PYTHON = re.compile(r"3\.\d{1,2}(\.\d{1,3})?")
_REFERENCE_HINT = "Write `${env:NAME}` with the name of an environment variable."


def _checked_text(value: str) -> str:
    wrong = check_references(value)
    if wrong:
        raise refusal(f"is wrong: {wrong}", _REFERENCE_HINT, InvalidReferenceError)
    return value


Text = Annotated[str, Field(min_length=1), AfterValidator(_checked_text)]
Paths = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Strict(False)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class ModelConfig(Section):
    """One model that agents can name by its alias."""

    upstream: Literal["openai", "embedded"] = "openai"
    """Wire format of the endpoint: `openai` for any compatible endpoint, `embedded` for the model that ships along."""
    base_url: Text | None = None
    """Address of the endpoint, for example `https://api.openai.com/v1` (the default)."""
    api_key: str | None = None
    """Reference to the key, for example `${env:OPENAI_API_KEY}`; never the key itself."""
    model: Text | None = None
    """The model's name at the endpoint."""
    first_step: Literal["tool", "answer"] | None = None
    """Of an embedded model, which can't choose by itself: begin with a `tool` (the default) or with the `answer`."""
    settings: ModelSettings = ModelSettings()
    """Sampling settings for every agent that uses this model and does not set them itself."""
    concurrency: Count | None = None
    """Most runs at the same time that use this model; further ones wait in line (default: no limit)."""
    requests_per_minute: Count | None = None
    """Most requests in any 60 seconds; further ones wait their turn (default: no limit)."""
    tokens_per_minute: Count | None = None
    """Tokens of a minute, input and output together: who used more makes the next requests wait (default: no limit)."""
    cache_ttl_s: Seconds = 0.0
    """Seconds for which a complete answer is given again to an identical request; 0 asks the model each time."""

    @field_validator("api_key")
    @classmethod
    def _only_a_reference(cls, value: str | None) -> str | None:
        if value is None or is_reference(value):
            return value
        if "${" in value and check_references(value):
            raise refusal("is not a reference AgentForge knows", _REFERENCE_HINT, InvalidReferenceError)
        hint = (
            'Put the key into an environment variable and write a reference to it: `api_key = "${env:OPENAI_API_KEY}"`.'
        )
        raise refusal("is a literal value (not shown), which a file must not hold", hint, LiteralSecretError)

    @field_validator("base_url")
    @classmethod
    def _an_address_without_password(cls, value: str | None) -> str | None:
        if value is None or value.startswith("${"):
            return value
        try:
            parts = urlsplit(value)
            password, usable = parts.password, parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            password, usable = None, False
        if password:
            hint = "Leave it out of the address and give the key as `api_key`."
            raise refusal("has a password in it (not shown)", hint, LiteralSecretError)
        if not usable:
            hint = "Give the address of the endpoint, for example `http://localhost:8000/v1`."
            raise refusal(f"is `{value}`, which is not a http or https address", hint)
        return value.rstrip("/")

    @model_validator(mode="after")
    def _what_the_upstream_needs(self) -> Self:
        if self.upstream == "openai" and self.model is None:
            hint = 'Add the model\'s name at the endpoint, for example `model = "gpt-4o-mini"`.'
            raise refusal("`model` is missing", hint, MissingKeyError, key="model")
        if self.upstream == "openai" and self.first_step is not None:
            statement = '`first_step` goes with `upstream = "embedded"` only: other models choose by themselves'
            raise refusal(statement, "Remove `first_step`.", ConflictingKeysError, key="first_step")
        for key in ("base_url", "api_key"):
            if self.upstream == "embedded" and getattr(self, key) is not None:
                statement = f'`{key}` does not go with `upstream = "embedded"`, which runs on this machine'
                hint = f'Remove `{key}`, or set `upstream = "openai"`.'
                raise refusal(statement, hint, ConflictingKeysError, key=key)
        return self

    def references(self) -> set[str]:
        """Return the environment variables that this model needs."""
        written = (self.base_url, self.api_key, self.model)
        return set().union(*(referenced_names(value) for value in written if value))


class SandboxConfig(Section):
    """How workers are fenced in."""

    level: SandboxLevel = "standard"
    """`strict` (one run per worker), `standard`, or `none`."""
    minimum: SandboxLevel = "none"
    """The weakest level that an agent of this project may ask for; a weaker one is refused with AF441."""
    reads: Paths = ()
    """Files and folders that every worker may read besides its own, absolute or relative to the project."""


class ResourceLimits(Section):
    """What one sandbox, or one run in it, may use; a run that goes beyond ends as failed."""

    memory_mib: Annotated[int, Field(ge=64)] | None = None
    """Most memory of a worker and its processes, in MiB (default: 4096)."""
    processes: Annotated[int, Field(ge=16)] | None = None
    """Most processes and threads in a sandbox (default: 512)."""
    cpus: Annotated[float, Field(gt=0)] | None = None
    """Most processors that a sandbox keeps busy, `0.5` is half of one (default: half of the machine's, 1 at least)."""
    open_files: Annotated[int, Field(ge=64)] | None = None
    """Most open files and sockets of one process (default: 16384, or the host's own limit)."""
    file_mib: Count | None = None
    """Largest file that may be written, in MiB (default: 1024)."""
    disk_mib: Count | None = None
    """Most that a run may keep in its workspace, in MiB (default: 2048)."""
    scratch_mib: Count | None = None
    """Most that a worker may keep in its HOME, and in its temporary folder, in MiB (default: 512)."""
    output_mib: Count | None = None
    """Most that a run may write into its log, events and result, in MiB (default: 64)."""
    events: Count | None = None
    """Most events and lines of log of a run (default: 100000)."""
    requests_per_s: Annotated[float, Field(gt=0)] | None = None
    """Most model calls and connections a second that a worker may begin (default: 2000)."""
    frames_per_s: Annotated[float, Field(gt=0)] | None = None
    """Most messages a second that the host reads from a worker (default: 20000)."""


class LimitsConfig(ResourceLimits):
    """What a sandbox may use unless its agent says otherwise."""

    frameworks: dict[str, ResourceLimits] = {}
    """Limits by the framework that a worker is for; they go before the ones above."""

    @field_validator("frameworks")
    @classmethod
    def _names_of_frameworks(cls, limits: dict[str, ResourceLimits]) -> dict[str, ResourceLimits]:
        return checked_frameworks(limits)


class DurabilityConfig(Section):
    """What a run survives and what happens when a resumed one takes another way."""

    level: Literal["process", "full"] = "process"
    """`process` survives the end of the host, `full` also a power loss (every commit waits for the disk)."""
    on_divergence: Literal["wait", "continue", "stop"] = "wait"
    """What a resumed run does when it asks for something else than before: `wait` for you, `continue`, or `stop`."""
    max_attempts: Count = 5
    """Attempts without one more finished effect after which a run fails, with AF710."""
    retain_days: Annotated[float, Field(gt=0)] | None = None
    """Days after which a finished run is deleted with all that was recorded of it (default: runs are kept for ever)."""


class ToolsConfig(Section):
    """The environment that python tools run in."""

    python: str | None = None
    """Python version of the tool environment, for example `3.11` (default: the host's)."""
    requirements: Requirements = ()
    """Packages that the tools import, for example `pandas>=2`."""
    pyproject: str | None = None
    """Path of a pyproject.toml whose dependencies the tools import, in place of `requirements`."""

    @field_validator("python")
    @classmethod
    def _a_version(cls, value: str | None) -> str | None:
        if value is not None and not _PYTHON.fullmatch(value):
            hint = 'Give a version of Python 3, for example `python = "3.11"`.'
            raise refusal(f"is `{value}`, which is not a Python version", hint)
        return value

    @model_validator(mode="after")
    def _one_list_of_packages(self) -> Self:
        if self.requirements and self.pyproject is not None:
            statement = "`requirements` and `pyproject` exclude each other"
            raise refusal(statement, "Keep one of the two.", ConflictingKeysError, key="pyproject")
        return self


class HostConfig(Section):
    """The process that serves this project."""

    idle_s: Seconds = 900.0
    """Seconds without a run or a client after which the host leaves."""
    drain_s: Seconds = 10.0
    """Seconds that runs under way may take to end when the host is told to stop; the next host resumes the others."""
    lease_s: Annotated[float, Field(gt=0)] = 15.0
    """Seconds without a sign of life after which another host may take the project over."""


class QueueConfig(Section):
    """How many runs are executed at once; the others wait in line."""

    max_runs: Count | None = None
    """Most runs at the same time in this host (default: as many as its limit on open files allows)."""
    max_queued: Annotated[int, Field(ge=0)] = 100_000
    """Most runs that wait in line; further ones are refused with AF722."""
    frameworks: dict[str, Count] = {}
    """Most runs at the same time by the framework they run on, for example `crewai = 4`."""
    agents: dict[str, Count] = {}
    """Most runs at the same time by the name of their agent, for example `expenses = 2`."""

    @field_validator("frameworks")
    @classmethod
    def _names_of_frameworks(cls, limits: dict[str, int]) -> dict[str, int]:
        return checked_frameworks(limits)

    @field_validator("agents")
    @classmethod
    def _names_of_agents(cls, limits: dict[str, int]) -> dict[str, int]:
        for name in limits:
            if not _AGENT.fullmatch(name):
                hint = "Use the `name` that the agent file says."
                raise refusal(f"`{name}` can't be an agent's name", hint, key=name)
        return limits


class WorkersConfig(Section):
    """The processes that agents run in."""

    max_workers: Count = 16
    """Most workers at the same time; further runs are queued."""
    workers_per_key: Count | None = None
    """Most workers for runs of one agent version on one release (default: as many as there are cores, 2 at least)."""
    runs_per_worker: Count = 1000
    """Most runs at the same time in a worker that can serve many."""
    idle_s: Seconds = 300.0
    """Seconds without a run after which a worker is stopped."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that a worker has to start and import its framework."""
    terminate_grace_s: Seconds = 5.0
    """Seconds between asking a worker to end and killing it."""


class HealthConfig(Section):
    """How the host watches the environments that this project uses."""

    interval_s: Seconds = 3600.0
    """Seconds after which an environment is probed again while the host runs; 0 probes when asked only."""


class ProjectConfig(Section):
    """The whole of `agentforge.toml`; every key is optional."""

    models: dict[str, ModelConfig] = {}
    """Models by the alias that agents name; `default` is the one of agents that name none."""
    sandbox: SandboxConfig = SandboxConfig()
    """How workers are fenced in."""
    limits: LimitsConfig = LimitsConfig()
    """What a sandbox may use unless its agent says otherwise."""
    durability: DurabilityConfig = DurabilityConfig()
    """What a run survives."""
    queue: QueueConfig = QueueConfig()
    """How many runs are executed at once; the others wait in line."""
    tools: ToolsConfig = ToolsConfig()
    """The environment of python tools, locked like any other."""
    frameworks: dict[str, FrameworkConfig] = {}
    """What this project adds to a framework, by its name."""
    catalogue: CatalogueConfig = CatalogueConfig()
    """Which frameworks this project knows besides those that ship, and which it wants to leave behind."""
    host: HostConfig = HostConfig()
    """The process that serves this project."""
    workers: WorkersConfig = WorkersConfig()
    """The processes that agents run in."""
    health: HealthConfig = HealthConfig()
    """How the host watches the environments that this project uses."""

    @field_validator("models")
    @classmethod
    def _aliases(cls, models: dict[str, ModelConfig]) -> dict[str, ModelConfig]:
        for alias in models:
            if not _ALIAS.fullmatch(alias):
                hint = "Use letters, digits, `.`, `_` and `-`; `:` parts a provider from its model."
                raise refusal(f"`{alias}` can't be the alias of a model", hint, key=alias)
        return models

    @field_validator("frameworks")
    @classmethod
    def _names_of_frameworks(cls, frameworks: dict[str, FrameworkConfig]) -> dict[str, FrameworkConfig]:
        return checked_frameworks(frameworks, "what is set holds for all its releases")


def references(config: ProjectConfig) -> set[str]:
    """Return the names of the environment variables that a project's configuration refers to."""
    return set().union(*(model.references() for model in config.models.values()))
