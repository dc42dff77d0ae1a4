"""`AGENTFORGE_<SECTION>_<KEY>` variables that override `agentforge.toml`, for example `AGENTFORGE_SANDBOX_LEVEL`.

Models are `AGENTFORGE_MODELS_<ALIAS>_<KEY>`; an alias that no file has is made, in lower case with `_`. Frameworks
are `AGENTFORGE_FRAMEWORKS_<NAME>_<KEY>`, with `_` for the `-` of a name. Lists are
JSON arrays or one item a line, tables (`settings`, `[queue] agents`) are JSON objects. Variables of other shapes
(`AGENTFORGE_HOME`, `AGENTFORGE_HOST`, `AGENTFORGE_MODEL`, ...) belong to other parts and are left alone.
"""

import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from agentforge.config.framework_config import FrameworkConfig
from agentforge.config.project_file import ModelConfig, ProjectConfig
from agentforge.config.providers import OVERRIDE_PREFIX as PREFIX
from agentforge.config.source import KeyPath, Source, did_you_mean
from agentforge.errors.config import UnknownVariableError

__all__ = ["overridden", "variable_names"]

_NAMED: dict[str, type[BaseModel]] = {"models": ModelConfig, "frameworks": FrameworkConfig}
"""Sections whose tables have names of the user's."""


def overridden(source: Source, environ: Mapping[str, str]) -> Source:
    """Return the source with the variables' values in place of the file's. Raises UnknownVariableError."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in source.data.items()}
    overrides: dict[KeyPath, str] = {}
    for name, text in sorted(environ.items()):
        path = _path(name, source)
        if path is None:
            continue
        group: Any = data
        for part in path[:-1]:
            group[part] = dict(group[part]) if isinstance(group.get(part), dict) else {}
            group = group[part]
        group[path[-1]] = _value(_annotation(path), text)
        overrides[path] = name
    return replace(source, data=data, overrides=overrides)


def variable_names(config: ProjectConfig) -> set[str]:
    """Return the name of every variable that overrides a setting of this project."""
    names = {f"{PREFIX}{section}_{key}".upper() for section, model in _sections() for key in model.model_fields}
    return names | {
        _variable(section, name, key)
        for section, model in _NAMED.items()
        for name in getattr(config, section)
        for key in model.model_fields
    }


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in ProjectConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def _variable(section: str, name: str, key: str) -> str:
    return f"{PREFIX}{section}_{_plain(name)}_{key}".upper()


def _plain(alias: str) -> str:
    return alias.replace("-", "_").replace(".", "_").lower()


def _path(name: str, source: Source) -> KeyPath | None:
    """Return the setting that a variable names, None if it is none of ours."""
    rest = name.removeprefix(PREFIX).lower()
    if not name.startswith(PREFIX):
        return None
    for section in _NAMED:
        if rest.startswith(f"{section}_"):
            return _named_path(name, section, rest.removeprefix(f"{section}_"), source)
    for section, model in _sections():
        key = rest.removeprefix(f"{section}_")
        if key == rest:
            continue
        if key not in model.model_fields:
            raise _unknown(name, [f"{PREFIX}{section}_{each}".upper() for each in model.model_fields])
        return (section, key)
    return None


def _named_path(name: str, section: str, rest: str, source: Source) -> KeyPath:
    model = _NAMED[section]
    for key in sorted(model.model_fields, key=len, reverse=True):
        written = rest.removesuffix(f"_{key}")
        if written and written != rest:
            tables = source.data.get(section)
            known = {_plain(each): each for each in tables} if isinstance(tables, dict) else {}
            made = written if section == "models" else written.replace("_", "-")
            return (section, known.get(written, made), key)
    raise _unknown(
        name, [_variable(section, "default" if section == "models" else "NAME", k) for k in model.model_fields]
    )


def _unknown(name: str, known: list[str]) -> UnknownVariableError:
    return UnknownVariableError(
        f"the environment variable `{name}` names no setting", hint=did_you_mean(name, known), variable=name
    )


def _annotation(path: KeyPath) -> Any:
    section = str(path[0])
    model = _NAMED[section] if section in _NAMED else dict(_sections())[section]
    return model.model_fields[str(path[-1])].annotation


def _value(annotation: Any, text: str) -> object:
    """Return a variable's text as the setting's type; text that does not fit stays text and is refused later."""
    allowed = set(_alternatives(annotation))
    try:
        if int in allowed:
            return int(text)
        if float in allowed:
            return float(text)
        if text.lstrip().startswith(("[", "{")) and str not in allowed:
            return json.loads(text)
    except ValueError:
        return text
    is_list = tuple in allowed
    return [line.strip() for line in text.splitlines() if line.strip()] if is_list else text


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the types that a value may have, without what constrains them: `Annotated[int, ...] | None` is int or None.

    Of a list or table that is `tuple` or `dict`, whatever is in it.
    """
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _alternatives(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for each in typing.get_args(annotation):
            yield from _alternatives(each)
    else:
        yield origin or annotation
