"""What can be wrong with a tool's code, its arguments or its result."""

from typing import List

__all__ = [
    "ArgumentsError",
    "FileNotThereError",
    "FunctionNotThereError",
    "ImportFailedError",
    "NotCallableError",
    "ResultError",
    "SignatureError",
    "ToolError",
]


class ToolError(Exception):
    """A tool can't be used as it is written or as it was called. The text says what to change."""


class FileNotThereError(ToolError):
    """The tool's file is not in the agent's folder."""


class FunctionNotThereError(ToolError):
    """The tool's file has no such function."""


class ImportFailedError(ToolError):
    """Importing the tool's file raised; the exception is the cause."""


class NotCallableError(ToolError):
    """The name means something that is not a function."""


class SignatureError(ToolError):
    """The function's parameters can't be described to a model."""


class ArgumentsError(ToolError):
    """The arguments don't fit the function. The text may be told to the model, which can correct them."""

    def __init__(self, problems: List[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class ResultError(ToolError):
    """What the function returned is not a JSON value and can't be turned into one."""
