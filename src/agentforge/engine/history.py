"""What a run did, read back: its checkpoints, each effect's request and response, and how two runs differ.

Who calls it: the API, for runs under way and ended ones alike. Every effect is a checkpoint: number N is the state
after effect N.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from agentforge.engine.difference import LIMIT, aligned, changes, recorded_request
from agentforge.engine.times import iso
from agentforge.errors import UsageFault
from agentforge.errors.runs import CheckpointUnknown, RunUnknown
from agentforge.errors.store import RunNotFound
from agentforge.gateway import ModelResponse
from agentforge.gateway.canonical import Json, decode, encode
from agentforge.store import Effect, JsonObject, Run, RunId, Store

__all__ = ["History", "known_run", "with_response"]

_MOST_CHANGES = 500
"""Of all effects together; further ones are only said to differ."""
_NAMES = {"model": "model", "tool": "name", "checkpoint": "name", "value": "kind", "answer": "question", "run": "agent"}
"""By kind, what of a request is the effect's name."""
_OWN_WORDS = frozenset({"id", "created", "usage", "system_fingerprint", "service_tier"})
"""What a model says about each of its answers, and never twice the same."""


class History:
    """The read side of the journal."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def checkpoints(self, run_id: str, voided: bool = False) -> list[JsonObject]:
        """Return the run's effects in order, without their payloads; `voided`: those too that it has left behind.

        Raises RunUnknown.
        """
        return [_summary(effect) for effect in await self._effects(run_id, voided)]

    async def effect(self, run_id: str, number: int) -> JsonObject:
        """Return one effect whole: its `request` and `response` as JSON.

        Of a model call these are the two bodies; of a tool call `{"name", "arguments"}` and `{"value"}` or `{"error"}`.
        Raises RunUnknown, CheckpointUnknown.
        """
        await known_run(self._store, run_id)
        found = await self._store.list_effects(RunId(run_id), number - 1, 1, voided=True) if number >= 0 else []
        if not found or found[0].position != number:
            raise CheckpointUnknown(f"the run `{run_id}` has no effect `{number}`")
        (effect,) = found
        return {
            **_summary(effect),
            "status": effect.status,
            "request_hash": effect.request_hash,
            "occurrence": effect.occurrence,
            "request": recorded_request(effect).data,
            "response": _response(effect),
        }

    async def diff(self, run_id: str, other_run_id: str) -> JsonObject:
        """Return how a second run differs from a first one, effect by effect, and in its output.

        Effects are paired by what they asked for. What a model says of every answer anew (id, time, usage) and the
        ids of tool calls do not count. `changes` are at most 20 for an effect. Raises RunUnknown.
        """
        first, second = await known_run(self._store, run_id), await known_run(self._store, other_run_id)
        before, after = await self._effects(run_id), await self._effects(other_run_id)
        return await asyncio.to_thread(_diff, first, second, before, after)

    async def _effects(self, run_id: str, voided: bool = False) -> list[Effect]:
        await known_run(self._store, run_id)
        return await self._store.list_effects(RunId(run_id), limit=None, voided=voided)


async def known_run(store: Store, run_id: str) -> Run:
    """Return a run. Raises RunUnknown."""
    try:
        return await store.get_run(RunId(run_id))
    except RunNotFound:
        raise RunUnknown(f"there is no run `{run_id}` in this project") from None


def with_response(effect: Effect, response: Json) -> Effect:
    """Return the effect with another response, in the form in which `History.effect` shows it.

    Raises UsageFault for one that an effect of this kind can't have.
    """
    if effect.kind == "model":
        if not isinstance(response, dict) or not isinstance(response.get("choices", response.get("data")), list):
            raise UsageFault("the response of a model call is the model's answer: an object with `choices`")
        answer = ModelResponse(encode(response))  # a stream is made from it where one is asked for
        return msgspec.structs.replace(effect, response=answer.to_record())
    if effect.kind == "tool":
        if not isinstance(response, dict) or len(response) != 1 or not response.keys() <= {"value", "error"}:
            raise UsageFault('the response of a tool call is `{"value": ...}` or `{"error": {...}}`')
        return msgspec.structs.replace(effect, **_outcome(response))
    if not isinstance(response, dict):
        raise UsageFault(f"the response of a {effect.kind} effect is an object")
    return msgspec.structs.replace(effect, response=encode(response))


def _outcome(response: JsonObject) -> dict[str, Any]:
    """Return the fields of a tool's effect: an error may be given as its message alone."""
    if "error" not in response:
        return {"response": encode(response), "status": 200}
    error = response["error"]
    if not isinstance(error, dict):
        error = {"code": "AF603", "message": str(error), "hint": "", "origin": "tool"}
    if not isinstance(error.get("message"), str):
        raise UsageFault("the `error` of a tool call has a `message`")
    return {"response": encode({"error": error}), "status": 500}


# ---- one effect


def _summary(effect: Effect) -> JsonObject:
    request = decode(effect.request)
    name = request.get(_NAMES[effect.kind]) if isinstance(request, dict) else None
    return {
        "effect": effect.position,
        "kind": effect.kind,
        "name": name if isinstance(name, str) else "",
        "at": iso(effect.started_at + effect.duration_ms / 1000),
        "attempt": effect.attempt,
        "voided": effect.voided,
        "usage": effect.usage,
        "duration_ms": round(effect.duration_ms, 3),
    }


def _response(effect: Effect) -> Json:
    if effect.kind == "model":
        return ModelResponse.from_record(effect.response).data
    response = decode(effect.response)
    # The journal leaves out what is null; whoever edits an effect should see what there is to edit.
    return {"value": None} if effect.kind == "tool" and response == {} else response


# ---- two runs


def _diff(first: Run, second: Run, before: Sequence[Effect], after: Sequence[Effect]) -> JsonObject:
    effects = list(_compared(before, after))
    differing = next((entry["effect"] for entry in effects if entry["status"] != "same"), None)
    output = changes(first.output, second.output)
    return {
        "run_id": first.run_id,
        "other_run_id": second.run_id,
        "same": differing is None and not output,
        "first_difference": differing,
        "output_same": not output,
        "output": output,
        "effects": effects,
    }


def _compared(before: Sequence[Effect], after: Sequence[Effect]) -> Iterator[JsonObject]:
    ours, theirs = _Comparable(), _Comparable()
    old, new = [ours.of(effect) for effect in before], [theirs.of(effect) for effect in after]
    left = _MOST_CHANGES
    for one, other in aligned([_handle(each) for each in old], [_handle(each) for each in new]):
        if one is None or other is None:
            effect = after[other or 0] if one is None else before[one]
            entry = _entry(effect, "only_second" if one is None else "only_first")
        else:
            found = changes(old[one]["content"], new[other]["content"], min(LIMIT, left) + 1)
            entry = _entry(before[one], "changed" if found else "same", after[other])
            entry["changes"] = found[: min(LIMIT, left)]
            entry["more_changes"] = len(found) > min(LIMIT, left)
            left -= len(entry["changes"])
        yield entry


def _entry(effect: Effect, status: str, other: Effect | None = None) -> JsonObject:
    """Return what is told of a pair: `effect` is the number in the run that has it, the first one if both have."""
    summary = _summary(effect)
    number = effect.position if other is None else other.position
    return {
        "effect": effect.position,
        "other_effect": None if status == "only_first" else number,
        "kind": effect.kind,
        "name": summary["name"],
        "status": status,
        "changes": [],
        "more_changes": False,
    }


def _handle(comparable: JsonObject) -> JsonObject:
    """Return what a pair is found by: the same request, else the same kind and name."""
    return {"type": comparable["kind"], "name": comparable["name"], "request": comparable["content"]["request"]}


class _Comparable:
    """Puts the effects of one run into a form in which equal ones are equal: ids of tool calls are counted instead."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def of(self, effect: Effect) -> JsonObject:
        """Return one effect; to be called in their order."""
        request, response = recorded_request(effect).data, _response(effect)
        if effect.kind == "model":
            if isinstance(request, dict):
                messages = request.get("messages")
                request = {**request, "messages": self._plain(messages)} if messages is not None else request
            response = {key: self._plain(each) for key, each in response.items() if key not in _OWN_WORDS}
        content = {"request": request, "response": response}
        return {"kind": effect.kind, "name": _summary(effect)["name"], "content": content}

    def _plain(self, value: Json) -> Json:
        """Return messages or choices with the ids of tool calls replaced by their order of appearance."""
        if isinstance(value, list):
            return [self._plain(each) for each in value]
        if not isinstance(value, dict):
            return value
        plain = {key: self._plain(each) if key in ("message", "tool_calls") else each for key, each in value.items()}
        for key in ("tool_call_id", "id"):
            if isinstance(named := plain.get(key), str):
                plain[key] = self._ids.setdefault(named, f"call-{len(self._ids) + 1}")
        return plain
