"""What a recorded run asked for and was answered, served again by position; and where another execution differs.

Who calls it: the player, for each request of a run that is played. No I/O, all on one event loop.

A model request gets the recorded answer to an equal request that was not served yet (so that parallel branches get
their own answers, whichever comes first), else the first answer that was not served: a framework that words its
requests in another way is answered all the same. A tool call has to be one of the recorded ones, name and arguments,
and must not come before a call that had ended when it began; one that is none of them is compared with the nearest of
those that could have come. After the first difference that is not harmless nothing is served or compared any more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from agentforge.engine.difference import Change, Request, changes, nearest, recorded_request
from agentforge.engine.record import Outcome
from agentforge.engine.varying import hash_of_request, settled
from agentforge.gateway import ModelResponse, request_hash
from agentforge.gateway.canonical import Json, decode
from agentforge.store import Effect

__all__ = ["Difference", "DifferenceKind", "Journalled"]

DifferenceKind = Literal[
    "tool_call",
    "extra_tool_call",
    "tool_order",
    "missing_tool_call",
    "extra_model_call",
    "missing_model_call",
    "model_request",
    "other_request",
    "output",
    "failed",
]
_HARMLESS: frozenset[DifferenceKind] = frozenset({"model_request", "missing_model_call"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where a run that was played did something else than the recorded one."""

    kind: DifferenceKind
    message: str
    effect: int | None = None
    """Position in the recorded run's journal."""
    expected: Json = None
    found: Json = None
    changes: Sequence[Change] = field(default_factory=tuple)

    @property
    def harmless(self) -> bool:
        """Whether a run may differ like this and still be the same: same tool calls, same output."""
        return self.kind in _HARMLESS

    def to_json(self) -> dict[str, Any]:
        """Return it as reports show it."""
        return {
            "kind": self.kind,
            "message": self.message,
            "effect": self.effect,
            "expected": self.expected,
            "found": self.found,
            "changes": list(self.changes),
        }


class Journalled:
    """The valid effects of one run, as one execution of it goes through them."""

    def __init__(self, effects: Iterable[Effect], varies: Sequence[str]) -> None:
        self._varies = varies
        self._left = sorted(effects, key=lambda effect: effect.position)
        self._models = sum(each.kind == "model" for each in self._left)
        self._tools = [each for each in self._left if each.kind == "tool"]
        self._all = len(self._left)
        self.differences: list[Difference] = []
        self.reached = 0
        """How many effects were behind it at its first difference that is not harmless; all of them without one."""
        self.timed_out = False
        self.model_calls = 0
        self.tool_calls = 0

    @property
    def recorded(self) -> tuple[int, int]:
        """How many model calls and tool calls the recorded run made."""
        return self._models, len(self._tools)

    @property
    def fatal(self) -> Difference | None:
        """The first difference that is not harmless."""
        return next((each for each in self.differences if not each.harmless), None)

    def model(self, path: str, data: dict[str, Json]) -> ModelResponse | None:
        """Return the answer to a model request; None if the recorded run had made no such request any more."""
        if self.fatal is not None:
            return None
        self.model_calls += 1
        candidates = [each for each in self._left if each.kind == "model" and recorded_request(each).path == path]
        if not candidates:
            said = f"model call {self.model_calls}: the recorded run made {_times(self._models, 'model call')} only"
            self._note("extra_model_call", said, found=settled(data, self._varies))
            return None
        hashed = hash_of_request(path, data, self._varies)
        equal = next((each for each in candidates if self._hash(each) == hashed), None)
        effect = equal or candidates[0]
        if equal is None:
            before = settled(decode(effect.request), self._varies)
            found = changes(before, settled(data, self._varies))
            paths = ", ".join(f"`{each['path']}`" for each in found[:3]) + (", ..." if len(found) > 3 else "")
            message = f"model call {self.model_calls}: the request differs at {paths}"
            self._note("model_request", message, effect.position, changes=found)
        self._take(effect)
        return ModelResponse.from_record(effect.response)

    def tool(self, name: str, arguments: dict[str, Json]) -> Outcome | None:
        """Return what a tool call returned; None if the recorded run did not make it now."""
        if self.fatal is not None:
            return None
        self.tool_calls += 1
        asked = {"name": name, "arguments": arguments}
        place = f"tool call {self.tool_calls}"
        left = [each for each in self._left if each.kind == "tool"]
        if not left:
            message = f"{place}: `{shown_call(asked)}`, where the recorded run made no further call"
            self._note("extra_tool_call", message, found=asked)
            return None
        hashed = request_hash("tool", asked)
        found = next((each for each in left if each.request_hash == hashed), None)
        if found is None:
            due = [each for each in left if not any(_ended_before(other, each) for other in left)]
            requests = [recorded_request(each) for each in due]
            index = nearest(Request("tool", name, asked), requests) or 0
            expected = requests[index].data
            message = f"{place}: expected `{shown_call(expected)}`, found `{shown_call(asked)}`"
            self._note("tool_call", message, due[index].position, expected, asked, changes(expected, asked))
            return None
        first = next((each for each in left if each is not found and _ended_before(each, found)), None)
        if first is not None:
            expected = recorded_request(first).data
            message = f"{place}: `{shown_call(asked)}` came before `{shown_call(expected)}`"
            self._note("tool_order", message, first.position, expected, asked)
            return None
        self._take(found)
        return msgspec.json.decode(found.response, type=Outcome)

    def other(self, kind: str, request: dict[str, Json]) -> Json:
        """Return what another effect answered (`value`, `checkpoint`, `run`: equal requests; a question: its words).

        None if the recorded run did not ask for it any more.
        """
        asks = _question if kind == "answer" else decode_request
        effect = next((each for each in self._left if each.kind == kind and asks(each) == request), None)
        if effect is None:
            return None
        self._take(effect)
        return decode(effect.response)

    def refuse(self, what: str, request: Json) -> None:
        """Take note of a request that the recorded run did not make, and that nobody can answer."""
        self._note("other_request", f"{what}, which the recorded run did not", found=request)

    def fail(self, message: str, *, timed_out: bool = False) -> None:
        """Take note that the run failed, where the recorded one succeeded."""
        self.timed_out = timed_out
        self._note("failed", f"the run failed: {message}")

    def finish(self, recorded: Json, output: Json) -> None:
        """Compare the end: what was not asked for any more, and the output."""
        if self.fatal is not None:
            return
        for effect in [each for each in self._left if each.kind == "tool"]:
            expected = recorded_request(effect).data
            message = f"`{shown_call(expected)}` was not called"
            self._note("missing_tool_call", message, effect.position, expected)
        models = sum(each.kind == "model" for each in self._left)
        if models:
            message = f"{self.model_calls} of {_times(self._models, 'model call')} made"
            self._note("missing_model_call", message, found=self.model_calls)
        if request_hash("output", recorded) != request_hash("output", output):
            found = changes(recorded, output)
            paths = ", ".join(f"`{each['path']}`" for each in found[:3])
            message = f"the output differs at {paths}"
            self._note("output", message, None, _shortened(recorded), _shortened(output), found)

    def _take(self, effect: Effect) -> None:
        inside = _inside(effect)
        self._left = [each for each in self._left if each is not effect and each.position not in inside]
        if self.fatal is None:
            self.reached = self._all - len(self._left)

    def _hash(self, effect: Effect) -> str:
        recorded = recorded_request(effect)
        return hash_of_request(recorded.path, recorded.data, self._varies)

    def _note(
        self,
        kind: DifferenceKind,
        message: str,
        effect: int | None = None,
        expected: Json = None,
        found: Json = None,
        changes: Sequence[Change] = (),
    ) -> None:
        self.differences.append(Difference(kind, message, effect, expected, found, changes))


def shown_call(call: Json) -> str:
    """Return a call as people write it, cut to what a message can hold."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in call["arguments"].items())
    text = f"{call['name']}({arguments})"
    return text if len(text) <= 200 else text[:199] + "…"


def decode_request(effect: Effect) -> Json:
    """Return what an effect asked for."""
    return decode(effect.request)


def _question(effect: Effect) -> Json:
    """Return a question's words, as the worker asks it; None for another interrupt's answer."""
    asked = decode(effect.request)
    return {"question": asked["message"]} if asked.get("kind") == "question" else None


def _ended_before(one: Effect, other: Effect) -> bool:
    """Whether a recorded call had ended when another one began: their order was no accident."""
    return one.position < other.position and one.started_at + one.duration_ms / 1000 <= other.started_at


def _inside(effect: Effect) -> range:
    """Return the positions of what a native agent's own tool did: it is not run again."""
    if effect.kind != "tool":
        return range(0)
    since = msgspec.json.decode(effect.response, type=Outcome).since
    return range(0) if since is None else range(since, effect.position)


def _times(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _shortened(value: Json) -> Json:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode(errors="replace")
    return value if len(text) <= 1000 else text[:1000] + "…"
