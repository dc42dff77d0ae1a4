"""AutoGen 0.2: a portable agent becomes a chat of an assistant, which asks the model, and a user proxy with tools."""

import json
import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from autogen import ConversableAgent, UserProxyAgent
from autogen.io import IOStream
from openai import AsyncOpenAI

from agentforge_worker.adapter import (
    Adapter,
    AgentCard,
    AgentSpec,
    BuildContext,
    Message,
    Result,
    RunContext,
    Source,
    Start,
    StepLimitReached,
    ToolFailed,
    ToolSpec,
    current_run,
)

from . import conversable_native as native
from .conversable_client import RunModelClient
from .conversable_messages import USER, first_message, from_native, to_native
from .failing import failures, raise_failure
from .requests import create_args, openai_client
from .schemas import WRAPPED, as_object

__all__ = ["ConversableAdapter"]

_TURNS = 50
"""Rounds of model and tools where nothing is said of them."""

Json = Any
Function = Callable[..., Json]


class Quiet(IOStream):
    """Where the dialogue goes: its messages are events."""

    def print(self, *objects: Any, sep: str = " ", end: str = "\n", flush: bool = False) -> None:
        """Print nothing."""

    def input(self, prompt: str = "", *, password: bool = False) -> str:
        """Answer nothing."""
        return ""


@dataclass(frozen=True)
class Portable:
    """What the runs of a portable agent share. Agents hold their conversations: each run makes its own."""

    spec: AgentSpec
    client: AsyncOpenAI
    config: Dict[str, Json]
    functions: Dict[str, Function]

    @property
    def name(self) -> str:
        """AutoGen wants letters, digits, `_` and `-`."""
        return re.sub(r"[^a-zA-Z0-9_-]", "_", self.spec.name)[:64]

    @property
    def turns(self) -> int:
        """Rounds of the model and the tools that it asks for."""
        return int(self.spec.framework_settings.get("max_tool_iterations") or self.spec.max_steps or _TURNS)

    def agents(self, thread: List[Dict[str, Json]], stream: bool) -> Tuple[UserProxyAgent, ConversableAgent]:
        """Return who asks and executes, and who answers."""
        user = UserProxyAgent(
            USER,
            human_input_mode="NEVER",
            code_execution_config=False,
            function_map=self.functions,
            is_termination_msg=lambda message: not message.get("tool_calls"),
            max_consecutive_auto_reply=self.turns,
        )
        assistant = ConversableAgent(
            self.name,
            system_message=self.spec.prompt,
            human_input_mode="NEVER",
            llm_config={**self.config, **({"stream": True} if stream else {})},
            is_termination_msg=lambda message: False,
            max_consecutive_auto_reply=self.turns,
            chat_messages={user: thread},
        )
        assistant.register_model_client(RunModelClient, client=self.client)
        return user, assistant


Opened = Union[Portable, native.Native]


class ConversableAdapter(Adapter[Opened]):
    """Runs agents of AutoGen 0.2, which block."""

    distribution = "pyautogen"
    natives = native.NATIVES

    def __init__(self) -> None:
        self._client: Optional[AsyncOpenAI] = None

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Portable:
        """Make what the agents of the runs are made of."""
        if self._client is None:
            self._client = openai_client(ctx.gateway.base_url)
        config: Dict[str, Json] = {
            "config_list": [{"model": spec.model, "model_client_cls": RunModelClient.__name__, "price": [0, 0]}],
            "cache_seed": None,  # no answers out of a file
            **{name: value for name, value in create_args(spec).items() if name != "model"},
        }
        if spec.tools:
            config["tools"] = [{"type": "function", "function": _signature(tool)} for tool in spec.tools]
        if spec.output:
            form = {"name": re.sub(r"\W", "_", spec.output.get("title", "answer")), "schema": as_object(spec.output)}
            config["response_format"] = {"type": "json_schema", "json_schema": form}
        return Portable(spec, self._client, config, {tool.name: _function(tool, ctx) for tool in spec.tools})

    async def load(self, source: Source, ctx: BuildContext) -> native.Native:
        """Import a native agent, or a function. One that makes an agent is called for each run, not here."""
        return native.load(source, ctx.loop)

    def describe(self, agent: Opened) -> AgentCard:
        """Name the agent, its tools and its model."""
        if not isinstance(agent, Portable):
            return native.describe(agent)
        spec = agent.spec
        return AgentCard(spec.name, spec.description, list(agent.functions), [spec.model])

    def run(self, agent: Opened, request: Start, ctx: RunContext) -> Result:
        """Have the user proxy chat with the assistant until that one answers."""
        if not isinstance(agent, Portable):
            return native.run(agent, request, ctx)
        failures.set([])
        first, earlier = first_message(request)
        thread = to_native(earlier, agent.name)
        user, assistant = agent.agents(thread, request.stream)
        with IOStream.set_default(Quiet()):
            user.initiate_chat(assistant, clear_history=False, message=first, max_turns=agent.turns, silent=True)
        raise_failure()
        added = from_native(assistant.chat_messages[user][len(earlier) + 1 :])
        if not added or added[-1].tool_calls or added[-1].role != "assistant":
            raise StepLimitReached(agent.turns)
        return Result(_output(added[-1], agent.spec), added)


def _signature(tool: ToolSpec) -> Dict[str, Json]:
    """Return a tool as AutoGen describes a function: parameters without a description are described by their name."""
    parameters = {"required": [], **tool.parameters}
    properties = tool.parameters.get("properties", {})
    parameters["properties"] = {name: {"description": name, **each} for name, each in properties.items()}
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


def _function(tool: ToolSpec, ctx: BuildContext) -> Function:
    def call(**arguments: Json) -> Json:
        raise_failure()
        with current_run().step(tool.name, kind="tool"):
            try:
                return ctx.call_tool_blocking(tool.name, arguments)
            except ToolFailed as failure:
                failures.get([]).append(failure)
                raise

    return call


def _output(answer: Message, spec: AgentSpec) -> Json:
    if spec.output is None:
        return answer.content
    try:
        value = json.loads(answer.content)
    except ValueError:
        return answer.content  # the host says what is wrong with it
    if spec.output.get("type") == "object" or not isinstance(value, dict):
        return value
    return value.get(WRAPPED, value)
