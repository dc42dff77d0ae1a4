"""The agents of a project: the agent files below its folder, and what each of them runs on."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from agentforge.config.framework_config import DeprecationPolicy
from agentforge.environments import LOCK_FILE, ProjectLock
from agentforge.errors import AgentForgeError
from agentforge.errors.environments import ProjectLockInvalid
from agentforge.frameworks import Catalogue, Deprecated, Release, deprecation_of

__all__ = ["AgentUse", "agents_of", "deprecated_uses", "pinned_releases", "releases_of"]

_LEFT_OUT = ("__pycache__", "node_modules", "venv")
_MOST_FILES = 2000
_MOST_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class AgentUse:
    """An agent file and a framework that it names."""

    agent: str
    path: Path
    reference: str

    def shown(self, root: Path) -> str:
        """Return its path relative to the project."""
        return os.path.relpath(self.path, root)


def agents_of(root: Path) -> list[AgentUse]:
    """Return what the agent files below a folder name, one entry for each framework; files that are none are passed."""
    found = []
    for count, path in enumerate(_files(root)):
        if count >= _MOST_FILES:
            break
        found += list(_uses(path))
    return found


def releases_of(use: AgentUse, catalogue: Catalogue, pinned: dict[str, str]) -> Iterator[Release]:
    """Yield the release that an agent file means, by what the project has pinned; none if there is no such one."""
    try:
        yield catalogue.resolve(use.reference, pinned.get(use.reference))
    except AgentForgeError:
        return


def pinned_releases(root: Path) -> dict[str, str]:
    """Return which release each request means by the project's lock; nothing of a lock that can't be used."""
    try:
        entries = ProjectLock.load(root / LOCK_FILE).entries
    except ProjectLockInvalid:
        return {}
    return {each.request: each.release for each in entries if each.active}


def deprecated_uses(
    uses: Iterable[AgentUse], catalogue: Catalogue, root: Path, policies: Iterable[DeprecationPolicy], day: date
) -> Iterator[tuple[AgentUse, Release, Deprecated]]:
    """Yield which of some agents name a release whose use is warned of or refused on a day."""
    pinned, policies = pinned_releases(root), tuple(policies)
    for use in uses:
        for release in releases_of(use, catalogue, pinned):
            said = deprecation_of(release, policies)
            if said is not None and said.state(day) != "announced":
                yield use, release, said


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(each for each in folders if not (each.startswith(".") or each in _LEFT_OUT))
        yield from (Path(folder) / name for name in sorted(names) if name.endswith((".yaml", ".yml")))


def _uses(path: Path) -> Iterator[AgentUse]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return
        agent: Any = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return
    if not (isinstance(agent, dict) and isinstance(agent.get("name"), str)):
        return
    native = agent.get("native")
    named = native.get("framework") if isinstance(native, dict) else agent.get("framework")
    if not (isinstance(native, dict) or "instructions" in agent):
        return
    references: Iterable[Any] = named if isinstance(named, list) else [named]
    yield from (AgentUse(agent["name"], path, each) for each in references if isinstance(each, str) and each != "auto")
