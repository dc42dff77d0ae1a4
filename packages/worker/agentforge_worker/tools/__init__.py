"""Python tools: load a function, describe it to a model, call it with a model's arguments.

Used by the tool worker in the project's tool environment. Standard library only, Python 3.8 syntax.
"""

from .call import ToolContext, bind, call, describe
from .errors import (
    ArgumentsError,
    FileNotThereError,
    FunctionNotThereError,
    ImportFailedError,
    NotCallableError,
    ResultError,
    SignatureError,
    ToolError,
)
from .load import load_function
from .result import to_json

__all__ = [
    "ArgumentsError",
    "FileNotThereError",
    "FunctionNotThereError",
    "ImportFailedError",
    "NotCallableError",
    "ResultError",
    "SignatureError",
    "ToolContext",
    "ToolError",
    "bind",
    "call",
    "describe",
    "load_function",
    "to_json",
]
