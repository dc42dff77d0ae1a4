"""A framework as data: what its `framework.toml` says. Nothing of the framework or its adapter is imported here."""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

__all__ = ["MANIFEST_FILE", "Capability", "Level", "Manifest", "ReleaseRange", "TestedRelease"]

MANIFEST_FILE = "framework.toml"

Level = Literal["full", "partial", "todo", "absent"]
"""How much of a capability works: `todo` is ours to do, `absent` the framework does not have it."""

# What a worker is never handed: locks are for the host, the rest is for readers.
_NOT_ADAPTER = frozenset({"locks", "samples", "examples", "tests", "__pycache__", "README.md"})


def _specifiers(value: str) -> str:
    try:
        SpecifierSet(value)
    except InvalidSpecifier as error:
        raise ValueError(f"not a version range: {error}") from None
    return value


def _version(value: str) -> str:
    try:
        Version(value)
    except InvalidVersion as error:
        raise ValueError(f"not a version: {error}") from None
    return value


def _requirement(value: str) -> str:
    try:
        Requirement(value.format(version="1"))
    except (InvalidRequirement, KeyError, IndexError, ValueError) as error:
        raise ValueError(f"not a requirement line: {error}") from None
    return value


def _entry(value: str) -> str:
    module, _, attribute = value.partition(":")
    if not (module.isidentifier() and attribute.isidentifier()):
        raise ValueError("not `module:ClassName`")
    return value


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("not a path inside the manifest's folder")
    return value


Specifiers = Annotated[str, AfterValidator(_specifiers)]
VersionText = Annotated[str, AfterValidator(_version)]
RequirementLine = Annotated[str, AfterValidator(_requirement)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Capability(_Table):
    """One thing that agents on this framework can do here, how far, and why not further."""

    level: Level
    note: str = ""
    since: str = ""
    """First release of the framework that has it; empty: all that we know."""


class TestedRelease(_Table):
    """A release that ships a lock which passed the adapter's tests."""

    __test__ = False  # not a pytest class

    version: VersionText
    as_of: datetime
    """The lock holds nothing that was uploaded after this moment."""
    lock: Annotated[str, AfterValidator(_inside)] = ""
    """File inside the manifest's folder; empty only where there is nothing to install."""


class ReleaseRange(_Table):
    """A range of versions that one adapter class serves with one set of requirement lines."""

    versions: Specifiers
    python: Specifiers
    requirements: tuple[RequirementLine, ...] = Field(default=(), strict=False)
    """Requirement lines; `{version}` stands for the release."""
    adapter: Annotated[str, AfterValidator(_entry)]
    distribution: str | None = None
    """Where this range's package has another name than the manifest's `distribution`."""
    capabilities: Mapping[str, Capability] = Field(default_factory=dict)
    """Overrides of the framework's capabilities for this range."""
    tested: tuple[TestedRelease, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _tested_is_in_range(self) -> "ReleaseRange":
        for tested in self.tested:
            if not self.contains(tested.version):
                raise ValueError(f"tested version `{tested.version}` is outside `{self.versions}`")
            if self.requirements and not tested.lock:
                raise ValueError(f"tested version `{tested.version}` has no `lock`")
        return self

    def contains(self, version: str) -> bool:
        """Whether a version (pre-releases too) belongs to this range."""
        return SpecifierSet(self.versions).contains(version, prereleases=True)


class Manifest(_Table):
    """What the host knows of a framework. `folder` and `digest` are added by the catalogue."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    title: str
    summary: str
    distribution: str
    """The package whose version is the release; empty: the release is the interpreter's series (3.11)."""
    homepage: str = ""
    docs: str = ""
    telemetry: Mapping[str, str] = Field(default_factory=dict)
    """Environment variables of a worker that switch the framework's own reporting off."""
    env: Mapping[str, str] = Field(default_factory=dict)
    """Other environment variables of a worker."""
    capabilities: Mapping[str, Capability] = Field(default_factory=dict)
    settings: Mapping[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    """JSON Schema of the framework's own settings (`framework_settings` of an agent)."""
    model_settings: tuple[str, ...] = Field(default=(), strict=False)
    """Portable model settings (temperature, ...) that reach the wire."""
    varies: tuple[str, ...] = Field(default=(), strict=False)
    """JSON paths in a model request that differ from one execution to the next."""
    fork: Literal["after-import", "after-run", "never"] = "never"
    concurrency: int = Field(default=0, ge=0)
    """Most runs at once in one worker; 0: no limit of its own."""
    releases: tuple[ReleaseRange, ...] = Field(strict=False, min_length=1)
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
        return tuple(sorted(_adapter_files(self.folder, PurePosixPath())))

    def capability(self, name: str) -> Capability:
        """Return a capability; one that the manifest does not name is `absent`."""
        return self.capabilities.get(name, Capability(level="absent"))


def _adapter_files(folder: Path, below: PurePosixPath) -> Iterator[PurePosixPath]:
    for entry in folder.iterdir():
        if entry.name in _NOT_ADAPTER or entry.name.startswith(".") or entry.suffix in {".pyc", ".pyo"}:
            continue
        if entry.is_dir():
            yield from _adapter_files(entry, below / entry.name)
        else:
            yield below / entry.name
