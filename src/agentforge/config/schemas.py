"""JSON Schemas of agent files and `agentforge.toml`, for editors: `python -m agentforge.config.schemas FOLDER`."""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agentforge.config.agent_file import AgentFile
from agentforge.config.project_file import ProjectConfig

__all__ = ["DIALECT", "agent_schema", "main", "project_schema", "schema_of", "write"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def agent_schema() -> dict[str, Any]:
    """Return the schema of agent files."""
    schema = schema_of(AgentFile, "AgentForge agent file")
    forbidden = [{"required": [key]} for key in AgentFile.portable_keys()]
    schema["$defs"]["Tool"]["oneOf"] = [
        {"required": ["python"], "not": {"anyOf": [{"required": ["code"]}, {"required": ["name"]}]}},
        {"required": ["code"], "not": {"required": ["python"]}},
    ]
    return schema | {
        "oneOf": [
            {"required": ["instructions"], "not": {"required": ["native"]}},
            {"required": ["native"], "not": {"anyOf": forbidden}},
        ]
    }


def project_schema() -> dict[str, Any]:
    """Return the schema of `agentforge.toml`."""
    return schema_of(ProjectConfig, "AgentForge project (agentforge.toml)")


def write(folder: Path) -> None:
    """Write both schemas into a folder."""
    for name, schema in (("agent", agent_schema()), ("project", project_schema())):
        text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        (folder / f"{name}.schema.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Write the schemas into the folder that is named on the command line."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m agentforge.config.schemas FOLDER")
    write(Path(sys.argv[1]))


def schema_of(model: type[BaseModel], title: str) -> dict[str, Any]:
    """Return the JSON Schema of what a user writes, as it is published."""
    schema = _plain(model.model_json_schema())
    return {"$schema": DIALECT, "title": title, **schema}


def _plain(value: Any, names: bool = False) -> Any:
    """Leave out what says nothing: made-up titles, and `null` as a default (a key is left out instead).

    `names` is True inside `properties` and `$defs`, where keys are the user's names and not keywords.
    """
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {
        key: _plain(each, not names and key in ("properties", "$defs"))
        for key, each in value.items()
        if names or not (key == "title" or (key == "default" and each is None))
    }
    choices = kept.get("anyOf")
    if names or not isinstance(choices, list) or {"type": "null"} not in choices:
        return kept
    choices = [each for each in choices if each != {"type": "null"}]
    del kept["anyOf"]
    return {**choices[0], **kept} if len(choices) == 1 else {**kept, "anyOf": choices}


if __name__ == "__main__":
    main()
