"""Native agents and chats of AutoGen 0.2: the user's own objects, run unchanged."""

import asyncio
import functools
import inspect
from typing import Any, Awaitable, Callable, Dict, List, Tuple

from autogen import ChatResult, ConversableAgent, GroupChatManager, UserProxyAgent

from agentforge_worker.adapter import AgentCard, Natives, Result, RunContext, Source, Start, current_run

from .conversable_messages import USER, from_native

__all__ = ["NATIVES", "Native", "describe", "load", "run"]

Json = Any
Native = Any
"""Who begins a chat and with whom, an agent that is asked, a function that makes these, or one that takes the input."""
_RECORDED = "agentforge_recorded"


def _is_native(found: Any) -> bool:
    if isinstance(found, tuple):
        return len(found) == 2 and all(isinstance(each, ConversableAgent) for each in found)
    return isinstance(found, ConversableAgent)


NATIVES = Natives("an agent of AutoGen, or a pair of who begins a chat and with whom", _is_native)


def load(source: Source, loop: asyncio.AbstractEventLoop) -> Native:
    """Import what the entry point names, and have the functions that agents execute recorded."""
    record_functions(loop)
    return NATIVES.named(source.module, source.attribute)


def describe(native: Native) -> AgentCard:
    """Name an agent; of a function nothing but its name is known before a run."""
    if inspect.isroutine(native):
        return AgentCard(native.__name__, inspect.getdoc(native) or "")
    if isinstance(native, tuple):
        native = native[1]
    return AgentCard(native.name, native.description or "", list(native.function_map))


def run(native: Native, request: Start, ctx: RunContext) -> Result:
    """Have a chat begun with the input, or call a function with it."""
    if inspect.isroutine(native) and _takes_input(native):
        return _result(_finished(native(request.input), ctx), ctx)
    native = NATIVES.made_blocking(native, ctx.wait)
    if request.messages:
        ctx.warn("a native chat has no place for the conversation so far: it gets the input alone")
    sender, recipient = native if isinstance(native, tuple) else (_user(), native)
    for agent in (sender, recipient):  # those that were loaded remember their last run
        agent.reset()
    chat = sender.initiate_chat(recipient, message=request.text)
    if isinstance(recipient, GroupChatManager):  # whoever began it need not be told what the group says
        return _said(recipient.groupchat.messages, ctx)
    return _result(chat, ctx)


def record_functions(loop: asyncio.AbstractEventLoop) -> None:
    """Have each call of a function made once in all attempts of a run.

    AutoGen says that `execute_function` is to be overridden to change how functions are executed; this does so for
    the agents of the process.
    """
    if hasattr(ConversableAgent.execute_function, _RECORDED):
        return
    ConversableAgent.execute_function = _recorded(ConversableAgent.execute_function)
    ConversableAgent.a_execute_function = _recorded_waiting(ConversableAgent.a_execute_function, loop)


def _recorded(execute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(execute)
    def call(agent: ConversableAgent, func_call: Dict[str, Json], *rest: Any, **options: Any) -> Tuple[bool, Json]:
        run = current_run()
        if run.spec is not None:
            return execute(agent, func_call, *rest, **options)  # type: ignore[no-any-return]
        with run.step(func_call.get("name", ""), kind="tool"):
            done, told = run.tool_effect_blocking(
                func_call.get("name", ""),
                {"arguments": func_call.get("arguments")},
                lambda: list(execute(agent, func_call, *rest, **options)),
            )
        return done, told

    setattr(call, _RECORDED, True)
    return call


def _recorded_waiting(execute: Callable[..., Any], worker: asyncio.AbstractEventLoop) -> Callable[..., Any]:
    async def waited(run: RunContext, effect: Awaitable[Any]) -> Any:
        # In a chat that blocks AutoGen runs such a function on a loop of its own, whose thread may wait.
        return await effect if asyncio.get_running_loop() is worker else run.wait(effect)

    @functools.wraps(execute)
    async def call(agent: ConversableAgent, func_call: Dict[str, Json]) -> Tuple[bool, Json]:
        run = current_run()
        if run.spec is not None:
            return await execute(agent, func_call)  # type: ignore[no-any-return]
        name = func_call.get("name", "")
        with run.step(name, kind="tool"):
            begun = await waited(run, run.begin_tool(name, {"arguments": func_call.get("arguments")}))
            if begun.recorded:
                done, told = begun.result()
            else:
                done, told = await waited(run, begun.returned(list(await execute(agent, func_call))))
        return done, told

    return call


def _takes_input(function: Callable[..., Any]) -> bool:
    signature = inspect.signature(function)
    try:
        signature.bind(None)
    except TypeError:
        return False
    return bool(signature.parameters)


def _user() -> UserProxyAgent:
    """Return who asks an agent that is alone: one that takes the first answer."""
    return UserProxyAgent(
        USER, human_input_mode="NEVER", code_execution_config=False, is_termination_msg=lambda message: True
    )


def _finished(value: Any, ctx: RunContext) -> Any:
    return ctx.wait(value) if inspect.isawaitable(value) else value


def _result(end: Any, ctx: RunContext) -> Result:
    return _said(end.chat_history, ctx) if isinstance(end, ChatResult) else Result(end)


def _said(messages: List[Dict[str, Json]], ctx: RunContext) -> Result:
    added = from_native([_seen_from_outside(message) for message in messages[1:]])
    for message in added:
        ctx.emit("message.added", vars(message))
    return Result(added[-1].content if added else "", added)


def _seen_from_outside(message: Dict[str, Json]) -> Dict[str, Json]:
    """Return a message as neither agent sees it: to one that chats, what the others say is a user's."""
    roles = {"user": "assistant"} if message.get("tool_calls") else {"user": "assistant", "assistant": "user"}
    return {**message, "role": roles.get(message.get("role", ""), message.get("role"))}
