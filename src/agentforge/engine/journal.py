"""Model traffic of all runs, as the gateway reports it: limits before, effects and events after."""

import time
from collections.abc import Callable
from typing import Any

from agentforge.engine.execution import Execution
from agentforge.errors.runs import LimitReached
from agentforge.gateway import ModelCall, ModelFailure, ModelResponse, Refused, failure_error
from agentforge.store import Effect

__all__ = ["Journal"]


class Journal:
    """Implements the gateway's `CallObserver` for the executions that `find` knows by run id."""

    def __init__(self, find: Callable[[str], Execution | None], clock: Callable[[], float] = time.time) -> None:
        self._find = find
        self._clock = clock

    async def requested(self, call: ModelCall) -> ModelResponse | None:
        """Let a call through, or refuse it at a limit."""
        execution = self._find(call.run_id)
        if execution is None or execution.feed.finished:
            raise Refused(403, "AF508", "the run has ended")
        if execution.failure is not None or execution.cancel_requested.is_set():
            raise Refused(403, "AF508", "the run is ending")
        if execution.retries[call.request_hash] > 0:  # a client's second try at a failed call is no second step
            execution.retries[call.request_hash] -= 1
            self._check_limits(execution, steps=False)
        else:
            self._check_limits(execution)
            execution.tally.model_calls += 1
        execution.feed.emit(
            "model.requested",
            {"call_id": call.call_id, "model": call.model, "alias": call.alias, "stream": call.stream}
            | ({"retry": call.retry} if call.retry else {}),
        )
        return None

    def delta(self, call: ModelCall, text: str) -> None:
        """Pass a piece of streamed text on to those who watch."""
        execution = self._find(call.run_id)
        if execution is not None:
            execution.feed.emit("message.delta", {"call_id": call.call_id, "text": text})

    async def completed(self, call: ModelCall, response: ModelResponse) -> None:
        """Commit the effect and its event; returns once both are durable."""
        execution = self._find(call.run_id)
        if execution is None:
            raise Refused(403, "AF508", "the run has ended")
        usage = _usage(response)
        tally = execution.tally
        if usage is None:
            tally.uncounted_calls += 1
        else:
            tally.input_tokens += usage["input_tokens"]
            tally.output_tokens += usage["output_tokens"]
        execution.model_failure = None
        position, occurrence = execution.next_effect(call.request_hash)
        effect = Effect(
            run_id=execution.run.run_id,
            position=position,
            attempt=call.attempt,
            kind="model",
            request_hash=call.request_hash,
            occurrence=occurrence,
            request=call.body,
            response=response.to_record(),
            status=200,
            usage=usage,
            started_at=self._clock() - response.duration_ms / 1000,
            duration_ms=response.duration_ms,
        )
        data = {
            "call_id": call.call_id,
            "effect": position,
            "usage": usage,
            "duration_ms": round(response.duration_ms, 3),
        }
        await execution.feed.commit_effect(effect, "model.responded", data)

    async def failed(self, call: ModelCall, failure: ModelFailure) -> None:
        """Note a call without a complete answer: the run's error, if the framework gives up over it."""
        execution = self._find(call.run_id)
        if execution is None:
            return
        if failure.kind not in ("refused", "malformed"):
            execution.retries[call.request_hash] += 1
        error = failure_error(failure)
        execution.model_failure = error
        data: dict[str, Any] = {"call_id": call.call_id, "error": error.info().to_dict()}
        execution.feed.emit("model.failed", data)

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
