"""AgentForge: one host that runs any agent of any framework, isolated, durable, metered and observed.

`Forge` is the Python client; everything else is reached through it, the command line or the HTTP API.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentforge.api.client import Forge, RunHandle
    from agentforge.api.result import RunEvent, RunResult
    from agentforge.errors import AgentForgeError

__version__ = "0.1.0"
__all__ = ["AgentForgeError", "Forge", "RunEvent", "RunHandle", "RunResult", "__version__"]

_HOMES = {
    "AgentForgeError": "agentforge.errors",
    "Forge": "agentforge.api.client",
    "RunEvent": "agentforge.api.result",
    "RunHandle": "agentforge.api.client",
    "RunResult": "agentforge.api.result",
}

if not TYPE_CHECKING:  # a type checker should go on refusing names that are not there

    def __getattr__(name: str) -> object:
        """Load a public name when it is first used: commands start faster without."""
        if name in _HOMES:
            import importlib

            return getattr(importlib.import_module(_HOMES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
