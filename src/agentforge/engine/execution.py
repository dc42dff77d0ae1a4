"""The state of one run under way, shared by those who serve it: attempt, journal, tools, cancellation."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentforge.config import AgentDefinition, Project
from agentforge.engine.feed import Feed
from agentforge.engine.provision import Provisioned
from agentforge.errors import AgentForgeError, ErrorInfo
from agentforge.frameworks import Release
from agentforge.gateway import Upstream
from agentforge.store import AgentVersion, Run
from agentforge.tools import PythonTools, Tool

__all__ = ["Execution", "Prepared", "Tally"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything about a run that is fixed when it is submitted."""

    reference: str
    """The framework as it was asked for: `langchain`, `langchain@1`."""
    project: Project
    definition: AgentDefinition
    provisioned: Provisioned
    version: AgentVersion
    upstream: Upstream
    settings: Mapping[str, Any]
    """The model alias's settings with the agent's over them."""

    @property
    def release(self) -> Release:
        """The exact release it runs on."""
        return self.provisioned.release


@dataclass
class Tally:
    """What a run has used so far."""

    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    uncounted_calls: int = 0
    """Model calls whose endpoint sent no usage."""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """The contract's list: name, arguments, result or error."""

    def usage(self) -> dict[str, Any]:
        """Return the run's `usage` as the store keeps it."""
        usage: dict[str, Any] = {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "model_calls": self.model_calls,
        }
        if self.uncounted_calls:
            usage["uncounted_calls"] = self.uncounted_calls
        return usage


@dataclass
class Execution:
    """One run while this host executes it."""

    run: Run
    prepared: Prepared
    feed: Feed
    stream: bool
    cancel_requested: asyncio.Event = field(default_factory=asyncio.Event)
    tally: Tally = field(default_factory=Tally)
    warnings: list[str] = field(default_factory=list)
    tools: dict[str, Tool] = field(default_factory=dict)
    toolbox: PythonTools | None = None
    worker_id: str = ""
    token: str = ""
    positions: int = 0
    """Effects so far: the next one's place in the journal."""
    occurrences: dict[str, int] = field(default_factory=dict)
    failure: AgentForgeError | ErrorInfo | None = None
    """Why the run must fail, known before its framework ended."""
    model_failure: AgentForgeError | None = None
    """The last model call's failure; None again after one that succeeded."""
    doomed: asyncio.Event = field(default_factory=asyncio.Event)
    started: float = field(default_factory=time.monotonic)
    turn: asyncio.Lock | None = None
    """Of its thread: one run at a time."""
    has_turn: bool = False
    retries: Counter[str] = field(default_factory=Counter)
    """By request hash, failed model calls that the framework's client may try again."""
    tool_tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    """Tool calls under way."""
    ended: Run | None = None
    """The run as it was recorded at its end."""
    writes: list[asyncio.Future[None]] = field(default_factory=list)
    """Commits under way that the run's end waits for."""

    def fail(self, failure: AgentForgeError | ErrorInfo) -> None:
        """Decide that the run fails for this reason; the first reason stands."""
        if self.failure is None:
            self.failure = failure
        self.doomed.set()

    def warn(self, message: str) -> None:
        """Tell the user something once, in the events and in the result."""
        if message not in self.warnings:
            self.warnings.append(message)
            self.feed.emit("log.written", {"stream": "warning", "text": message})

    def next_effect(self, request_hash: str) -> tuple[int, int]:
        """Return the place and the occurrence of an effect about to be committed, and count it."""
        position, self.positions = self.positions, self.positions + 1
        occurrence = self.occurrences.get(request_hash, 0)
        self.occurrences[request_hash] = occurrence + 1
        return position, occurrence
