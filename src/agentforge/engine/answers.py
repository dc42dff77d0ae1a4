"""What a worker answers with. The wire has checked it: see `workers/schemas.py`."""

from typing import Any

import msgspec

from agentforge.errors import ErrorInfo
from agentforge.workers import Failure, RunAnswer

__all__ = ["Answer", "read_answer", "read_failure"]

Answer = RunAnswer


def read_answer(data: Any) -> Answer:
    """Return a worker's result."""
    return msgspec.convert(data, Answer)


def read_failure(data: Any) -> ErrorInfo:
    """Return a worker's error object."""
    failure = msgspec.convert(data, Failure)
    return ErrorInfo(failure.code, failure.message, failure.hint, failure.origin, failure.details)
