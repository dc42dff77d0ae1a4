"""Where the examples are that ship with AgentForge."""

from pathlib import Path

import agentforge

__all__ = ["example_folder"]


def example_folder(name: str) -> Path:
    """Return the folder of an example: inside the installed package, else in the source tree."""
    package = Path(agentforge.__file__).parent
    installed = package / "examples" / name
    return installed if installed.is_dir() else package.parent.parent / "examples" / name
