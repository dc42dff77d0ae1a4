"""Who needs which environment: the locks of the registered projects and their unfinished runs.

Called by whoever removes something. What can't be read stops it: nothing is removed on a guess.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from agentforge.config import STATE_DIR
from agentforge.environments.environment import Environment
from agentforge.environments.project_lock import LOCK_FILE, TOOLS, LockEntry, ProjectLock
from agentforge.errors import AgentForgeError
from agentforge.errors.keeping import ProjectUnreadable
from agentforge.store import unfinished_specs

__all__ = ["Need", "Needs", "known_needs_of", "needs_of"]


@dataclass(frozen=True, slots=True)
class Need:
    """One environment that a project needs, and for what."""

    project: Path
    by: Literal["lock", "run"]
    name: str
    """The request with its generation (`langchain#2`), or the run's id."""
    framework: str | None
    """None for tools."""
    release: str
    python: str
    """Range of Python versions."""
    lock: str
    """Digest of the lock."""
    text: str = ""
    """The lock itself where the project has it."""

    def is_met_by(self, environment: Environment) -> bool:
        """Whether the environment is the one that is needed, on whichever fitting Python it was built."""
        return (
            environment.lock_digest == self.lock
            and environment.framework == self.framework
            and (environment.release or "") == self.release
            and SpecifierSet(self.python).contains(environment.python_version, prereleases=True)
        )

    @property
    def told(self) -> str:
        """The need in words."""
        what = "its unfinished run" if self.by == "run" else f"its `{LOCK_FILE}`:"
        return f"`{self.project}` ({what} `{self.name}`)"


@dataclass(frozen=True, slots=True)
class Needs:
    """All that some projects need."""

    all: tuple[Need, ...]

    def of(self, environment: Environment) -> list[Need]:
        """Return who needs an environment."""
        return [need for need in self.all if need.is_met_by(environment)]

    @property
    def locks(self) -> set[str]:
        """Digests of the locks that are needed."""
        return {need.lock for need in self.all}

    @property
    def texts(self) -> list[str]:
        """Texts of the locks that projects hold themselves."""
        return [need.text for need in self.all if need.text]


def needs_of(projects: Sequence[Path]) -> Needs:
    """Return what the projects need. Raises ProjectUnreadable."""
    return Needs(tuple(_checked(need) for root in projects for need in (*_locked(root), *_unfinished(root))))


def known_needs_of(projects: Sequence[Path]) -> tuple[Needs, list[ProjectUnreadable]]:
    """Return what those projects need that can be read, and why the others can't be."""
    needs, unreadable = list[Need](), list[ProjectUnreadable]()
    for root in projects:
        try:
            needs += needs_of([root]).all
        except ProjectUnreadable as error:
            unreadable.append(error)
    return Needs(tuple(needs)), unreadable


def _checked(need: Need) -> Need:
    try:
        SpecifierSet(need.python)
    except InvalidSpecifier:
        reason = f"`{need.name}` names `{need.python}`, which is no range of Python versions"
        raise _unreadable(need.project, reason) from None
    return need


def _locked(root: Path) -> Iterator[Need]:
    try:
        entries = ProjectLock.load(root / LOCK_FILE).entries
    except AgentForgeError as error:
        raise _unreadable(root, error.message) from None
    return (_of_entry(root, entry) for entry in entries)


def _of_entry(root: Path, entry: LockEntry) -> Need:
    return Need(
        project=root,
        by="lock",
        name=f"{entry.request}#{entry.generation}",
        framework=None if entry.framework == TOOLS else entry.framework,
        release=entry.release,
        python=entry.pythons,
        lock=entry.lock,
        text=entry.text,
    )


def _unfinished(root: Path) -> Iterator[Need]:
    try:
        found = unfinished_specs(root / STATE_DIR / "state.db")
    except AgentForgeError as error:
        raise _unreadable(root, error.message) from None
    return (_of_run(root, run_id, spec) for run_id, spec in found)


def _of_run(root: Path, run_id: str, spec: dict[str, Any]) -> Need:
    release = str(spec.get("release") or "")
    return Need(root, "run", run_id, spec.get("framework"), release, str(spec.get("python", "")), str(spec.get("lock")))


def _unreadable(root: Path, reason: str) -> ProjectUnreadable:
    return ProjectUnreadable(
        f"What the project `{root}` uses can't be read: {reason}",
        hint=f"Repair it, or take the project off the register: `agentforge env gc --forget {root}`.",
        project=str(root),
    )
