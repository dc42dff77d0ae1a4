"""Runnable examples: folders with an `agent.yaml`, in a framework's own `examples/` and among those that ship.

agent.yaml    the agent; `description` says what it shows
input.txt     what to ask it (without it: nothing)
README.md     more, for people; and whatever code the agent needs
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agentforge.errors.frameworks import ExampleUnknown
from agentforge.frameworks.manifest import Manifest

__all__ = ["Example", "examples_of", "files_of", "find_example", "shipped_examples"]

AGENT = "agent.yaml"
INPUT = "input.txt"
_LEFT_OUT = ("__pycache__", ".agentforge")


@dataclass(frozen=True, slots=True)
class Example:
    """An agent that shows something."""

    name: str
    """Its folder below `examples/`: `expenses`, `native/crewai`."""
    folder: Path
    summary: str
    input: str
    kind: str
    """`native`: of this framework alone; `portable`: runs on others too."""


def shipped_examples() -> Path:
    """Return the folder of the examples that ship: inside the installed package, else in the source tree."""
    import agentforge

    package = Path(agentforge.__file__).parent
    installed = package / "examples"
    return installed if installed.is_dir() else package.parent.parent / "examples"


def examples_of(manifest: Manifest, shipped: Path | None = None) -> list[Example]:
    """Return the examples that run on a framework: its own first, then those for it alone, then portable ones."""
    own = list(_examples(manifest.folder / "examples", manifest.name, own=True))
    names = {each.name for each in own}
    others = _examples(shipped or shipped_examples(), manifest.name, own=False)
    return own + sorted((each for each in others if each.name not in names), key=lambda each: (each.kind, each.name))


def find_example(manifest: Manifest, name: str | None, shipped: Path | None = None) -> Example:
    """Return an example by its name or the last part of it; without a name the first. Raises ExampleUnknown."""
    found = examples_of(manifest, shipped)
    for each in found:
        if name is None or name in (each.name, each.name.rpartition("/")[2]):
            return each
    listed = ", ".join(f"`{each.name}`" for each in found) or "none"
    what = f"no example `{name}`" if name is not None else "no examples"
    raise ExampleUnknown(f"{manifest.title} has {what}; there are {listed}")


def files_of(example: Example) -> dict[str, bytes]:
    """Return an example's files by their paths in it."""
    files = sorted(path for path in example.folder.rglob("*") if path.is_file())
    named = {path.relative_to(example.folder): path for path in files}
    return {
        str(relative): path.read_bytes()
        for relative, path in named.items()
        if not any(part in _LEFT_OUT or part.endswith(".pyc") for part in relative.parts)
    }


def _examples(place: Path, framework: str, *, own: bool) -> Iterator[Example]:
    for file in sorted(place.rglob(AGENT)):
        folder = file.parent
        agent = _read(file)
        kind = _kind(agent, framework)
        if kind is None and own:
            kind = "native"
        if kind is not None:
            question = folder / INPUT
            said = question.read_text("utf-8").strip() if question.is_file() else ""
            name = folder.relative_to(place).as_posix()
            yield Example(name, folder, " ".join(str(agent.get("description", "")).split()), said, kind)


def _kind(agent: dict[str, Any], framework: str) -> str | None:
    native = agent.get("native")
    if isinstance(native, dict):
        return "native" if _name(native.get("framework")) == framework else None
    named = agent.get("framework") or "auto"
    names = [_name(each) for each in (named if isinstance(named, list) else [named])]
    return "portable" if framework in names or "auto" in names else None


def _name(reference: Any) -> str:
    return str(reference or "").partition("==")[0].partition("@")[0]


def _read(file: Path) -> dict[str, Any]:
    try:
        agent = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return agent if isinstance(agent, dict) else {}
