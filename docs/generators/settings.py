"""The reference of what users write: `agentforge.toml`, agent files, manifests. Out of their pydantic models."""

import inspect
import json
from typing import Any, cast

from pydantic import BaseModel

from agentforge.config.agent_file import AgentFile, Limits, Native, Permissions, Tool
from agentforge.config.framework_config import Deprecation, DeprecationPolicy, FrameworkConfig
from agentforge.config.project_file import ModelConfig, ProjectConfig
from agentforge.config.settings import ModelSettings
from agentforge.frameworks import Capability, Manifest, ReleaseRange, TestedRelease
from agentforge.frameworks.schema import manifest_schema
from generators.markdown import table

__all__ = ["agent", "framework_schema", "framework_toml", "project"]


def project() -> str:
    """Every setting of `agentforge.toml`."""
    parts = []
    for name, field in ProjectConfig.model_fields.items():
        heading, prefix = f"## `[{name}]`", f"AGENTFORGE_{name}_"
        model = cast("type[BaseModel]", field.annotation)
        if name == "models":
            heading, prefix, model = "## `[models.ALIAS]`", "AGENTFORGE_MODELS_ALIAS_", ModelConfig
        elif name == "frameworks":
            heading, prefix, model = "## `[frameworks.NAME]`", "AGENTFORGE_FRAMEWORKS_NAME_", FrameworkConfig
        parts += [heading, field.description or "", _fields(model, prefix)]
        if name == "catalogue":
            parts += [
                "## `[[catalogue.deprecated]]`",
                inspect.getdoc(DeprecationPolicy) or "",
                _fields(DeprecationPolicy),
            ]
    return "\n\n".join(parts)


def agent() -> str:
    """Every key of an agent file."""
    sections: list[tuple[str, type[BaseModel]]] = [
        ("## The file", AgentFile),
        ("## `settings`", ModelSettings),
        ("## `tools[]`", Tool),
        ("## `permissions`", Permissions),
        ("## `limits`", Limits),
        ("## `native`", Native),
    ]
    return "\n\n".join(f"{heading}\n\n{inspect.getdoc(model)}\n\n{_fields(model)}" for heading, model in sections)


def framework_toml() -> str:
    """Every key of a framework's manifest."""
    sections: list[tuple[str, type[BaseModel]]] = [
        ("## The file", Manifest),
        ("## `[[releases]]`", ReleaseRange),
        ("## `tested`", TestedRelease),
        ("## `deprecated`", Deprecation),
        ("## `[capabilities.NAME]`", Capability),
    ]
    parts = []
    for heading, model in sections:
        rows = [
            (f"`{key}`", _type(model, key), _default(field), field.description or "")
            for key, field in model.model_fields.items()
            if key != "folder"
        ]
        parts += [heading, table(("key", "type", "default", "what it says"), rows)]
    return "\n\n".join(parts)


def framework_schema() -> str:
    """The JSON Schema of manifests."""
    return json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n"


def _fields(model: type[BaseModel], variable_prefix: str = "") -> str:
    rows = [
        [f"`{key}`", _type(model, key), _default(field), field.description or ""]
        + ([f"`{variable_prefix}{key}`".upper()] if variable_prefix else [])
        for key, field in model.model_fields.items()
    ]
    heads = ["key", "type", "default", "what it says"]
    return table([*heads, "variable"] if variable_prefix else heads, rows)


def _type(model: type[BaseModel], key: str) -> str:
    schema = model.model_json_schema()["properties"][key]
    return _schema_type(schema)


def _schema_type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        kinds = [_schema_type(each) for each in schema["anyOf"] if each != {"type": "null"}]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in schema or "allOf" in schema:
        return "table"
    if schema.get("type") == "array":
        return f"list of {_schema_type(schema.get('items', {}))}"
    names = {"object": "table", "string": "text", "integer": "whole number", "boolean": "true, false"}
    kind = str(schema.get("type", "any value"))
    return names.get(kind, kind)


def _default(field: Any) -> str:
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True)
    if default is None or default in ((), "", {}) or isinstance(default, BaseModel | dict):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
