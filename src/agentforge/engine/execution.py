"""The state of one run under way, shared by those who serve it: journal, attempt, tools, cancellation."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentforge.config import AgentDefinition, Project
from agentforge.engine.allowance import Allowance
from agentforge.engine.attempt import OngoingAttempt
from agentforge.engine.feed import Feed
from agentforge.engine.interrupts import Interrupt
from agentforge.engine.permissions import Permitted
from agentforge.engine.provision import Provisioned
from agentforge.engine.queue import Ticket
from agentforge.engine.record import CallKey, Record, Tally
from agentforge.engine.tuning import Tuning
from agentforge.errors import AgentForgeError, ErrorInfo
from agentforge.frameworks import Release
from agentforge.gateway import Upstream
from agentforge.sandbox import Level
from agentforge.store import AgentVersion, Effect, EffectKind, JsonObject, Run
from agentforge.tools import Tool, Toolbox

__all__ = ["Execution", "Prepared"]

_MOST_WARNINGS = 200


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
    level: Level
    """How strong the fence around its workers is."""
    settings: Mapping[str, Any]
    """The model alias's settings with the agent's over them."""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of the client that submitted or resumed it: for its child runs."""
    permitted: Permitted = field(default_factory=Permitted)
    """What its tools may do."""
    tuning: Tuning = field(default_factory=Tuning)
    """What project and agent set of the framework."""
    warnings: tuple[str, ...] = ()
    """What the user is told when it starts."""

    @property
    def release(self) -> Release:
        """The exact release it runs on."""
        return self.provisioned.release


class Signal(asyncio.Event):
    """An event that also tells of itself in a future that it shares with others."""

    def __init__(self, told: "asyncio.Future[None]") -> None:
        super().__init__()
        self._told = told

    def set(self) -> None:
        """Happen."""
        super().set()
        if not self._told.done():
            self._told.set_result(None)


@dataclass
class Execution:
    """One run while this host executes it."""

    run: Run
    prepared: Prepared
    feed: Feed
    record: Record = field(default_factory=Record)
    offline: bool = False
    """Answered from the journal alone: nothing is asked, called or paid."""
    must_stop: "asyncio.Future[None]" = field(init=False)
    """Done once its work has to be stopped: cancelled, doomed or suspended."""
    cancel_requested: Signal = field(init=False)
    doomed: Signal = field(init=False)
    """The run must fail: see `failure`."""
    suspended: Signal = field(init=False)
    """The run has to be left for now: it waits for answers (`interrupts`), or for the next host."""
    failure: AgentForgeError | ErrorInfo | None = None
    """Why the run must fail, known before its framework ended."""
    interrupts: list[Interrupt] = field(default_factory=list)
    """What it waits for."""
    tally: Tally = field(default_factory=Tally)
    warnings: list[str] = field(default_factory=list)
    tools: dict[str, Tool] = field(default_factory=dict)
    toolbox: Toolbox | None = None
    started: float = field(default_factory=time.monotonic)
    ticket: Ticket | None = None
    """Its place in the host's queue."""
    calls: dict[CallKey, asyncio.Future[Any]] = field(default_factory=dict)
    """Tool calls of this host, over attempts: a worker's end does not end the tools that it called."""
    ended: Run | None = None
    """The run as it was recorded at its end."""
    writes: list[asyncio.Future[None]] = field(default_factory=list)
    """Commits under way that the run's end waits for."""
    fresh: bool = True
    """Whether `record` is all there is: no attempt has begun since it was read."""
    handed_over: asyncio.Event = field(default_factory=asyncio.Event)
    """It is left to the next host."""
    spent_s: float = 0.0
    """Seconds of its attempts so far."""
    attempt: OngoingAttempt = field(init=False)
    allowance: Allowance = field(init=False)
    """What it may still write."""

    def __post_init__(self) -> None:
        self.must_stop = asyncio.get_running_loop().create_future()
        self.cancel_requested, self.doomed, self.suspended = (Signal(self.must_stop) for _ in range(3))
        self.attempt = OngoingAttempt(self.feed.attempt, self.record)
        self.tally = self.record.tally()
        self.warnings = list(self.run.options.get("warnings", []))
        self.allowance = Allowance(self.fail, sum(self.record.said.values()))
        self.feed.allowance = self.allowance
        self._positions = self.record.positions
        self._occurrences: Counter[str] = self.record.counts()

    @property
    def stream(self) -> bool:
        """Whether its caller watches tokens."""
        return bool(self.run.options.get("stream"))

    @property
    def ends(self) -> bool:
        """Whether it is over, once its work is: it neither waits nor is left to the next host."""
        if self.cancel_requested.is_set() or self.failure is not None:
            return True
        return not self.suspended.is_set()

    @property
    def leaving(self) -> bool:
        """Whether nothing new may be begun for it."""
        return self.suspended.is_set() or self.doomed.is_set() or self.cancel_requested.is_set() or self.feed.finished

    def fail(self, failure: AgentForgeError | ErrorInfo) -> None:
        """Decide that the run fails for this reason; the first reason stands."""
        if self.failure is None:
            self.failure = failure
        self.doomed.set()

    def hand_over(self) -> None:
        """Leave the run as it is, for the next host."""
        self.handed_over.set()
        self.suspended.set()

    def warn(self, message: str) -> None:
        """Tell the user something once, in the events and in the result; what is said after too many is left out."""
        if message not in self.warnings and len(self.warnings) < _MOST_WARNINGS:
            self.warnings.append(message)
            self.feed.emit("log.written", {"stream": "warning", "text": message})

    @property
    def position(self) -> int:
        """Where the next effect will go: it grows with every one."""
        return self._positions

    def new_effect(
        self,
        kind: EffectKind,
        request_hash: str,
        request: bytes,
        response: bytes,
        *,
        ended_at: float,
        duration_ms: float,
        occurrence: int | None = None,
        status: int = 200,
        usage: JsonObject | None = None,
    ) -> Effect:
        """Return an effect about to be committed, at the next place; None counts its occurrence by the journal."""
        position, self._positions = self._positions, self._positions + 1
        count = self._occurrences[request_hash]
        self._occurrences[request_hash] = count + 1
        return Effect(
            run_id=self.run.run_id,
            position=position,
            attempt=self.feed.attempt,
            kind=kind,
            request_hash=request_hash,
            occurrence=count if occurrence is None else occurrence,
            request=request,
            response=response,
            status=status,
            usage=usage,
            started_at=ended_at - duration_ms / 1000,
            duration_ms=duration_ms,
        )

    def take_back(self, effects: Sequence[Effect]) -> None:
        """Count no more what was voided."""
        self._occurrences.subtract(effect.request_hash for effect in effects)

    def begin(self, record: Record) -> OngoingAttempt:
        """Begin the next attempt, from what is recorded."""
        self.record = record
        self.fresh = False
        self.tally = record.tally()  # what was in flight is asked for once more
        recorded = {(effect.request_hash, effect.occurrence) for effect in record.effects if effect.kind == "tool"}
        # A call that ended after the record was read is answered from here.
        self.calls = {key: call for key, call in self.calls.items() if key not in recorded}
        self.feed.attempt += 1
        self.attempt = OngoingAttempt(self.feed.attempt, record)
        return self.attempt

    async def interrupt(self, interrupt: Interrupt, now: float) -> None:
        """Have the run wait for an answer; never returns (raises CancelledError when the attempt is over)."""
        if not any(_same(each, interrupt) for each in self.interrupts):
            self.interrupts.append(interrupt.numbered(len(self.interrupts) + 1, now))
        self.suspended.set()
        await self.attempt.never()


def _same(one: Interrupt, other: Interrupt) -> bool:
    return (one.kind, one.request_hash, one.occurrence) == (other.kind, other.request_hash, other.occurrence)
