"""The agent's answer against its output schema."""

import json
from collections.abc import Mapping
from typing import Any

from agentforge.engine.conforming import mismatch_of_output
from agentforge.errors.runs import OutputMismatch
from agentforge.workers import check_depth

__all__ = ["checked_output"]


async def checked_output(output: Any, schema: Mapping[str, Any] | None) -> Any:
    """Return the answer; with a schema as the JSON value it describes. Raises OutputMismatch."""
    if schema is None:
        return output
    value = output
    if isinstance(output, str) and schema.get("type") != "string":
        try:
            value = json.loads(output, parse_constant=_refuse)
            check_depth(value)
        except (ValueError, RecursionError):
            raise OutputMismatch(f"the answer is not JSON: `{output[:200]}`", output=output) from None
    found = await mismatch_of_output(schema, value)
    if found is None:
        return value
    if found.wrong:
        raise OutputMismatch(f"the answer can't be held against `output`: {found.wrong}", output=value)
    raise OutputMismatch(f"the answer does not match `output` at `{found.path}`: {found.message}", output=value)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
