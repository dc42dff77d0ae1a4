"""What `agentforge.toml` says of frameworks: `[frameworks.NAME]` and `[catalogue]`."""

import re
from datetime import date
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, Field, Strict, field_validator, model_validator

from agentforge.config.checking import Section, refusal
from agentforge.config.requirement import PackageLines, Requirements
from agentforge.errors.config import LiteralSecretError

__all__ = [
    "CatalogueConfig",
    "Deprecation",
    "DeprecationPolicy",
    "FrameworkConfig",
    "FrameworkReference",
    "checked_frameworks",
]

T = TypeVar("T")
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_REFERENCE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*(?:@\d+(?:\.\w+)*|==\d[\w.+!-]*)?")
_EXTRA = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OUR_VARIABLES = re.compile(
    r"PATH|HOME|TMPDIR|LANG|TZ|LC_.*|LD_.*|PYTHON.*|XDG_.*|AGENTFORGE_.*|.*_PROXY|OPENAI_(BASE_URL|API_BASE|API_KEY)",
    re.IGNORECASE,
)
_SECRET = re.compile(r"(?:^|_)(?:API_?KEY|SECRET|PASSWORD|(?:ACCESS|AUTH|BEARER)_TOKEN)$", re.IGNORECASE)


def checked_frameworks(values: dict[str, T], what: str = "a limit holds for all its releases") -> dict[str, T]:
    """Return what is set by framework if all of them can be names of frameworks."""
    for name in values:
        if not _NAME.fullmatch(name):
            hint = f"Use the name alone, as in `agentforge framework list`: {what}."
            raise refusal(f"`{name}` can't be the name of a framework", hint, key=name)
    return values


def _checked_reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        hint = "Write `langchain`, `langchain@0.3` (a series) or `langchain==0.3.27`."
        raise refusal(f"is `{value}`, which names no framework", hint)
    return value


def _checked_extra(value: str) -> str:
    if not _EXTRA.fullmatch(value):
        raise refusal(f"is `{value}`, which can't be the name of an extra", 'Write its name alone: `"anthropic"`.')
    return value


FrameworkReference = Annotated[str, AfterValidator(_checked_reference)]
Extras = Annotated[tuple[Annotated[str, AfterValidator(_checked_extra)], ...], Strict(False)]


class FrameworkConfig(Section):
    """What this project adds to a framework, in all its releases."""

    extras: Extras = ()
    """Extras of the framework's own package, for example `["anthropic"]` for `langchain[anthropic]`."""
    requirements: PackageLines = ()
    """Extra packages in its environments; paths (`./mylib`) are relative to the project."""
    pins: Requirements = ()
    """Versions that packages must have where they are installed at all, for example `["openai<2"]`."""
    env: dict[str, str] = {}
    """Environment variables of its workers; they go before those that its adapter sets."""
    settings: dict[str, Any] = {}
    """Settings of the framework, as `agentforge framework config NAME` shows them; those of an agent go before."""

    @field_validator("pins")
    @classmethod
    def _with_a_version(cls, pins: tuple[str, ...]) -> tuple[str, ...]:
        from packaging.requirements import Requirement

        for pin in pins:
            if not Requirement(pin).specifier:
                hint = "Write the versions that are meant: `openai<2`, `openai==1.99.0`."
                raise refusal(f"has `{pin}`, which leaves the version open", hint)
        return pins

    @field_validator("env")
    @classmethod
    def _variables(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if not _VARIABLE.fullmatch(name):
                hint = 'Write for example `env = { MY_FRAMEWORK_CACHE = "off" }`.'
                raise refusal(f"`{name}` can't be the name of an environment variable", hint, key=name)
            if _OUR_VARIABLES.fullmatch(name):
                hint = "Leave it out: workers get a constructed environment, and their way to the model from the host."
                raise refusal(f"`{name}` decides how a worker runs or whom it asks", hint, key=name)
            if "${" in value or (value and _SECRET.search(name)):
                hint = "Workers of agents get no secrets; tools get theirs by `permissions.secrets` of the agent."
                raise refusal(f"`{name}` looks like a secret (not shown)", hint, LiteralSecretError, key=name)
        return env


class Deprecation(Section):
    """That something should not be used any more: from when on, until when it can be, and what to use instead."""

    since: date
    """Day from which on its use is warned of."""
    end: date | None = None
    """Last day on which it can be used; without it the warning is all."""
    successor: FrameworkReference | None = None
    """What to use instead, for example `langchain@1`."""
    reason: str = ""
    """Why, in a sentence."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end is not None and self.end < self.since:
            hint = "Give a last day that is not before the first warning."
            raise refusal(f"`end` ({self.end}) is before `since` ({self.since})", hint, key="end")
        return self


class DeprecationPolicy(Deprecation):
    """The project's own word on releases: it goes before what their adapter says."""

    framework: FrameworkReference
    """Releases that are meant: `langchain`, `langchain@0.2` or `langchain==0.2.17`."""


class CatalogueConfig(Section):
    """Which frameworks this project knows besides those that ship, and which it wants to leave behind."""

    folders: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Strict(False)] = ()
    """Folders with a `framework.toml`, relative to the project; `agentforge framework register` adds one."""
    deprecated: Annotated[tuple[DeprecationPolicy, ...], Strict(False)] = ()
    """Releases that this project deprecates; `agentforge framework deprecate` adds one."""

    @field_validator("deprecated")
    @classmethod
    def _once(cls, policies: tuple[DeprecationPolicy, ...]) -> tuple[DeprecationPolicy, ...]:
        names = [policy.framework for policy in policies]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise refusal(f"has `{twice}` twice", "Remove one of the two.")
        return policies
