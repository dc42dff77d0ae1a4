"""The other effects of a run, asked for through its context: time and chance, questions, named checkpoints, child
runs, and the tools that a native agent calls by itself.
"""

import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from agentforge.engine.divergence import Divergences
from agentforge.engine.execution import Execution
from agentforge.engine.feed import FeedEnded
from agentforge.engine.interrupts import Interrupt
from agentforge.engine.record import Outcome, idempotency_key
from agentforge.engine.toolcalls import ToolCall, ask_about, keep_call, say_called, tool_call
from agentforge.errors import AgentForgeError
from agentforge.gateway import request_hash
from agentforge.store import EffectKind, JsonObject
from agentforge.workers import Question, Worker
from agentforge_worker.wire import ErrorCode, Method, RpcError

__all__ = ["ChildRuns", "Effects"]

Params = dict[str, Any]
ChildRuns = Callable[[Execution, Params, str], Awaitable[JsonObject]]
"""Starts a child run for a run, or finds the one started with this key before, and returns its result object."""
_CODE = re.compile(r"AF[0-9]{3}")
_random = random.SystemRandom().random


class _Opened(msgspec.Struct):
    call: ToolCall
    entry: dict[str, Any]
    """In the contract's list of tool calls."""
    idempotent: bool
    started: float
    since: int


class Effects:
    """Serves the workers' requests for effects other than `tool.call`."""

    def __init__(
        self,
        find: Callable[[Worker, Params], Execution],
        divergences: Divergences,
        children: ChildRuns,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._find = find
        self._divergences = divergences
        self._children = children
        self._clock = clock

    def handlers(self) -> dict[str, Callable[[Worker, Params], Awaitable[JsonObject]]]:
        """Return the methods that a worker may call."""
        return {
            Method.VALUE_TAKE: self.take_value,
            Method.CHECKPOINT_SAVE: self.save_checkpoint,
            Method.QUESTION_ASK: self.ask,
            Method.RUN_CALL: self.call_run,
            Method.EFFECT_OPEN: self.open,
            Method.EFFECT_CLOSE: self.close,
        }

    async def take_value(self, worker: Worker, params: Params) -> JsonObject:
        """Give the time, or a random number, the same in every attempt: {kind} to {value}."""
        execution, kind = self._find(worker, params), params["kind"]
        take = {"now": self._clock, "random": _random}[kind]

        async def make(_: str) -> JsonObject:
            return {"value": take()}

        return await self._journalled(execution, "value", {"kind": kind}, make)

    async def save_checkpoint(self, worker: Worker, params: Params) -> JsonObject:
        """Give a place in the run a name: {name} to {}."""
        execution, name = self._find(worker, params), params["name"]

        async def make(_: str) -> JsonObject:
            return {}

        return await self._journalled(execution, "checkpoint", {"name": name}, make, event="checkpoint.saved")

    async def ask(self, worker: Worker, params: Params) -> JsonObject:
        """Ask a human: {question, options, schema, timeout_s, default, has_default} to {value}. The run waits."""
        execution = self._find(worker, params)
        asked = msgspec.convert(params, Question)
        request = {"question": asked.question, "options": asked.options, "schema": asked.schema}
        hashed = request_hash("question", request)
        occurrence = execution.attempt.occurrence("answer", hashed)
        answer = await execution.attempt.recorded("answer", hashed, occurrence)
        if answer is None:
            await self._divergences.check(execution, "answer", "", hashed, request)
            now = self._clock()
            interrupt = Interrupt(
                "question",
                asked.question,
                hashed,
                occurrence,
                {"options": asked.options},
                asked.schema,
                None if asked.timeout_s is None else now + asked.timeout_s,
                asked.default,
                asked.has_default,
            )
            await execution.interrupt(interrupt, now)
            return {}
        return {"value": msgspec.json.decode(answer.response)["value"]}

    async def call_run(self, worker: Worker, params: Params) -> JsonObject:
        """Run another agent and wait for its end: {agent, input, on, model, timeout_s} to its result object."""
        execution = self._find(worker, params)
        request = {key: params.get(key) for key in ("agent", "input", "on", "model")}

        async def make(key: str) -> JsonObject:
            return await self._children(execution, params, key)

        return await self._journalled(execution, "run", request, make)

    async def open(self, worker: Worker, params: Params) -> JsonObject:
        """Begin a native agent's own tool call, or answer it from the journal: see the protocol."""
        execution = self._find(worker, params)
        call = tool_call(execution, params)
        execution.attempt.tool_calls.append(entry := {"name": call.name, "arguments": call.arguments})
        recorded = await execution.attempt.recorded("tool", *call.key)
        if recorded is not None:
            outcome = msgspec.json.decode(recorded.response, type=Outcome)
            outcome.note(entry)
            return {"effect": None, "value": outcome.value, "error": outcome.error}
        asked = {"name": call.name, "arguments": call.arguments}
        await self._divergences.check(execution, "tool", call.name, call.request_hash, asked)
        native = execution.prepared.definition.file.native
        idempotent = params.get("idempotent") is True or (native is not None and native.tools_idempotent)
        if call.key in execution.attempt.record.begun and not idempotent:
            await ask_about(execution, call, "run was interrupted", self._clock())
        await say_called(execution, call, idempotent)
        execution.attempt.open_effects[call.id] = _Opened(call, entry, idempotent, time.monotonic(), execution.position)
        key = idempotency_key(execution.record, execution.run.run_id, *call.key)
        return {"effect": call.id, "value": None, "error": None, "idempotency_key": key}

    async def close(self, worker: Worker, params: Params) -> JsonObject:
        """Commit what a native agent's own tool returned: {effect, value} or {effect, error} to {}."""
        execution = self._find(worker, params)
        opened: _Opened | None = execution.attempt.open_effects.pop(params["effect"], None)
        if opened is None:
            raise RpcError(ErrorCode.INVALID_PARAMS, "no such effect is under way")
        outcome = Outcome(params.get("value"), _told(params.get("error")), opened.since)
        outcome.note(opened.entry)
        duration_ms = (time.monotonic() - opened.started) * 1000
        await keep_call(execution, opened.call, outcome, opened.idempotent, duration_ms, self._clock())
        return {}

    async def _journalled(
        self,
        execution: Execution,
        kind: EffectKind,
        request: JsonObject,
        make: Callable[[str], Awaitable[JsonObject]],
        *,
        event: str = "effect.recorded",
    ) -> JsonObject:
        """Return what is recorded for a request; else make it (with its idempotency key), commit and return it."""
        hashed = request_hash(kind, request)
        occurrence = execution.attempt.occurrence(kind, hashed)
        recorded = await execution.attempt.recorded(kind, hashed, occurrence)
        if recorded is not None:
            return dict(msgspec.json.decode(recorded.response))
        await self._divergences.check(execution, kind, "", hashed, request)
        started = time.monotonic()
        try:
            made = await make(idempotency_key(execution.record, execution.run.run_id, hashed, occurrence))
        except AgentForgeError as error:
            raise RpcError(ErrorCode.FAILED, error.message, error.info().to_dict()) from None
        duration_ms = (time.monotonic() - started) * 1000
        effect = execution.new_effect(
            kind,
            hashed,
            msgspec.json.encode(request),
            msgspec.json.encode(made),
            occurrence=occurrence,
            ended_at=self._clock(),
            duration_ms=duration_ms,
        )
        try:
            await execution.feed.commit_effect(
                effect, event, {"effect": effect.position, "effect_kind": kind, **request}
            )
        except FeedEnded:
            raise RpcError(ErrorCode.CANCELLED, "the run has ended") from None
        return made


def _told(error: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the error object of a tool that raised, from what the worker says of it."""
    if error is None:
        return None
    said, details = error.get("code", ""), error.get("details") or {}
    code = said if _CODE.fullmatch(said) else "AF603"
    # The details are for the worker, which makes the same exception again from them.
    return {"code": code, "message": error.get("message", ""), "hint": "", "origin": "tool", "details": details}
