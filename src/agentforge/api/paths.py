"""Paths of the API that hold what somebody typed."""

from urllib.parse import quote

__all__ = ["framework_path"]


def framework_path(reference: str, below: str = "") -> str:
    """Return the path of a framework, or of something `below` it. Raises ReferenceInvalid."""
    from agentforge.frameworks import Reference  # slow to import

    Reference.parse(reference)
    return f"/v1/frameworks/{quote(reference.strip(), safe='@=')}{below}"
