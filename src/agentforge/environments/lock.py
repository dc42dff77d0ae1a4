"""A lock: names, exact versions and hashes of all packages of an environment, without addresses."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from packaging.markers import Marker
from packaging.utils import canonicalize_name

__all__ = ["Lock", "LockedPackage"]

_PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==(?P<version>[^\s;]+)"
    r"(?:\s*;\s*(?P<marker>.*?))?(?P<hashes>(?:\s+--hash=\S+)*)\s*$"
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """One line of a lock."""

    name: str
    """Normalised: `pydantic-core`."""
    version: str
    marker: str = ""
    hashed: bool = True
    hashes: tuple[str, ...] = ()
    """SHA-256 of the files that may be installed: wheels and source archives, for all platforms."""


@dataclass(frozen=True)
class Lock:
    """The text of a lock in requirements form (hashes on every line) and what it was resolved from."""

    text: str
    requirements: tuple[str, ...] = field(default=(), compare=False)
    python: str = field(default="", compare=False)
    """Range of Python versions it was resolved for; empty: the whole range of its release."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text: the lock's name."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def packages(self) -> tuple[LockedPackage, ...]:
        """All lines, those for other platforms and Pythons too."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return tuple(_package(found) for line in lines if (found := _PIN.match(line)))

    @property
    def is_plain(self) -> bool:
        """Whether it has nothing but packages with hashes: no option, no file, no address."""
        lines = [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]
        return len(lines) == len(self.packages) and all(package.hashes for package in self.packages)

    def packages_for(self, markers: Mapping[str, str]) -> tuple[LockedPackage, ...]:
        """The packages that an interpreter with these marker values gets."""
        values = dict(markers)
        return tuple(p for p in self.packages if not p.marker or Marker(p.marker).evaluate(values))

    def versions_of(self, name: str) -> tuple[str, ...]:
        """Versions that the lock holds of a package: none, one, or one per Python where they fork."""
        wanted = canonicalize_name(name)
        return tuple(p.version for p in self.packages if p.name == wanted)


def _package(found: re.Match[str]) -> LockedPackage:
    name, marker = canonicalize_name(found["name"]), found["marker"] or ""
    hashes = tuple(_HASH.findall(found["hashes"]))
    return LockedPackage(name, found["version"], marker.strip(), bool(found["hashes"]), hashes)
