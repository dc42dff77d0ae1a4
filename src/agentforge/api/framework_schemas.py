"""The objects of the catalogue as OpenAPI describes them."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from agentforge.api.schemas import ErrorObject

__all__ = [
    "DeprecationList",
    "ExampleFiles",
    "ExampleList",
    "FrameworkComparison",
    "FrameworkHits",
    "FrameworkList",
    "FrameworkObject",
    "FrameworkPage",
    "FrameworkSettings",
    "Registered",
]


class DeprecationObject(BaseModel):
    """That a release should not be used any more."""

    state: Literal["announced", "deprecated", "ended"]
    since: str
    end: str | None
    successor: str | None
    reason: str
    by: Literal["project", "adapter"]


class AffectedAgent(BaseModel):
    """An agent of the project that uses a deprecated release."""

    agent: str
    framework: str
    release: str
    file: str | None = Field(description="Its file in the project, if one names the release.")
    runs: int = Field(description="How many recorded runs it has on the release.")
    last_run_at: str | None
    deprecated: DeprecationObject


class DeprecatedRelease(DeprecationObject):
    """A deprecated release with the agents of the project that use it."""

    reference: str
    agents: list[AffectedAgent]


class DeprecationList(BaseModel):
    """What is deprecated, by adapters and by the project."""

    deprecations: list[DeprecatedRelease]


class FrameworkSummary(BaseModel):
    """A framework as a list shows it."""

    name: str
    title: str
    summary: str
    releases: list[str] = Field(description="Tested releases, newest first.")
    built: list[str]
    health: dict[str, Literal["ready", "degraded", "broken"]] = Field(description="State by built release.")
    origin: str = Field(description="`shipped`, `folder`, or the package that brought it.")
    deprecated: dict[str, DeprecationObject] = Field(description="By release.")
    error: ErrorObject | None = Field(description="Why it can't be used.")


class FrameworkList(BaseModel):
    """The catalogue."""

    frameworks: list[FrameworkSummary]


class FrameworkObject(FrameworkSummary):
    """A framework, or one release of it."""

    release: str | None = Field(description="The release that this is about: the newest tested one unless asked for.")
    tested: bool
    homepage: str
    docs: str
    distribution: str
    capabilities: dict[str, Any]
    covers: list[dict[str, str]]
    model_settings: list[str]
    settings: dict[str, Any]
    adapter_digest: str
    folder: str
    affected: list[AffectedAgent] = Field(description="Agents of the project that use a deprecated release of it.")


class FrameworkHit(BaseModel):
    """A framework that a search found."""

    name: str
    title: str
    summary: str
    release: str
    capabilities: dict[str, Any] = Field(description="Those that were asked for.")


class FrameworkHits(BaseModel):
    """What a search found."""

    frameworks: list[FrameworkHit]


class MeasuredValue(BaseModel):
    """Something that was measured of a release on this machine."""

    value: float
    unit: str
    at: str
    command: str


class ComparedRelease(BaseModel):
    """One column of a comparison."""

    reference: str
    framework: str
    title: str
    release: str
    tested: bool
    python: str
    deprecated: DeprecationObject | None
    measured: dict[str, MeasuredValue | None] = Field(description="`null` where nothing was measured here.")


class FrameworkComparison(BaseModel):
    """Releases side by side."""

    machine: str
    columns: list[ComparedRelease]
    capabilities: dict[str, list[dict[str, str]]] = Field(description="Level, note and since of each column.")


class FrameworkPage(BaseModel):
    """Our page of a framework."""

    name: str
    title: str
    text: str = Field(description="Markdown.")
    links: dict[str, str]


class ExampleObject(BaseModel):
    """A runnable example."""

    name: str
    summary: str
    input: str
    kind: Literal["native", "portable"]


class ExampleList(BaseModel):
    """Examples that run on a framework."""

    examples: list[ExampleObject]


class ExampleFiles(BaseModel):
    """An example's files."""

    name: str
    input: str
    files: dict[str, str] = Field(description="By path, in base64.")


class SettingObject(BaseModel):
    """One setting of a framework, and what is set."""

    setting: str
    type: Any
    default: Any = None
    description: str
    minimum: Any = None
    choices: Any = None
    project: Any = None
    agent: Any = None


class FrameworkSettings(BaseModel):
    """The settings of a release, and what project and agent set."""

    name: str
    release: str
    settings: list[SettingObject]
    project: dict[str, Any] = Field(description="Extras, requirements, pins and variables of the project.")
    agent: dict[str, Any]
    variables: dict[str, str] = Field(description="Environment variables of its workers.")
    warnings: list[str] = Field(description="What the project sets of frameworks that there are not.")


class Registered(BaseModel):
    """A folder of the catalogue."""

    registered: list[str] = Field(description="The frameworks in it.")
    folder: str
