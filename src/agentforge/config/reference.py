"""References to secrets: `${env:NAME}`, expanded where they are used and never before."""

import re
from collections.abc import Mapping

from agentforge.errors.config import InvalidReferenceError, MissingVariableError

__all__ = ["check_references", "expand", "is_reference", "referenced_names"]

_REFERENCE = re.compile(r"\$\{([^{}]*)\}?")
_ENV = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")


def is_reference(value: str) -> bool:
    """Return whether the whole value is one well-formed reference."""
    found = _REFERENCE.fullmatch(value)
    return bool(found and value.endswith("}") and _ENV.fullmatch(found[1]))


def check_references(value: str) -> str | None:
    """Return what is wrong with the references in a value, or None."""
    for found in _REFERENCE.finditer(value):
        if not is_reference(found[0]):
            return f"`{found[0]}` is not a reference AgentForge knows"
    return None


def referenced_names(value: str) -> set[str]:
    """Return the environment variables that a value refers to."""
    return {found[1].removeprefix("env:") for found in _REFERENCE.finditer(value) if is_reference(found[0])}


def expand(value: str, environ: Mapping[str, str]) -> str:
    """Return the value with every reference replaced.

    Raises MissingVariableError if a variable is not set (or empty), InvalidReferenceError for any other `${...}`.
    """
    wrong = check_references(value)
    if wrong:
        raise InvalidReferenceError(wrong, hint="Write `${env:NAME}` with the name of an environment variable.")

    def replace(found: re.Match[str]) -> str:
        name = found[1].removeprefix("env:")
        if not environ.get(name):
            raise MissingVariableError(
                f"`{found[0]}` refers to the environment variable `{name}`, which is not set",
                hint=f"Set it in the shell that you run `agentforge` from: `export {name}=...`.",
                variable=name,
            )
        return environ[name]

    return _REFERENCE.sub(replace, value)
