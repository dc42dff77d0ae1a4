"""The RunContext that adapters get: effects through the host, events, the end of the run."""

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
from typing import Any, Awaitable, Callable, Coroutine, Dict, Mapping, Optional, Sequence, Set, Tuple, Type, Union

from agentforge_worker.adapter import (
    MISSING,
    AgentSpec,
    Cancelled,
    EffectFailed,
    Gateway,
    Message,
    RunContext,
    Start,
    StepScope,
    ToolCall,
    ToolFailed,
)
from agentforge_worker.runtime.bounds import MAX_LINE, check_child, check_kind, check_name, check_question, cut
from agentforge_worker.runtime.chat import ChatClient, ModelFailed
from agentforge_worker.runtime.later import known
from agentforge_worker.runtime.raised import described, made_again
from agentforge_worker.runtime.threads import run_in_thread
from agentforge_worker.tools import ResultError, to_json
from agentforge_worker.wire import ErrorCode, Method, Peer, RpcError

__all__ = ["Run"]

Params = Dict[str, Any]

_UNWIND_S = 0.5
"""Seconds in which the cancellation of a run reaches the code that waits for an effect."""
_NOT_JSON = "AF604"


class Run(RunContext):
    """One attempt of a run, under way in this worker."""

    def __init__(
        self,
        params: Mapping[str, Any],
        peer: Peer,
        loop: asyncio.AbstractEventLoop,
        gateway: Gateway,
        chat: ChatClient,
        spec: Optional[AgentSpec],
    ) -> None:
        self.run_id = str(params["run_id"])
        self.attempt = int(params.get("attempt", 1))
        self.token = str(params["token"])
        self.workspace = str(params["workspace"])
        self.gateway = gateway
        self.spec = spec
        self.request = Start(
            input=params["input"],
            messages=[Message(**{"content": "", **known(Message, message)}) for message in params.get("messages", [])],
            stream=bool(params.get("stream", False)),
            continues=bool(params.get("continues", False)),
        )
        self.leave: Callable[[], None] = self.mark_cancelled
        """Has the framework leave the run; set by the server."""
        self._peer = peer
        self._loop = loop
        self._chat = chat
        self._cancelled = False
        self._steps = 0
        self._waiting: Set["concurrent.futures.Future[Any]"] = set()
        self._left: Set["asyncio.Future[Any]"] = set()

    @property
    def key(self) -> Tuple[str, int]:
        """The run and its attempt, by which a worker knows it."""
        return self.run_id, self.attempt

    # ---- effects

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a declared tool through the host."""
        check_name("a tool", name)
        params = {"name": name, "arguments": dict(arguments)}
        return (await self.ask_host(Method.TOOL_CALL, params, ToolFailed))["value"]

    async def tool_effect(
        self, name: str, arguments: Mapping[str, Any], call: Callable[..., Any], *, idempotent: bool = False
    ) -> Any:
        """Call a tool of the agent's own once in all attempts."""
        begun = await self.begin_tool(name, arguments, idempotent=idempotent)
        if begun.recorded:
            return begun.result()
        try:
            value = _to_json(await _called(_with_key(call, begun), name))
        except (Exception, asyncio.CancelledError) as error:
            await begun.raised(error)
            raise
        return await begun.returned(value)

    def tool_effect_blocking(
        self, name: str, arguments: Mapping[str, Any], call: Callable[..., Any], *, idempotent: bool = False
    ) -> Any:
        """Call a tool of the agent's own once in all attempts, in the thread that asks."""
        begun = self.wait(self.begin_tool(name, arguments, idempotent=idempotent))
        if begun.recorded:
            return begun.result()
        try:
            value = _to_json(_with_key(call, begun)())
        except (Exception, asyncio.CancelledError) as error:
            self.wait(begun.raised(error))
            raise
        return self.wait(begun.returned(value))

    async def begin_tool(self, name: str, arguments: Mapping[str, Any], *, idempotent: bool = False) -> ToolCall:
        """Announce a call of a tool of the agent's own."""
        check_name("a tool", name)
        params = {"name": name, "arguments": _to_json(dict(arguments)), "idempotent": bool(idempotent)}
        return _OwnToolCall(self, await self.ask_host(Method.EFFECT_OPEN, params, ToolFailed))

    async def ask(
        self,
        question: str,
        *,
        options: Optional[Sequence[Any]] = None,
        schema: Optional[Mapping[str, Any]] = None,
        timeout_s: Optional[float] = None,
        default: Any = MISSING,
    ) -> Any:
        """Ask a human."""
        check_question(question, options, timeout_s)
        params = {
            "question": question,
            "options": None if options is None else list(options),
            "schema": None if schema is None else dict(schema),
            "timeout_s": timeout_s,
            "default": None if default is MISSING else default,
            "has_default": default is not MISSING,
        }
        return (await self.ask_host(Method.QUESTION_ASK, params))["value"]

    async def now(self) -> float:
        """Return the time, the same in every attempt."""
        return float((await self.ask_host(Method.VALUE_TAKE, {"kind": "now"}))["value"])

    async def random(self) -> float:
        """Return a random number, the same in every attempt."""
        return float((await self.ask_host(Method.VALUE_TAKE, {"kind": "random"}))["value"])

    async def checkpoint(self, name: str) -> None:
        """Name this place in the run."""
        check_name("a checkpoint", name)
        await self.ask_host(Method.CHECKPOINT_SAVE, {"name": name})

    async def run_agent(
        self,
        agent: Union[str, Mapping[str, Any]],
        input: Any,
        *,
        on: Optional[str] = None,
        model: Optional[str] = None,
        timeout_s: Optional[float] = None,
    ) -> Dict[str, Any]:
        """Run another agent as a run of its own."""
        check_child(agent, on, model, timeout_s)
        asked = agent if isinstance(agent, str) else dict(agent)
        params = {"agent": asked, "input": input, "on": on, "model": model, "timeout_s": timeout_s}
        result: Dict[str, Any] = await self.ask_host(Method.RUN_CALL, params)
        return result

    async def chat(self, messages: Sequence[Mapping[str, Any]], **request: Any) -> Dict[str, Any]:
        """Make one chat-completions request through the gateway."""
        self.check()
        body: Dict[str, Any] = {"model": self.spec.model if self.spec else "default"}
        if self.spec:
            body.update(self.spec.settings)
        body.update(request)
        body["messages"] = [dict(message) for message in messages]
        if self.request.stream:
            body.setdefault("stream", True)
        try:
            return await self._chat.complete(body, self.token)
        except ModelFailed:
            self.check()  # the host refuses the models to a run that is to end
            raise

    # ---- news

    def emit(self, kind: str, data: Mapping[str, Any]) -> None:
        """Send an event."""
        check_kind(kind)
        self._notify(Method.EVENT_EMIT, {"kind": kind, "data": dict(data)})

    def step(self, name: str, **data: Any) -> StepScope:
        """Return the scope of a step."""
        self._steps += 1
        return _Step(self, self._steps, name, data)

    def warn(self, message: str) -> None:
        """Tell the user about something that can't be done here."""
        self._notify(Method.RUN_WARN, {"message": cut(str(message), MAX_LINE)})

    # ---- the end

    def check(self) -> None:
        """Raise Cancelled if the run is to end."""
        if self._cancelled:
            raise Cancelled("the run is to end")

    def wait(self, awaitable: "Awaitable[Any]") -> Any:
        """Wait for an awaitable from a thread that is not the loop's. Raises Cancelled as soon as the run is to end."""
        work = awaitable if inspect.iscoroutine(awaitable) else _as_coroutine(awaitable)
        if self._cancelled or self._on_loop():
            work.close()
            self.check()
            raise RuntimeError("`wait` is for threads: on the loop, `await` it")
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._waiting.add(waiting)
        try:
            self.check()
            return waiting.result()
        except concurrent.futures.CancelledError:
            raise Cancelled("the run is to end") from None
        finally:
            self._waiting.discard(waiting)
            waiting.cancel()  # no effect on one that is done

    @property
    def cancelled(self) -> bool:
        """Whether the run is to end."""
        return self._cancelled

    def mark_cancelled(self) -> None:
        """Make every later effect raise Cancelled, and those that a thread waits for now."""
        self._cancelled = True
        for waiting in list(self._waiting):
            waiting.cancel()

    # ---- inside

    async def ask_host(self, method: str, params: Params, failure: Type[EffectFailed] = EffectFailed) -> Any:
        """Send a request in the name of this attempt. Raises `failure`, or Cancelled when the host ends the run."""
        self.check()
        try:
            return await self._peer.call(method, {"run_id": self.run_id, "attempt": self.attempt, **params})
        except RpcError as error:
            if error.code != ErrorCode.CANCELLED:
                raise _failed(error, failure) from None
        # The framework is left the way a cancellation leaves it, from the outside in. What it does not reach (a task
        # that nobody waits for) is stopped here.
        self.leave()
        await asyncio.sleep(_UNWIND_S)
        raise Cancelled("the run is to end")

    def leave_to_itself(self, work: "Coroutine[Any, Any, Any]") -> None:
        """Have something done that nobody waits for. Called on the loop."""
        task = asyncio.ensure_future(work)
        self._left.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Future[Any]") -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # it is nobody's: the run goes on, or has ended

    def _notify(self, method: str, news: Params) -> None:
        params = {"run_id": self.run_id, "attempt": self.attempt, **news}
        if self._on_loop():
            self._peer.notify(method, params)
        else:
            self._loop.call_soon_threadsafe(self._peer.notify, method, params)

    def _on_loop(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False


async def _as_coroutine(awaitable: "Awaitable[Any]") -> Any:
    return await awaitable


def _failed(error: RpcError, failure: Type[EffectFailed]) -> EffectFailed:
    info = error.data if isinstance(error.data, dict) else {}
    text, hint = str(info.get("message", error.message)), str(info.get("hint") or "")
    if issubclass(failure, ToolFailed):
        return failure(str(info.get("code", "AF600")), text, hint)
    return failure(str(info.get("code", "AF423")), text, hint, str(info.get("origin") or "host"))


async def _called(ready: Callable[[], Any], name: str) -> Any:
    if inspect.iscoroutinefunction(ready):
        return await ready()
    value = await run_in_thread(contextvars.copy_context(), ready, "tool-" + name)
    return await value if inspect.isawaitable(value) else value


def _with_key(call: Callable[..., Any], begun: ToolCall) -> Callable[[], Any]:
    """Give a tool that asks for it the key by which a repetition of its call can be known."""
    try:
        asks = "idempotency_key" in inspect.signature(call).parameters
    except (TypeError, ValueError):
        asks = False
    return functools.partial(call, idempotency_key=begun.idempotency_key) if asks else call


def _to_json(value: Any) -> Any:
    try:
        return to_json(value)
    except ResultError as error:
        raise ToolFailed(_NOT_JSON, str(error)) from None


class _OwnToolCall(ToolCall):
    def __init__(self, run: Run, opened: Params) -> None:
        self.recorded = opened["effect"] is None
        self.idempotency_key = opened.get("idempotency_key")
        self._run = run
        self._opened = opened

    def result(self) -> Any:
        if self._opened.get("error") is not None:
            raise made_again(self._opened["error"])
        return self._opened.get("value")

    async def returned(self, value: Any) -> Any:
        value = _to_json(value)
        await self._close({"value": value})
        return value

    async def raised(self, error: BaseException) -> None:
        if self._run.cancelled:
            return
        closing = self._close({"error": described(error)})
        if isinstance(error, asyncio.CancelledError):  # the framework gave it up, and waits for nothing more
            self._run.leave_to_itself(closing)
        else:
            await closing

    async def _close(self, outcome: Params) -> None:
        await self._run.ask_host(Method.EFFECT_CLOSE, {"effect": self._opened["effect"], **outcome}, ToolFailed)


class _Step(StepScope):
    def __init__(self, run: Run, number: int, name: str, data: Mapping[str, Any]) -> None:
        self._run = run
        self._head = {"step": number, "name": name}
        self._data = data

    def __enter__(self) -> StepScope:
        self._run.emit("step.started", {**self._head, **self._data})
        return self

    def __exit__(self, *exc: Any) -> None:
        self._run.emit("step.finished", {**self._head, "failed": exc[0] is not None})
