"""Load an agent: from its file, from its folder, or from a value of the Python API."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from agentforge.config.agent_file import AgentFile, Tool
from agentforge.config.checking import check
from agentforge.config.code import missing_function
from agentforge.config.reading import FileVersion, file_version, missing_file, read_text
from agentforge.config.requirement import local_package
from agentforge.config.source import Problem, Source, fault
from agentforge.config.yaml_source import parse_yaml
from agentforge.errors.config import (
    ConfigError,
    FileMissingError,
    FileSyntaxError,
    InvalidValueError,
    ToolSourceError,
)

__all__ = ["AGENT_FILES", "AgentDefinition", "load_agent", "load_agent_value"]

AGENT_FILES = ("agent.yaml", "agent.yml")
VALUE_SOURCE = "agent"
CACHED_FILES = 256


@dataclass(frozen=True)
class AgentDefinition:
    """An agent as declared, checked. Immutable; two loads of the same text are equal.

    `path` is None for an agent given as a value; `base_dir` is what relative paths start from.
    """

    file: AgentFile
    base_dir: Path
    path: Path | None = None
    source: Source = field(default_factory=lambda: Source(VALUE_SOURCE, {}), repr=False, compare=False)

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.file.name

    @property
    def is_native(self) -> bool:
        """Whether it is the user's own code."""
        return self.file.native is not None

    @property
    def frameworks(self) -> tuple[str, ...]:
        """References of the frameworks that it names; `("auto",)` if it names none."""
        if self.file.native is not None:
            return (self.file.native.framework,)
        return self.file.framework or ("auto",)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The declared tools, in order."""
        return self.file.tools

    @property
    def functions(self) -> tuple[Tool, ...]:
        """Those of the tools that are functions of the agent's own files."""
        return tuple(tool for tool in self.file.tools if tool.python is not None)

    @property
    def settings(self) -> dict[str, Any]:
        """The sampling settings that it sets, as they go over the wire."""
        return self.file.settings.given()

    def spec(self) -> dict[str, Any]:
        """Return what it declares as JSON, defaults filled in: the record of an agent version.

        `AgentFile` reads it again: what a native agent must not declare is left out.
        """
        left_out = set(self.file.portable_keys()) if self.file.native is not None else None
        return self.file.model_dump(mode="json", exclude_none=True, exclude=left_out)

    def place(self, *path: str | int) -> str:
        """Return where a key's value stands, for messages of later layers: `agent.yaml:5:8`."""
        return str(self.source.value_place(path))


def load_agent(path: Path | str) -> AgentDefinition:
    """Return the agent of a file, or of a folder's `agent.yaml`. Raises ConfigError.

    The files and functions of its tools are looked for, but no code is run.
    """
    path = _agent_file(Path(path))
    try:
        version = file_version(path)
    except OSError:
        read_text(path)  # raises with the reason
        raise
    definition = _parsed(str(path), path.absolute(), version)
    _check_files(definition)
    return definition


def load_agent_value(value: Mapping[str, Any], base_dir: Path | str) -> AgentDefinition:
    """Return the agent that a mapping declares: the keys of an agent file. Raises ConfigError."""
    try:
        data = json.loads(json.dumps(dict(value)))
    except (TypeError, ValueError, RecursionError) as error:
        hint = "Use the keys and values of an agent file: text, numbers, lists, dicts."
        raise FileSyntaxError(f"the agent can't be written as JSON: {error}", hint=hint) from None
    source = Source(VALUE_SOURCE, cast("dict[str, Any]", data))
    definition = AgentDefinition(check(AgentFile, source), Path(base_dir).absolute(), None, source)
    _check_files(definition)
    return definition


def _agent_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in AGENT_FILES:
        if (path / name).is_file():
            return path / name
    others = sorted(each.name for each in path.iterdir() if each.suffix in (".yaml", ".yml"))
    if not others:
        raise missing_file(path / AGENT_FILES[0])
    listed = ", ".join(f"`{path / name}`" for name in others[:5])
    raise FileMissingError(f"`{path / AGENT_FILES[0]}` does not exist", hint=f"Name the file: {listed}.")


@lru_cache(maxsize=CACHED_FILES)
def _parsed(shown: str, path: Path, version: FileVersion) -> AgentDefinition:
    """Read an agent file; `version` keeps a file that has changed from being taken out of the cache."""
    source = parse_yaml(read_text(path), shown)
    return AgentDefinition(check(AgentFile, source), path.parent, path, source)


def _check_files(definition: AgentDefinition) -> None:
    """Look for the files that the agent names: its tools' and its local packages'."""
    problems = [*_tool_problems(definition), *_package_problems(definition)]
    if problems:
        raise fault(problems)


def _package_problems(definition: AgentDefinition) -> Iterator[Problem]:
    for index, line in enumerate(definition.file.requirements):
        local = local_package(line)
        wrong = local.problem(definition.base_dir) if local else ""
        if wrong:
            place = definition.source.value_place(("requirements", index))
            statement = f"`requirements[{index}]` is `{line}`, but {wrong}"
            hint = "Name a folder with a `pyproject.toml`, or a wheel, relative to the agent file."
            yield Problem(InvalidValueError, place, f"requirements[{index}]", statement, hint)


def _tool_problems(definition: AgentDefinition) -> Iterator[Problem]:
    for index, tool in enumerate(definition.tools):
        if tool.python is None:
            continue
        where: tuple[str | int, ...] = ("tools", index, "python")
        statement, hint = _tool_problem(definition.base_dir, tool)
        if statement:
            place = definition.source.value_place(where)
            yield Problem(ToolSourceError, place, f"tools[{index}].python", statement, hint)


def _tool_problem(base_dir: Path, tool: Tool) -> tuple[str, str]:
    file = base_dir / tool.file
    if not file.is_file():
        missing: ConfigError = missing_file(file)
        return f"`{tool.python}`: the file `{tool.file}` does not exist in `{base_dir}`", missing.hint
    if not file.resolve().is_relative_to(base_dir.resolve()):
        hint = "Move the file beside the agent file: an agent version holds its own folder only."
        return f"`{tool.python}`: the file `{tool.file}` links to one outside of `{base_dir}`", hint
    wrong = missing_function(file, tool.function)
    return (f"`{tool.python}`: {wrong[0]}", wrong[1]) if wrong else ("", "")
