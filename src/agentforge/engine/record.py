"""What is recorded of a run: what a new attempt goes on from."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agentforge.store import Effect, Event, RunId, Store
from agentforge_worker.wire import ADAPTER_EVENTS

__all__ = [
    "FROM_ADAPTERS",
    "CallKey",
    "Outcome",
    "Record",
    "Tally",
    "idempotency_key",
    "read_record",
    "tool_request",
    "valid_events",
]

FROM_ADAPTERS = frozenset(ADAPTER_EVENTS)
"""Kinds of events that an adapter may emit; all others are the host's alone."""
_READ = (
    *FROM_ADAPTERS,
    "attempt.started",
    "log.written",
    "model.requested",
    "tool.called",
    "tool.failed",
    "interrupt.answered",
    "checkpoint.restored",
)
_ENDED_BY_ITSELF = frozenset({"AF601", "AF602", "AF603", "AF604", "AF610"})
"""Failures after which nothing of a tool's call is still under way, so that it may be made again."""
CallKey = tuple[str, int]
"""Request hash and occurrence."""


@dataclass
class Tally:
    """What a run has used so far, over all its attempts."""

    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    uncounted_calls: int = 0
    """Model calls whose endpoint sent no usage."""
    cached_calls: int = 0
    """Model calls that the response cache answered."""

    def add(self, usage: Mapping[str, Any] | None) -> None:
        """Count the usage of one model call."""
        if usage is None:
            self.uncounted_calls += 1
        else:
            self.input_tokens += usage["input_tokens"]
            self.output_tokens += usage["output_tokens"]
            self.cached_calls += usage.get("cached_calls", 0)

    def usage(self) -> dict[str, Any]:
        """Return the run's `usage` as the store keeps it."""
        usage: dict[str, Any] = {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "model_calls": self.model_calls,
        }
        if self.uncounted_calls:
            usage["uncounted_calls"] = self.uncounted_calls
        if self.cached_calls:
            usage["cached_calls"] = self.cached_calls
        return usage


class Outcome(msgspec.Struct, omit_defaults=True):
    """How a call ended, as the journal keeps it: a value, or the error that the model is told."""

    value: Any = None
    error: dict[str, Any] | None = None
    since: int | None = None
    """Of a native agent's own tool: where the journal was when the call began. What came in between may be the tool's
    own doing, which is not done again when the call is answered from the journal."""

    def answer(self) -> Any:
        """Return what goes to the framework."""
        return self.value if self.error is None else f"Error: {self.error['message']}"

    def note(self, entry: dict[str, Any]) -> None:
        """Put it into an entry of the contract's list of tool calls."""
        if self.error is None:
            entry["result"] = self.value
        else:
            entry["error"] = self.error["message"]


@dataclass
class Record:
    """The valid effects of a run, and what its events say of those that have none."""

    effects: list[Effect] = field(default_factory=list)
    left: list[Effect] = field(default_factory=list)
    """Effects of ways that the run has left."""
    asked: set[str] = field(default_factory=set)
    """Hashes of all model requests and tool calls there were: one without an effect was in flight."""
    tools: set[str] = field(default_factory=set)
    """Names of the tools of which the journal was told before they were called."""
    begun: set[CallKey] = field(default_factory=set)
    """Tool calls that were begun, and that nobody has allowed to be begun once more."""
    said: Counter[str] = field(default_factory=Counter)
    """Events of the adapter, and lines of its output by stream, that are recorded already."""
    recovery_allowed: bool = False
    """Whether somebody has said that the last attempt's own tools may be repeated."""

    @property
    def positions(self) -> int:
        """Where the next effect goes."""
        return max((effect.position for effect in (*self.effects, *self.left)), default=-1) + 1

    def tally(self) -> Tally:
        """Return what the run has used; a fork has not paid for the effects that it began with (attempt 0)."""
        tally = Tally()
        for effect in (*self.effects, *self.left):
            if effect.kind == "model" and effect.attempt > 0:
                tally.model_calls += 1
                tally.add(effect.usage)
        return tally

    def counts(self) -> Counter[str]:
        """Return how many valid effects there are by request hash."""
        return Counter(effect.request_hash for effect in self.effects)


async def read_record(store: Store, run_id: RunId) -> Record:
    """Return what the store has of a run."""
    effects = await store.list_effects(run_id, limit=None, voided=True)
    record = Record([each for each in effects if not each.voided], [each for each in effects if each.voided])
    for event in valid_events(await store.list_events(run_id, limit=None, kinds=_READ)):
        _note(record, event)
    return record


def valid_events(events: Iterable[Event]) -> list[Event]:
    """Return the events without those of ways that the run has left."""
    valid: list[Event] = []
    for event in events:
        if event.kind == "checkpoint.restored":
            valid = [each for each in valid if each.seq <= event.data["until"]]
        valid.append(event)
    return valid


def idempotency_key(record: Record, run_id: str, request_hash: str, occurrence: int) -> str:
    """Return the key of a call: the same whenever it is repeated, another one after a rollback."""
    voided = sum((each.request_hash, each.occurrence) == (request_hash, occurrence) for each in record.left)
    return f"{run_id}:{request_hash[:16]}:{occurrence}" + (f":{voided}" if voided else "")


def _note(record: Record, event: Event) -> None:
    data: dict[str, Any] = event.data
    call = (data.get("request_hash", ""), data.get("occurrence", 0))
    match event.kind:
        case "attempt.started":
            record.recovery_allowed = False
        case "log.written":
            record.said[data["stream"]] += 1
        case "model.requested":
            record.asked.add(call[0])
        case "tool.called":
            record.asked.add(call[0])
            record.begun.add(call)
            record.tools.add(data["name"])
        case "tool.failed" if data["error"]["code"] in _ENDED_BY_ITSELF:
            record.begun.discard(call)
        case "interrupt.answered" if data["decision"] == "retry":
            record.begun.discard(call)
            record.recovery_allowed = data["kind"] == "recovery"
        case kind if kind in FROM_ADAPTERS:
            record.said["events"] += 1


def tool_request(name: str, arguments: dict[str, Any], idempotent: bool) -> bytes:
    """Return what the journal keeps of a tool call."""
    return msgspec.json.encode({"name": name, "arguments": arguments, "idempotent": idempotent})
