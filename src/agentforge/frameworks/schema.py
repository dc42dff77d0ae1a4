"""The JSON Schema of `framework.toml`, for editors and for who makes manifests by program."""

from typing import Any

from agentforge.config.schemas import DIALECT, schema_of
from agentforge.frameworks.manifest import Manifest

__all__ = ["manifest_schema"]

_OURS = "folder"
"""What the catalogue adds: no key of the file."""


def manifest_schema() -> dict[str, Any]:
    """Return the schema of manifests."""
    schema = schema_of(Manifest, "AgentForge framework (framework.toml)")
    del schema["properties"][_OURS]
    schema["required"].remove(_OURS)
    for group in (schema, schema["$defs"]["ReleaseRange"]):
        group["properties"]["settings"]["$ref"] = DIALECT
    return schema
