"""What differs between two environments: packages added, removed and changed, and the Python."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentforge.engine import Engine
from agentforge.engine.provision import Provisioned
from agentforge.environments import Interpreter, Lock, LockEntry
from agentforge.errors.environments import EnvironmentUnknown, GenerationUnknown, RequestUnknown
from agentforge.errors.frameworks import ReferenceInvalid

__all__ = ["Side", "compared", "package_changes", "packages_in", "side_of"]

_NOWHERE = Path("/")


@dataclass(frozen=True, slots=True)
class Side:
    """One of two environments that are compared; it need not be built."""

    name: str
    """As it was asked for."""
    environment: str
    """Id that it has, or would have."""
    framework: str | None
    release: str | None
    python: str
    """Exact version of its interpreter."""
    lock: Lock

    @property
    def packages(self) -> dict[str, str]:
        """What is installed in it, by name."""
        return packages_in(self.lock, self.python)

    def to_json(self) -> dict[str, Any]:
        """Return it as reports show it."""
        return {
            "name": self.name,
            "environment": self.environment,
            "framework": self.framework,
            "release": self.release,
            "python": self.python,
            "lock": self.lock.digest,
        }


def packages_in(lock: Lock, python: str) -> dict[str, str]:
    """Return the versions that a lock gives to an interpreter of this version, on this machine."""
    markers = Interpreter(_NOWHERE, python).markers
    return {each.name: each.version for each in lock.packages_for(markers)}


def package_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the packages that differ, by name: `{"name", "change", "before", "after"}`."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            change = "added" if old is None else "removed" if new is None else "changed"
            found.append({"name": name, "change": change, "before": old, "after": new})
    return found


def compared(before: Side, after: Side) -> dict[str, Any]:
    """Return how two environments differ."""
    packages = package_changes(before.packages, after.packages)
    same_python = before.python == after.python
    return {
        "before": before.to_json(),
        "after": after.to_json(),
        "same": same_python and not packages and before.lock == after.lock,
        "python": None if same_python else {"before": before.python, "after": after.python},
        "packages": packages,
        "unchanged": len(set(before.packages.items()) & set(after.packages.items())),
    }


async def side_of(engine: Engine, name: str) -> Side:
    """Return what `name` means: an environment's id, `REQUEST#GENERATION`, or a reference as this project has it.

    Nothing is pinned or built. Raises EnvironmentUnknown, RequestUnknown, GenerationUnknown, AF2xx, AF3xx.
    """
    known = {each.id: each for each in await asyncio.to_thread(engine.environments.list)}
    if name in known:
        found = known[name]
        text = await asyncio.to_thread((found.path / "lock.txt").read_text, "utf-8")
        return Side(name, found.id, found.framework, found.release, found.python_version, Lock(text))
    request, numbered, number = name.rpartition("#")
    if numbered:
        return _side(engine, name, engine.provision.generation(await _generation(engine, request, number)))
    return _side(engine, name, await _meant(engine, name, known))


async def _meant(engine: Engine, reference: str, known: Mapping[str, object]) -> Provisioned:
    """Return what a reference means here: the active generation, else what it would be resolved to."""
    pins = await engine.provision.pins()
    entry = next((each for each in pins if each.active and each.request == reference and each.release), None)
    if entry is not None:
        return engine.provision.generation(entry)
    try:
        release = engine.catalogue.resolve(reference)
    except ReferenceInvalid:
        raise EnvironmentUnknown(f"There is no environment `{reference}`, and it is no reference either") from None
    blank = LockEntry(reference, release.framework.name, release.version, release.python, "")
    return await engine.provision.candidate(blank, release, refresh=False, as_of_now=False)


async def _generation(engine: Engine, request: str, number: str) -> LockEntry:
    entries = [each for each in await engine.provision.pins() if each.request == request and each.release]
    if not entries:
        raise RequestUnknown(f"`agentforge.lock` has no request `{request}`")
    found = next((each for each in entries if str(each.generation) == number), None)
    if found is None:
        there = ", ".join(str(each.generation) for each in entries)
        raise GenerationUnknown(f"`{request}` has no generation `{number}`; it has {there}")
    return found


def _side(engine: Engine, name: str, found: Provisioned) -> Side:
    environments = engine.environments
    python = environments.interpreters.find(found.request.python).version
    release = found.release
    return Side(name, environments.identify(found.request), release.framework.name, release.version, python, found.lock)
