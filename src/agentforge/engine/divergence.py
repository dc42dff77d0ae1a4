"""A run that takes another way than the one recorded: found, told, and decided on."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from agentforge.engine.difference import Request, changes, nearest, recorded_request
from agentforge.engine.execution import Execution
from agentforge.engine.interrupts import Interrupt
from agentforge.errors.runs import ReplayDiverged
from agentforge.store import Effect, EffectKind, JsonObject

__all__ = ["Divergences"]


class Divergences:
    """Stands between a request that nothing was recorded for and what would be done for it."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    async def check(self, execution: Execution, kind: EffectKind, path: str, request_hash: str, request: Any) -> None:
        """Return if a request may go live; otherwise have the run wait or fail, and never return.

        It may where everything recorded was given already, or where it was in flight when the last attempt ended.
        """
        if execution.leaving:
            await execution.attempt.never()
        attempt = execution.attempt
        if not execution.offline and (
            attempt.replay.over or request_hash in attempt.record.asked or await attempt.replay.passed()
        ):
            return
        async with attempt.diverging:
            if execution.leaving:
                await attempt.never()
            if execution.offline or not attempt.replay.over:  # else a branch beside this one has been here
                await self._decide(execution, kind, path, request_hash, request)

    async def _decide(self, execution: Execution, kind: EffectKind, path: str, request_hash: str, request: Any) -> None:
        found = _described(execution, kind, path, request)
        policy = "stop" if execution.offline else _policy(execution)
        data = {**found, "decision": policy}
        if policy == "continue":
            left = execution.attempt.replay.leave()
            execution.take_back(left)
            await execution.feed.void(left, "replay.diverged", {**data, "left": [each.position for each in left]})
            return
        execution.feed.emit("replay.diverged", data)
        place = f"at effect {found['effect']}" if found["effect"] is not None else "after its last effect"
        message = f"the run asked for another {kind} call {place} than the one recorded"
        if policy == "stop":
            execution.fail(ReplayDiverged(message, divergence=found))
            await execution.attempt.never()
        rest = [effect.position for effect in execution.attempt.replay.rest]
        interrupt = Interrupt("divergence", message, request_hash, data={**found, "left": rest})
        await execution.interrupt(interrupt, self._clock())


def _policy(execution: Execution) -> str:
    """Return what to do: a run that has done what can't be done twice asks, unless it was told what to do."""
    of_project = execution.prepared.project.config.durability.on_divergence
    chosen = str(execution.run.options.get("on_divergence") or of_project)
    if chosen == "wait" and not any(_is_final(effect) for effect in execution.attempt.record.effects):
        return "continue"
    return chosen


def _is_final(effect: Effect) -> bool:
    """Whether an effect was a tool call that must not be made twice."""
    return effect.kind == "tool" and not msgspec.json.decode(effect.request).get("idempotent")


def _described(execution: Execution, kind: EffectKind, path: str, request: Any) -> JsonObject:
    """Return the event's data: what was asked for, what had been recorded, and how they differ."""
    rest = execution.attempt.replay.rest
    candidates = [recorded_request(effect) for effect in rest]
    index = nearest(Request(kind, path, request), candidates)
    if index is None:
        return {"effect": None, "kind": kind, "requested": request}
    recorded = candidates[index].data
    return {
        "effect": rest[index].position,
        "kind": kind,
        "requested": request,
        "recorded": recorded,
        "diff": [msgspec.to_builtins(each) for each in changes(recorded, request)],
    }
