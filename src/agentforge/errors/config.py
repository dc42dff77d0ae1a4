"""Errors in what a user wrote: `agentforge.toml`, agent files, `AGENTFORGE_*` variables (AF1xx).

Messages begin with the place (`file:line:column` or the name of a variable), then the key and its value; the hint
says what would be right. `details` has the same as data: `file`, `line`, `column`, `key`, and `problems` when a
file has several. Values of secret keys never appear.
"""

from agentforge.errors.tree import AgentForgeError

__all__ = [
    "ConfigError",
    "ConflictingKeysError",
    "FileMissingError",
    "FileSyntaxError",
    "InvalidReferenceError",
    "InvalidValueError",
    "LiteralSecretError",
    "MissingKeyError",
    "MissingVariableError",
    "NotEditableError",
    "OutputSchemaError",
    "SnapshotTooLargeError",
    "ToolSourceError",
    "UnknownKeyError",
    "UnknownModelError",
    "UnknownVariableError",
]


class ConfigError(AgentForgeError):
    """Something that the user wrote can't be used; the root of AF1xx, never raised itself."""

    origin = "user"
    http_status = 422


class FileMissingError(ConfigError):
    """There is no such file, or it can't be read."""

    code = "AF101"
    http_status = 404


class FileSyntaxError(ConfigError):
    """The file is not YAML or TOML."""

    code = "AF102"


class UnknownKeyError(ConfigError):
    """A key that nothing reads, most often a slip of the pen."""

    code = "AF103"


class InvalidValueError(ConfigError):
    """A value of the wrong type or out of range."""

    code = "AF104"


class MissingKeyError(ConfigError):
    """A key that is needed is not there."""

    code = "AF105"


class LiteralSecretError(ConfigError):
    """A key or password stands in the file itself instead of a reference to it."""

    code = "AF106"


class UnknownModelError(ConfigError):
    """No model alias and no provider has this name."""

    code = "AF107"


class MissingVariableError(ConfigError):
    """A `${env:NAME}` reference names a variable that is not set."""

    code = "AF108"


class InvalidReferenceError(ConfigError):
    """A `${...}` that is not a reference AgentForge knows."""

    code = "AF109"


class SnapshotTooLargeError(ConfigError):
    """The agent's folder holds more than an agent version may."""

    code = "AF110"


class OutputSchemaError(ConfigError):
    """`output` is not a JSON Schema."""

    code = "AF111"


class ConflictingKeysError(ConfigError):
    """Keys that exclude each other are both there."""

    code = "AF112"


class UnknownVariableError(ConfigError):
    """An `AGENTFORGE_*` variable that names no setting."""

    code = "AF113"


class ToolSourceError(ConfigError):
    """A tool's file or function is not in the agent's folder."""

    code = "AF114"


class NotEditableError(ConfigError):
    """A file that a command should change is written in a way that it can't, or can't be written."""

    code = "AF115"
    http_status = 409
