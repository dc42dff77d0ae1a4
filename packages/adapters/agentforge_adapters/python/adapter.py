"""Plain Python as a framework: native agents are functions, portable agents run in the small loop below.

A native agent is `async def agent(input, ctx)` or `def agent(input, ctx)` (which gets a thread of its own, so that
it may block); what it returns is the output. `ctx` is the run's `RunContext`.
"""

import asyncio
import contextvars
import functools
import inspect
import json
import platform
import re
from typing import Any, Callable, Dict, List, Mapping, Union

from agentforge_worker.adapter import (
    Adapter,
    AgentCard,
    AgentSpec,
    BuildContext,
    Message,
    Natives,
    Probe,
    Result,
    RunContext,
    Start,
    StepLimitReached,
)
from agentforge_worker.runtime.threads import run_in_thread

__all__ = ["PythonAdapter"]

Function = Callable[[Any, RunContext], Any]


def _is_agent(found: Any) -> bool:
    """Whether it can be called with an input and a run; what does not say is believed."""
    if not callable(found):
        return False
    try:
        inspect.signature(found).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


class PythonAdapter(Adapter["Union[Loop, Function]"]):
    """Runs functions, and portable agents in a loop over `ctx.chat`."""

    natives = Natives("a function `agent(input, ctx)`", _is_agent)
    native_concurrent = True  # a function has no client of its own: its effects go through its own `ctx`

    def probe(self) -> Probe:
        """Say which Python this is."""
        return Probe(platform.python_version(), {"implementation": platform.python_implementation()})

    def build(self, spec: AgentSpec, ctx: BuildContext) -> "Loop":
        """Make the loop of a portable agent."""
        return Loop(spec)

    def describe(self, agent: "Union[Loop, Function]") -> AgentCard:
        """Name the agent, its tools and its model."""
        if isinstance(agent, Loop):
            spec = agent.spec
            return AgentCard(spec.name, spec.description, [tool.name for tool in spec.tools], [spec.model])
        name = getattr(agent, "__name__", type(agent).__name__)
        return AgentCard(name, (inspect.getdoc(agent) or "").split("\n\n")[0])

    async def run(self, agent: "Union[Loop, Function]", request: Start, ctx: RunContext) -> Result:
        """Run the loop or call the function."""
        if isinstance(agent, Loop):
            return await agent.run(request, ctx)
        if _is_async(agent):
            return Result(await agent(request.input, ctx))
        call = functools.partial(agent, request.input, ctx)
        return Result(await _in_thread(call, "agent-" + ctx.run_id))


class Loop:
    """Asks the model, calls the tools it asks for, and again, until it answers."""

    def __init__(self, spec: AgentSpec) -> None:
        self.spec = spec
        self._request: Dict[str, Any] = {}
        if spec.tools:
            self._request["tools"] = [{"type": "function", "function": dict(vars(tool))} for tool in spec.tools]
        if spec.output is not None:
            form = {"name": re.sub(r"\W", "_", spec.name)[:64], "schema": spec.output}
            self._request["response_format"] = {"type": "json_schema", "json_schema": form}

    async def run(self, request: Start, ctx: RunContext) -> Result:
        """Run to the answer. Raises StepLimitReached when the model has not given one by then."""
        messages = [{"role": "system", "content": self.spec.prompt}] if self.spec.prompt else []
        messages += [_to_wire(message) for message in request.messages]
        if not request.continues:
            messages.append({"role": "user", "content": request.text})
        added: List[Message] = []
        while True:
            answer = await self._ask(messages, ctx)
            for message in [answer, *await self._call_tools(answer, ctx)]:
                added.append(message)
                messages.append(_to_wire(message))
            if not answer.tool_calls:
                return Result(self._output(answer.content), added)
            if self.spec.max_steps and sum(m.role == "assistant" for m in added) >= self.spec.max_steps:
                raise StepLimitReached(self.spec.max_steps)

    async def _ask(self, messages: List[Dict[str, Any]], ctx: RunContext) -> Message:
        with ctx.step("model"):
            response = await ctx.chat(messages, **self._request)
        message = _from_wire(response["choices"][0]["message"])
        ctx.emit("message.added", vars(message))
        return message

    async def _call_tools(self, answer: Message, ctx: RunContext) -> List[Message]:
        if not answer.tool_calls:
            return []
        tasks = [asyncio.ensure_future(_call_tool(call, ctx)) for call in answer.tool_calls]
        try:
            return list(await asyncio.gather(*tasks))
        finally:  # when one failed, the others end before the run does
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _output(self, text: str) -> Any:
        if self.spec.output is None:
            return text
        try:
            return json.loads(text)
        except ValueError:
            return text  # the host says that it does not match


async def _in_thread(call: Callable[[], Any], name: str) -> Any:
    """Return what a blocking call returns. The run is not over before it is: at its next effect, once cancelled."""
    work = asyncio.ensure_future(run_in_thread(contextvars.copy_context(), call, name))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                continue  # asked again; the host replaces a worker that can't leave its run
        raise


async def _call_tool(call: Mapping[str, Any], ctx: RunContext) -> Message:
    with ctx.step(call["name"], kind="tool"):
        value = await ctx.call_tool(call["name"], call["arguments"])
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Message("tool", text, tool_call_id=call["id"])


def _to_wire(message: Message) -> Dict[str, Any]:
    wire: Dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        wire["content"] = message.content or None
        wire["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _from_wire(wire: Mapping[str, Any]) -> Message:
    calls = [
        {
            "id": call["id"],
            "name": call["function"]["name"],
            "arguments": json.loads(call["function"]["arguments"] or "{}"),
        }
        for call in wire.get("tool_calls") or []
    ]
    return Message("assistant", wire.get("content") or "", calls)


def _is_async(function: Function) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
