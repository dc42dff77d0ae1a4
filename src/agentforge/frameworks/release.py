"""One exact release of a framework, and the references that name one (`langchain@1`, `crewai==1.15.30`)."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from packaging.version import InvalidVersion, Version

from agentforge.config.framework_config import Deprecation
from agentforge.errors.frameworks import ReferenceInvalid
from agentforge.frameworks.manifest import Manifest, Traits

__all__ = ["Reference", "Release", "is_release"]

_REFERENCE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*?)(?:@(?P<series>[^@=]+)|==(?P<version>[^@=]+))?")
_SERIES = re.compile(r"\d+(\.\d+)*")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a user typed: a name with at most one of a series and an exact version."""

    name: str
    series: str | None = None
    version: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read `name`, `name@series` or `name==version`. Raises ReferenceInvalid."""
        found = _REFERENCE.fullmatch(text.strip())
        if found is None:
            raise ReferenceInvalid(f"`{text}` is not a reference to a framework")
        name, series, version = found["name"], found["series"], found["version"]
        if series is not None and not _SERIES.fullmatch(series):
            raise ReferenceInvalid(f"`{series}` in `{text}` is not a series (numbers with dots)")
        if version is not None:
            version = _canonical(version, text)
        return cls(name, series, version)

    def admits(self, version: str) -> bool:
        """Whether a version is what this reference asks for; a series is a prefix by components."""
        if self.version is not None:
            return Version(version) == Version(self.version)
        return self.series is None or in_series(version, self.series)

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}=={self.version}"
        return self.name if self.series is None else f"{self.name}@{self.series}"


def in_series(version: str, series: str) -> bool:
    """Whether a version starts with the components of a series (`0.1` holds 0.1.32, not 0.150.0)."""
    wanted = tuple(int(part) for part in series.split("."))
    # Missing components are zeros: release `1` is in series `1.0`.
    had = Version(version).release + (0,) * len(wanted)
    return had[: len(wanted)] == wanted


def is_release(found: str, wanted: str, distribution: str) -> bool:
    """Whether a version found in an environment is the release that was wanted.

    A release without a distribution is an interpreter series: 3.11.7 is release 3.11. Spelling does not count:
    1.4 is 1.4.0. A found version that is none is not the release.
    """
    try:
        return Version(found) == Version(wanted) if distribution else in_series(found, wanted)
    except InvalidVersion:
        return False


def _canonical(version: str, text: str) -> str:
    try:
        Version(version)
    except InvalidVersion:
        raise ReferenceInvalid(f"`{version}` in `{text}` is not a version") from None
    return version.strip()


@dataclass(frozen=True, slots=True)
class Release:
    """One exact version of a framework with all that is needed to build an environment for it."""

    framework: Manifest
    version: str
    requirements: tuple[str, ...]
    """Requirement lines with the version filled in; empty: nothing to install."""
    python: str
    """Range of Python versions, for example `>=3.10,<3.14`."""
    adapter_module: str
    adapter_class: str
    distribution: str
    """The package whose installed version must equal `version`; empty: the interpreter's own version."""
    lock_path: Path | None = None
    """The shipped lock; None for an untested release and where there is nothing to install."""
    as_of: datetime | None = None
    """Moment of the shipped lock; None for an untested release."""
    sample: str = "samples/native.py"
    """The native program that its adapter is compared with, inside the manifest's folder."""
    deprecated: Deprecation | None = None
    """What its adapter says of its end."""
    traits: Traits = field(default_factory=Traits)
    """How it behaves in a worker: what the framework says, and what its range of releases says otherwise."""

    @property
    def reference(self) -> str:
        """This release as a user would type it: `langchain==1.4.7`."""
        return f"{self.framework.name}=={self.version}"

    @property
    def tested(self) -> bool:
        """Whether this release passed the adapter's tests and ships its lock."""
        return self.as_of is not None

    def is_version(self, found: str) -> bool:
        """Whether a version found in an environment is this release (see `is_release`)."""
        return is_release(found, self.version, self.distribution)
