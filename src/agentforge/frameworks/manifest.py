"""A framework as data: what its `framework.toml` says. Nothing of the framework or its adapter is imported here."""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, Field, Strict, model_validator

from agentforge.config.checking import Section, refusal
from agentforge.config.framework_config import Deprecation
from agentforge.frameworks.folders import adapter_files

__all__ = ["Capability", "Level", "Manifest", "ReleaseRange", "TestedRelease", "Traits"]

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")

Level = Literal["full", "partial", "todo", "absent"]
"""How much of a capability works: `todo` is ours to do, `absent` the framework does not have it."""

_MERGED = frozenset({"telemetry", "env", "capabilities"})


def _specifiers(value: str) -> str:
    try:
        SpecifierSet(value)
    except InvalidSpecifier:
        raise refusal(f"is `{value}`, which is not a version range", "Write for example `>=1,<2`.") from None
    return value


def _version(value: str) -> str:
    try:
        Version(value)
    except InvalidVersion:
        raise refusal(f"is `{value}`, which is not a version", "Write an exact version: `1.4.7`.") from None
    return value


def _requirement(value: str) -> str:
    try:
        Requirement(value.format(version="1"))
    except (InvalidRequirement, KeyError, IndexError, ValueError):
        hint = "Write a package with its range, for example `kit=={version}`: `{version}` stands for the release."
        raise refusal(f"is `{value}`, which is not a requirement line", hint) from None
    return value


def _entry(value: str) -> str:
    module, _, attribute = value.partition(":")
    if not (module.isidentifier() and attribute.isidentifier()):
        hint = "Write a module of this folder, a colon and the class in it: `adapter:MyAdapter`."
        raise refusal(f"is `{value}`, which is not `module:ClassName`", hint)
    return value


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts:
        raise refusal(f"is `{value}`, which is not a path inside the manifest's folder", "Move the file into it.")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        hint = "Use small letters, digits and single `-` between them: `my-framework`."
        raise refusal(f"is `{value}`, which can't be the name of a framework", hint)
    return value


def _some(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise refusal("is an empty list", "Add a `[[releases]]` table for each range of versions.")
    return value


Specifiers = Annotated[str, AfterValidator(_specifiers)]
VersionText = Annotated[str, AfterValidator(_version)]
RequirementLine = Annotated[str, AfterValidator(_requirement)]
Inside = Annotated[str, AfterValidator(_inside)]
Texts = Annotated[tuple[str, ...], Strict(False)]


class Capability(Section):
    """One thing that agents on this framework can do here, how far, and why not further."""

    level: Level
    """How far it works: see below."""
    note: str = ""
    """Why not further, in a sentence."""
    since: str = ""
    """First release of the framework that has it; empty: all that we know."""


class TestedRelease(Section):
    """A release that ships a lock which passed the adapter's tests."""

    __test__ = False  # not a pytest class

    version: VersionText
    """The exact release."""
    as_of: datetime
    """The lock holds nothing that was uploaded after this moment."""
    lock: Inside = ""
    """File inside the manifest's folder; empty only where there is nothing to install."""
    deprecated: Deprecation | None = None
    """That this one release should not be used any more; it goes before that of its range."""


class Traits(Section):
    """How a framework behaves in a worker."""

    telemetry: Mapping[str, str] = Field(default_factory=dict)
    """Environment variables of a worker that switch the framework's own reporting off."""
    env: Mapping[str, str] = Field(default_factory=dict)
    """Other environment variables of a worker."""
    capabilities: Mapping[str, Capability] = Field(default_factory=dict)
    """What agents can do on it, by name: see below. One that is not named is `absent`."""
    settings: Mapping[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    """JSON Schema of the framework's own settings (`framework_settings` of an agent)."""
    model_settings: Texts = ()
    """Portable model settings (temperature, ...) that reach the wire."""
    varies: Texts = ()
    """JSON paths in a model request that differ from one execution to the next."""
    unlike_native: Texts = ()
    """Paths at which model requests differ from those of the native sample; the adapter's README explains each."""
    fork: Literal["after-import", "after-run", "never"] = "never"
    """From when on a process with it may be forked: once it is imported, once it has run, or never."""
    concurrency: Annotated[int, Field(ge=0)] = 0
    """Most runs at once in one worker; 0: no limit of its own."""

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of a worker."""
        return {**self.telemetry, **self.env}

    def capability(self, name: str) -> Capability:
        """Return a capability; one that is not named is `absent`."""
        return self.capabilities.get(name, Capability(level="absent"))

    def changed_by(self, changes: "Traits") -> "Traits":
        """Return the traits of releases that differ: tables are merged by key, all else is replaced."""
        own = {name: getattr(self, name) for name in Traits.model_fields}
        for name in changes.model_fields_set & own.keys():
            value = getattr(changes, name)
            own[name] = {**own[name], **value} if name in _MERGED else value
        return Traits(**own)


class ReleaseRange(Traits):
    """A range of versions that one adapter class serves with one set of requirement lines.

    The traits that it sets go before those of the framework.
    """

    versions: Specifiers
    """Version range, for example `>=1,<2`."""
    python: Specifiers
    """Range of Python versions, for example `>=3.10,<3.14`."""
    requirements: Annotated[tuple[RequirementLine, ...], Strict(False)] = ()
    """Requirement lines; `{version}` stands for the release."""
    adapter: Annotated[str, AfterValidator(_entry)]
    """Module and class, `adapter:MyAdapter`."""
    distribution: str | None = None
    """Where this range's package has another name than the manifest's `distribution`."""
    sample: Inside = "samples/native.py"
    """The native program that the adapter is compared with."""
    tested: Annotated[tuple[TestedRelease, ...], Strict(False)] = ()
    """Releases that passed the suite, the newest last."""
    deprecated: Deprecation | None = None
    """That the releases of this range should not be used any more."""

    @model_validator(mode="after")
    def _tested_is_in_range(self) -> "ReleaseRange":
        for tested in self.tested:
            if not self.contains(tested.version):
                hint = "Correct the version, or put it into the range that it belongs to."
                raise refusal(f"tested version `{tested.version}` is outside `{self.versions}`", hint, key="tested")
            if self.requirements and not tested.lock:
                hint = f'Add `lock = "locks/{tested.version}.txt"`; `agentforge.environments.relock` writes the file.'
                raise refusal(f"tested version `{tested.version}` has no `lock`", hint, key="tested")
        return self

    def contains(self, version: str) -> bool:
        """Whether a version (pre-releases too) belongs to this range."""
        return SpecifierSet(self.versions).contains(version, prereleases=True)


class Manifest(Traits):
    """What the host knows of a framework. `folder` and `digest` are added by the catalogue."""

    name: Annotated[str, AfterValidator(_name)]
    """What users type: small letters, digits and `-`."""
    title: str
    """Its name as people write it."""
    summary: str
    """One sentence on what it is."""
    distribution: str
    """The package whose version is the release; empty: the release is the interpreter's series (3.11)."""
    homepage: str = ""
    """Address of its site."""
    docs: str = ""
    """Address of its documentation."""
    releases: Annotated[
        tuple[ReleaseRange, ...], Strict(False), AfterValidator(_some), Field(json_schema_extra={"minItems": 1})
    ]
    """The ranges of versions that the adapter covers."""
    folder: Path

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the adapter's code and data (not its locks): what names an adapter version."""
        total = hashlib.sha256()
        for relative in self.adapter_files():
            content = hashlib.sha256((self.folder / relative).read_bytes()).hexdigest()
            total.update(f"{relative}\0{content}\n".encode())
        return total.hexdigest()

    def adapter_files(self) -> tuple[PurePosixPath, ...]:
        """Paths, relative to `folder` and sorted, of the files that the digest covers and a worker gets."""
        return adapter_files(self.folder)
