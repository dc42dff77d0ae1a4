"""What a project and an agent set of a framework: packages beside it, its settings, variables of its workers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentforge.config import PROJECT_FILE, AgentDefinition, Project
from agentforge.config.project_file import ProjectConfig
from agentforge.config.requirement import local_package
from agentforge.config.source import KeyPath, Problem, Source, did_you_mean, fault, shown
from agentforge.environments import BOUND
from agentforge.errors.config import InvalidValueError, MissingKeyError, UnknownKeyError
from agentforge.frameworks import Catalogue, Reference, Release
from agentforge.store import JsonObject

__all__ = ["Packages", "Setting", "Tuning", "open_schema", "packages", "settings_given", "tuning", "unknown_frameworks"]

BY_AGENT = "`requirements` of the agent"


@dataclass(frozen=True, slots=True)
class Packages:
    """Additional lines for a framework's environment, as `environments.additions` has them, with absolute paths."""

    lines: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    """Who brought a line: for messages."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What runs of an agent on a framework get of project and agent, fixed when they are submitted."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """The framework's own settings."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of its workers, over those of the framework."""

    def to_json(self) -> JsonObject:
        """Return what is recorded of it; nothing for nothing."""
        found = {"settings": dict(self.settings), "variables": dict(self.variables)}
        return {key: value for key, value in found.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Tuning":
        """Read what `to_json` wrote."""
        return cls(dict(data.get("settings") or {}), dict(data.get("variables") or {}))


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a framework that somebody gave, and where."""

    name: str
    value: Any
    source: Source
    path: KeyPath
    by: str
    """`project` or `agent`."""


def packages(project: Project, definition: AgentDefinition | None, reference: str) -> Packages:
    """Return what project and agent add to the environment of the framework that a reference names.

    Raises ReferenceInvalid, InvalidValueError for a path without a package.
    """
    name = Reference.parse(reference).name
    found: dict[str, str] = {}
    config = project.config.frameworks.get(name)
    if config is not None:
        section = f"`[frameworks.{name}] {{}}` of the project"
        if config.extras:
            found[f"[{','.join(sorted(config.extras))}]"] = section.format("extras")
        _check_paths(project, name, config.requirements)
        found |= {_located(line, project.root): section.format("requirements") for line in config.requirements}
        found |= {f"{BOUND}{pin}": section.format("pins") for pin in config.pins}
    if definition is not None:
        found |= {_located(line, definition.base_dir): BY_AGENT for line in definition.file.requirements}
    return Packages(tuple(sorted(found)), found)


def _located(line: str, base: Path) -> str:
    local = local_package(line)
    return line.strip() if local is None else f"{(base / local.path).resolve()}{local.extras}"


def _check_paths(project: Project, name: str, lines: Iterable[str]) -> None:
    problems = []
    for index, line in enumerate(lines):
        local = local_package(line)
        wrong = local.problem(project.root) if local else ""
        if wrong:
            key = f"frameworks.{name}.requirements[{index}]"
            place = project.source.value_place(("frameworks", name, "requirements", index))
            hint = "Name a folder with a `pyproject.toml`, or a wheel, relative to the project."
            problems.append(Problem(InvalidValueError, place, key, f"`{key}` is `{line}`, but {wrong}", hint))
    if problems:
        raise fault(problems)


def tuning(project: Project, definition: AgentDefinition | None, release: Release, names: Iterable[str] = ()) -> Tuning:
    """Return what is set for an agent on a release; `names` are the frameworks that there are.

    Raises InvalidValueError, UnknownKeyError with the places of all settings that the release does not take.
    """
    config = project.config.frameworks.get(release.framework.name)
    given = list(settings_given(project, definition, release.framework.name, names))
    if given:
        problems = list(_problems(release, given, set(names)))
        if problems:
            raise fault(problems)
    return Tuning({each.name: each.value for each in given}, dict(config.env) if config else {})


def unknown_frameworks(config: ProjectConfig, catalogue: Catalogue) -> Iterator[str]:
    """Yield what to warn of: that agentforge.toml sets something of a framework that there is not."""
    sections: dict[str, Mapping[str, object]] = {
        "frameworks": config.frameworks,
        "limits.frameworks": config.limits.frameworks,
        "queue.frameworks": config.queue.frameworks,
    }
    known = {*catalogue.names(), *(each.name for each in catalogue.broken)}
    for section, given in sections.items():
        for name in sorted(given.keys() - known):
            said = f"`[{section}]` of {PROJECT_FILE} has `{name}`, which is no framework here, so it counts for nothing"
            yield f"{said}. {did_you_mean(name, known)}"


def settings_given(
    project: Project, definition: AgentDefinition | None, framework: str, names: Iterable[str]
) -> Iterator[Setting]:
    """Yield the settings of a framework that are set, the project's first: a later one goes before."""
    config = project.config.frameworks.get(framework)
    for name, value in (config.settings if config else {}).items():
        yield Setting(name, value, project.source, ("frameworks", framework, "settings", name), "project")
    if definition is None:
        return
    root, others = ("framework_settings",), {*names, framework}
    own: dict[str, Any] = {}
    for name, value in definition.file.framework_settings.items():
        if name == framework and isinstance(value, dict):
            own = value
        elif not (name in others and isinstance(value, dict)):
            yield Setting(name, value, definition.source, (*root, name), "agent")
    for name, value in own.items():
        yield Setting(name, value, definition.source, (*root, framework, name), "agent")


def open_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a framework's schema of settings as it counts: what it does not name is refused unless it says so."""
    return {"type": "object", "additionalProperties": False, **schema}


def _problems(release: Release, given: list[Setting], names: set[str]) -> Iterator[Problem]:
    from jsonschema.validators import validator_for  # slow to import, and most agents set nothing

    schema = open_schema(release.traits.settings)
    validator = validator_for(schema)(schema)
    by_name = {each.name: each for each in given}
    known = list(schema.get("properties", {}))
    for error in validator.iter_errors({name: each.value for name, each in by_name.items()}):
        if error.validator == "additionalProperties" and not error.absolute_path:
            unknown = [name for name in by_name if name not in known and name in error.message]
            yield from (_unknown(release, by_name[name], known, names) for name in unknown)
        elif error.absolute_path:
            setting = by_name[str(error.absolute_path[0])]
            path = (*setting.path, *list(error.absolute_path)[1:])
            place, key = setting.source.value_place(path), _key(path)
            about = schema["properties"].get(setting.name, {}).get("description", "")
            statement = (
                f"`{key}` is `{shown(error.instance)}`, which {release.framework.title} does not take: {error.message}"
            )
            yield Problem(InvalidValueError, place, key, statement, about)
        else:
            first = given[-1]
            place, key = first.source.value_place(first.path[:-1]), _key(first.path[:-1])
            yield Problem(MissingKeyError, place, key, f"`{key}`: {error.message}", "")


def _unknown(release: Release, setting: Setting, known: list[str], names: set[str]) -> Problem:
    statement = f"`{setting.name}` is not a setting of {release.framework.title} {release.version}"
    hint = did_you_mean(setting.name, [*known, *(names if isinstance(setting.value, dict) else ())])
    if setting.by == "agent" and len(setting.path) == 2 and not hint.startswith("Did"):
        hint = f"{hint} Settings for another framework go below its name: `OTHER: {{{setting.name}: ...}}`.".strip()
    return Problem(UnknownKeyError, setting.source.key_place(setting.path), _key(setting.path), statement, hint)


def _key(path: KeyPath) -> str:
    return ".".join(map(str, path))
