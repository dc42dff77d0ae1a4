"""Where the examples are that ship with AgentForge."""

from pathlib import Path

__all__ = ["example_folder"]


def example_folder(name: str) -> Path:
    """Return the folder of an example."""
    from agentforge.frameworks.examples import shipped_examples  # slow to import, and `--help` needs it not

    return shipped_examples() / name
