"""The Pythons of this machine, and the choice of one for an environment."""

import functools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import default_environment
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags, platform_tags
from packaging.version import Version

from agentforge.environments.uv import uv_environment, uv_program
from agentforge.errors.environments import InterpreterMissing

__all__ = ["Interpreter", "Interpreters", "host_interpreter", "python_floor"]

_MINORS = range(6, 40)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python on this machine."""

    path: Path
    version: str
    """Exact: 3.11.7."""

    @property
    def tag(self) -> str:
        """Short form of its series: py311."""
        major, minor = Version(self.version).release[:2]
        return f"py{major}{minor}"

    @property
    def markers(self) -> dict[str, str]:
        """Values of the environment markers that decide which lines of a lock apply."""
        values = {key: str(value) for key, value in default_environment().items()}
        series = ".".join(map(str, Version(self.version).release[:2]))
        values.update(python_version=series, python_full_version=self.version, implementation_version=self.version)
        return values

    @property
    def supported(self) -> Mapping[Tag, int]:
        """Tags of the wheels that it can install on this machine, with their rank: the smallest fits best."""
        return _supported(tuple(Version(self.version).release[:2]))


@functools.cache
def _supported(python: tuple[int, ...]) -> Mapping[Tag, int]:
    nodot = "".join(map(str, python))
    platforms = list(platform_tags())
    tags = [
        *cpython_tags(python, [f"cp{nodot}"], platforms),
        *compatible_tags(python, f"cp{nodot}", platforms),
    ]
    return {tag: rank for rank, tag in enumerate(dict.fromkeys(tags))}


class Interpreters:
    """Finds Pythons. Blocking, at most once a second's work: the list is asked for once and kept."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._installed: list[Interpreter] | None = None

    def find(self, python: str) -> Interpreter:
        """Return the host's own Python where it is in the range, else the newest that is.

        Raises InterpreterMissing.
        """
        specifiers = SpecifierSet(python)
        host = host_interpreter()
        if specifiers.contains(host.version, prereleases=True):
            return host
        fitting = [i for i in self.installed() if specifiers.contains(i.version)]
        if not fitting:
            raise InterpreterMissing(
                f"No Python on this machine is in the range `{python}`; found are {self._listed()}",
                hint=f"Install one, for example with `uv python install {python_floor(python)}`.",
            )
        return max(fitting, key=lambda i: Version(i.version))

    def exists(self, python: str) -> bool:
        """Whether `find` would find one."""
        try:
            self.find(python)
        except InterpreterMissing:
            return False
        return True

    def installed(self) -> list[Interpreter]:
        """Return all CPythons of this machine: those on the path and those that uv manages."""
        if self._installed is None:
            self._installed = self._list()
        return self._installed

    def _list(self) -> list[Interpreter]:
        command = [str(uv_program()), "python", "list", "--only-installed", "--output-format", "json"]
        done = subprocess.run(command, env=uv_environment(self._environ), cwd="/", capture_output=True, check=False)
        if done.returncode != 0:
            return [host_interpreter()]
        found = [
            Interpreter(Path(entry["path"]), entry["version"])
            for entry in json.loads(done.stdout)
            if entry["implementation"] == "cpython" and entry.get("variant", "default") == "default"
        ]
        return [host_interpreter(), *found]

    def _listed(self) -> str:
        versions = sorted({i.version for i in self.installed()}, key=Version, reverse=True)
        return ", ".join(f"`{version}`" for version in versions)


def host_interpreter() -> Interpreter:
    """Return the Python that runs the host: the system's, not the virtualenv around it."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return Interpreter(Path(base), platform.python_version())


def python_floor(python: str) -> str:
    """Return the oldest Python series in a range: `>=3.10,<3.14` gives 3.10."""
    specifiers = SpecifierSet(python)
    series = (f"3.{minor}" for minor in _MINORS)
    return next((s for s in series if specifiers.contains(s) or specifiers.contains(f"{s}.99")), "3.8")
