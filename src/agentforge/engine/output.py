"""The agent's answer against its output schema."""

import json
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from agentforge.errors.runs import OutputMismatch

__all__ = ["checked_output"]


def checked_output(output: Any, schema: Mapping[str, Any] | None) -> Any:
    """Return the answer; with a schema as the JSON value it describes. Raises OutputMismatch."""
    if schema is None:
        return output
    value = output
    if isinstance(output, str) and schema.get("type") != "string":
        try:
            value = json.loads(output)
        except ValueError:
            raise OutputMismatch(f"the answer is not JSON: `{output[:200]}`", output=output) from None
    error = next(iter(Draft202012Validator(dict(schema)).iter_errors(value)), None)
    if error is not None:
        raise OutputMismatch(
            f"the answer does not match `output` at `{error.json_path}`: {error.message}", output=value
        )
    return value
