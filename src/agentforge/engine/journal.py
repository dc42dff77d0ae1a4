"""Model traffic of all runs, as the gateway reports it: answered from the journal, limited, recorded."""

import time
from collections.abc import Callable
from typing import Any

from agentforge.engine.divergence import Divergences
from agentforge.engine.execution import Execution
from agentforge.engine.rates import Rates
from agentforge.engine.responses import ResponseCache, cache_ttl_s, response_key
from agentforge.engine.varying import hash_of_request
from agentforge.errors import AgentForgeError
from agentforge.errors.runs import LimitReached
from agentforge.errors.sandbox import OutputExceeded
from agentforge.gateway import ModelCall, ModelFailure, ModelResponse, Refused, failure_error

__all__ = ["Journal"]


class Journal:
    """Implements the gateway's `CallObserver` for the executions that `find` knows by run id."""

    def __init__(
        self,
        find: Callable[[str], Execution | None],
        divergences: Divergences,
        rates: Rates,
        responses: ResponseCache,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._find = find
        self._divergences = divergences
        self._rates = rates
        self._responses = responses
        self._clock = clock

    async def requested(self, call: ModelCall) -> ModelResponse | None:
        """Answer a call from the journal, let it through, or refuse it at a limit."""
        execution = self._execution(call)
        if execution is None:
            raise Refused(403, "AF508", "the run has ended")
        if execution.failure is not None or execution.cancel_requested.is_set():
            raise Refused(403, "AF508", "the run is ending")
        hashed = _hash(execution, call)
        recorded = await execution.attempt.recorded("model", hashed)
        if recorded is not None:
            return ModelResponse.from_record(recorded.response)
        await self._divergences.check(execution, "model", call.path, hashed, call.data)
        self._admit(execution, hashed)
        if not execution.allowance.take_request(len(call.body)):
            raise Refused(403, OutputExceeded.code, "the run has written more than it may")
        cached = await self._responses.find(_key(execution, hashed), _ttl_s(execution))
        waited_s = await self._rates.acquire(call.alias) if cached is None else 0.0
        execution.feed.emit(
            "model.requested",
            {
                "call_id": call.call_id,
                "model": call.model,
                "alias": call.alias,
                "stream": call.stream,
                "request_hash": hashed,
            }
            | ({"retry": call.retry} if call.retry else {})
            | ({"waited_ms": round(waited_s * 1000, 3)} if waited_s else {}),
        )
        if cached is not None:
            await self._record(execution, call, cached, {"input_tokens": 0, "output_tokens": 0, "cached_calls": 1})
        return cached

    def delta(self, call: ModelCall, text: str) -> None:
        """Pass a piece of streamed text on to those who watch."""
        execution = self._execution(call)
        if execution is not None:
            execution.feed.emit("message.delta", {"call_id": call.call_id, "text": text})

    async def completed(self, call: ModelCall, response: ModelResponse) -> None:
        """Commit the effect and its event; returns once both are durable."""
        execution = self._execution(call)
        if execution is None:
            raise Refused(403, "AF508", "the run has ended")
        usage = _usage(response)
        if usage is not None:
            self._rates.charge(call.alias, usage["input_tokens"] + usage["output_tokens"])
        await self._record(execution, call, response, usage)
        self._responses.keep(_key(execution, _hash(execution, call)), response, _ttl_s(execution))

    async def _record(
        self, execution: Execution, call: ModelCall, response: ModelResponse, usage: dict[str, Any] | None
    ) -> None:
        execution.tally.add(usage)
        execution.attempt.model_failure = None
        hashed = _hash(execution, call)
        effect = execution.new_effect(
            "model",
            hashed,
            call.body,
            response.to_record(),
            usage=usage,
            ended_at=self._clock(),
            duration_ms=response.duration_ms,
        )
        data: dict[str, Any] = {
            "call_id": call.call_id,
            "effect": effect.position,
            "usage": usage,
            "duration_ms": round(response.duration_ms, 3),
        }
        if usage is not None and usage.get("cached_calls"):
            data["cached"] = True
        try:
            await execution.feed.commit_effect(effect, "model.responded", data)
        except AgentForgeError as error:  # not the framework's to get over: what can't be recorded must not go on
            execution.fail(error)
            raise

    async def failed(self, call: ModelCall, failure: ModelFailure) -> None:
        """Note a call without a complete answer: the run's error, if the framework gives up over it."""
        execution = self._execution(call)
        if execution is None:
            return
        if failure.kind not in ("refused", "malformed"):
            execution.attempt.retries[_hash(execution, call)] += 1
        error = failure_error(failure)
        execution.attempt.model_failure = error
        data: dict[str, Any] = {"call_id": call.call_id, "error": error.info().to_dict()}
        execution.feed.emit("model.failed", data)

    def _execution(self, call: ModelCall) -> Execution | None:
        execution = self._find(call.run_id)
        if execution is None or execution.feed.finished or execution.attempt.number != call.attempt:
            return None
        return execution

    def _admit(self, execution: Execution, request_hash: str) -> None:
        """Count a call, or refuse it at a limit."""
        retries = execution.attempt.retries
        if retries[request_hash] > 0:  # a client's second try at a failed call is no second step
            retries[request_hash] -= 1
            self._check_limits(execution, steps=False)
        else:
            self._check_limits(execution)
            execution.tally.model_calls += 1

    def _check_limits(self, execution: Execution, *, steps: bool = True) -> None:
        limits = execution.prepared.definition.file.limits
        tally = execution.tally
        tokens = tally.input_tokens + tally.output_tokens
        reached = None
        if steps and limits.steps is not None and tally.model_calls >= limits.steps:
            reached = LimitReached.of_steps(limits.steps)
        elif limits.tokens is not None and tokens >= limits.tokens:
            reached = LimitReached(f"the run reached its limit of {limits.tokens} tokens ({tokens} used)")
        if reached is not None:
            execution.fail(reached)
            raise Refused(403, reached.code, reached.message)


def _hash(execution: Execution, call: ModelCall) -> str:
    varies = execution.prepared.release.traits.varies
    return hash_of_request(call.path, call.data, varies) if varies else call.request_hash


def _key(execution: Execution, request_hash: str) -> str:
    return response_key(execution.prepared.upstream, request_hash)


def _ttl_s(execution: Execution) -> float:
    """Return for how long answers serve this run's calls."""
    prepared, asked = execution.prepared, execution.run.options.get("cache")
    return cache_ttl_s(prepared.project.config, prepared.upstream.alias, prepared.definition.file.cache, asked)


def _usage(response: ModelResponse) -> dict[str, Any] | None:
    if response.usage is None:
        return None
    usage = response.usage
    counted: dict[str, Any] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    if usage.cached_input_tokens:
        counted["cached_input_tokens"] = usage.cached_input_tokens
    if usage.reasoning_tokens:
        counted["reasoning_tokens"] = usage.reasoning_tokens
    return counted
