"""What one run may write: its log, its events, its result, and what it asks models, against the limits of its fence.

A run that goes beyond ends as failed; the others in its worker go on. What the host has waiting to be recorded, of all
runs together, is counted here too: while it is much, workers are not read from.
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec

from agentforge.errors.sandbox import OutputExceeded
from agentforge.sandbox import Limits

__all__ = ["Allowance", "Backlog", "size_of"]

_MIB = 1 << 20
_ASKED = 16
"""Requests to models are kept too, each with the whole conversation: they may take so many times `output_mib`."""
_encoder = msgspec.json.Encoder()


class Allowance:
    """Counts what one run writes, over all its attempts on this host."""

    def __init__(self, exceeded: Callable[[OutputExceeded], None], events: int = 0) -> None:
        """`exceeded` is told once the run has written too much; `events` are those recorded before."""
        self._exceeded = exceeded
        self._events = events
        self._bytes = 0
        self._asked = 0
        self.limits = Limits()

    def take(self, size: int) -> bool:
        """Count an event of so many bytes; return whether it may be written."""
        self._events += 1
        self._bytes += size
        return self._check()

    def take_request(self, size: int) -> bool:
        """Count a request to a model; return whether it may be made."""
        self._asked += size
        return self._check()

    def take_result(self, result: Any) -> None:
        """Count what a run ended with. Raises OutputExceeded."""
        self._bytes += size_of(result)
        if (excess := self._excess()) is not None:
            raise excess

    def _check(self) -> bool:
        excess = self._excess()
        if excess is not None:
            self._exceeded(excess)
        return excess is None

    def _excess(self) -> OutputExceeded | None:
        limits = self.limits
        if self._events > limits.events:
            return OutputExceeded(f"the run's events and lines of log are over its limit of {limits.events}")
        if self._bytes > limits.output_mib * _MIB:
            return OutputExceeded(f"the run's log, events and result are over its limit of {limits.output_mib} MiB")
        if self._asked > limits.output_mib * _MIB * _ASKED:
            return OutputExceeded(
                f"the run's requests to models are over {_ASKED} times its limit of {limits.output_mib} MiB of output"
            )
        return None


class Backlog:
    """Bytes of events that all runs of a host have waiting to be recorded."""

    def __init__(self, most: int = 64 * _MIB) -> None:
        self._most = most
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether nothing should be added for now."""
        return self.bytes > self._most


def size_of(value: Any) -> int:
    """Return the bytes that a JSON value takes."""
    try:
        return len(_encoder.encode(value))
    except UnicodeEncodeError:
        return len(json.dumps(value))
