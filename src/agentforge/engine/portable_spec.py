"""A portable agent as its worker is told of it when the agent is opened."""

from collections.abc import Iterable

from agentforge.engine.execution import Prepared
from agentforge.store import JsonObject
from agentforge.tools import Tool

__all__ = ["portable_spec"]


def portable_spec(prepared: Prepared, tools: Iterable[Tool]) -> JsonObject:
    """Return the `spec` of `agent.open`: see the protocol."""
    file = prepared.definition.file
    return {
        "name": file.name,
        "description": file.description,
        "instructions": file.instructions,
        "role": file.role,
        "goal": file.goal,
        "backstory": file.backstory,
        "model": prepared.upstream.model,
        "settings": dict(prepared.settings),
        "tools": [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters} for tool in tools
        ],
        "output": file.output,
        # The journal refuses the first call too many, on every framework alike; its own limit comes after.
        "max_steps": file.limits.steps + 1 if file.limits.steps else None,
        "framework_settings": dict(prepared.tuning.settings),
    }
