"""Native agents whose workers die: their own tools, which run in the worker, are called once all the same."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import PATIENCE_S, Project

COMMON = """
import json, os, time

HERE = {here!r}


def note(name, n):
    with open(os.path.join(HERE, "calls.log"), "a") as log:
        log.write(json.dumps([name, n]) + "\\n")
    while os.path.exists(os.path.join(HERE, "gate." + name)):
        time.sleep(0.01)
    return f"{{name}} {{n}}"
"""
AGENTS = {
    "python": """
async def agent(input, ctx):
    messages = [{{"role": "user", "content": input}}]
    while True:
        answer = (await ctx.chat(messages, model={model!r}))["choices"][0]["message"]
        messages.append(answer)
        if not answer.get("tool_calls"):
            return answer["content"]
        for call in answer["tool_calls"]:
            name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
            told = await ctx.tool_effect(name, arguments, lambda: note(name, arguments["n"]))
            messages.append({{"role": "tool", "tool_call_id": call["id"], "content": told}})
""",
    "langchain": """
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

@tool
def careful(n: int) -> str:
    "Be careful."
    return note("careful", n)

@tool
def slow(n: int) -> str:
    "Be slow."
    return note("slow", n)

agent = create_agent(ChatOpenAI(model={model!r}), [careful, slow])
""",
    "langgraph": """
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

@tool
def careful(n: int) -> str:
    "Be careful."
    return note("careful", n)

@tool
def slow(n: int) -> str:
    "Be slow."
    return note("slow", n)

model = ChatOpenAI(model={model!r}).bind_tools([careful, slow])
graph = StateGraph(MessagesState)
graph.add_node("model", lambda state: dict(messages=[model.invoke(state["messages"])]))
graph.add_node("tools", ToolNode([careful, slow]))
graph.add_edge(START, "model")
graph.add_conditional_edges("model", tools_condition)
graph.add_edge("tools", "model")
agent = graph.compile()
""",
    "crewai": """
from crewai import LLM, Agent
from crewai.tools import tool

@tool
def careful(n: int) -> str:
    "Be careful."
    return note("careful", n)

@tool
def slow(n: int) -> str:
    "Be slow."
    return note("slow", n)

def agent():
    llm = LLM(model={model!r}, provider="openai")
    return Agent(role="r", goal="g", backstory="b", llm=llm, tools=[careful, slow])
""",
    "pydantic-ai": """
from pydantic_ai import Agent

agent = Agent("openai-chat:" + {model!r})

@agent.tool_plain
def careful(n: int) -> str:
    return note("careful", n)

@agent.tool_plain
def slow(n: int) -> str:
    return note("slow", n)
""",
    "autogen": """
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import TextMentionTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_ext.models.openai import OpenAIChatCompletionClient

INFO = {{"vision": False, "function_calling": True, "json_output": True, "structured_output": True, "family": "any"}}

def careful(n: int) -> str:
    "Be careful."
    return note("careful", n)

def slow(n: int) -> str:
    "Be slow."
    return note("slow", n)

def agent():
    client = OpenAIChatCompletionClient(model={model!r}, model_info=INFO)
    worker = AssistantAgent("worker", client, tools=[careful, slow], max_tool_iterations=5)
    return RoundRobinGroupChat([worker], termination_condition=TextMentionTermination("done"))
""",
    "ag2": """
from ag2 import Agent
from ag2.config import OpenAIConfig

def careful(n: int) -> str:
    "Be careful."
    return note("careful", n)

def slow(n: int) -> str:
    "Be slow."
    return note("slow", n)

agent = Agent("mine", config=OpenAIConfig({model!r}), tools=[careful, slow])
""",
}
UNSEEN = """
from langchain.agents import create_agent
from langchain_core.tools import BaseTool
from langchain_openai import ChatOpenAI

class Unseen(BaseTool):
    description: str = "No function."

    def _run(self, n: int) -> str:
        return note(self.name, n)

agent = create_agent(ChatOpenAI(model={model!r}), [Unseen(name="careful"), Unseen(name="slow")])
"""
DELEGATING = """
from pydantic_ai import Agent
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart

inner = Agent("openai-chat:" + {model!r}, instructions="Inner.")
agent = Agent("openai-chat:" + {model!r})

@agent.tool_plain
async def careful(n: int) -> str:
    said = [ModelRequest.user_text_prompt("Hi."), ModelResponse([TextPart("Hi.")])]
    await inner.run("Say it.", message_history=said * 2)  # the script's third answer is text
    return note("careful", n)

@agent.tool_plain
def slow(n: int) -> str:
    return note("slow", n)
"""
FRAMEWORKS = [
    "python",
    pytest.param("langchain", marks=pytest.mark.framework("langchain")),
    pytest.param("langgraph", marks=pytest.mark.framework("langgraph")),
    pytest.param("crewai", marks=pytest.mark.framework("crewai")),
    pytest.param("pydantic-ai", marks=pytest.mark.framework("pydantic-ai")),
    pytest.param("autogen", marks=pytest.mark.framework("autogen")),
    pytest.param("ag2", marks=pytest.mark.framework("ag2")),
]


class World:
    """A project with a native agent that calls `careful(0)` and `slow(1)` and answers then."""

    def __init__(self, project: Project, framework: str, code: str = "", **native: Any) -> None:
        self.project = project
        self.here = project.marks
        calls = [CalledTool("careful", {"n": 0}, "call_0"), CalledTool("slow", {"n": 1}, "call_1")]
        steps = [*(Step(calls=[call]) for call in calls), Step(text="done: {tool}")]
        self.model = project.model.script("native", *steps, per="conversation")
        text = COMMON.format(here=str(self.here)) + (code or AGENTS[framework]).format(model=self.model)
        project.native("mine", text, framework)
        native = {"framework": framework, "entrypoint": "code:agent", **native}
        self.agent = project.agent("mine", native=native, permissions={"write": [str(self.here)]})

    def calls(self) -> list[Any]:
        log = self.here / "calls.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def gate(self, name: str) -> Path:
        gate = self.here / f"gate.{name}"
        gate.touch()
        return gate

    async def until_called(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.calls()) < count:
                await asyncio.sleep(0.02)

    async def kill_worker(self) -> None:
        (worker,) = await self.project.workers("agent")
        os.kill(worker["pid"], signal.SIGKILL)

    async def answer(self, run: str, decision: str) -> None:
        async with self.project.connection() as connection:
            await connection.post(f"/v1/runs/{run}/answer", {"decision": decision, "variables": self.project.variables})


async def killed_in_slow(world: World) -> tuple[dict[str, Any], list[str]]:
    """Kill the worker while `slow` is under way; have all that waits for a human go on, and return the kinds of it."""
    gate = world.gate("slow")
    run = await world.project.detached(world.agent, "Go.", "--model", f"openai:{world.model}")
    await world.until_called(2)
    await world.kill_worker()
    kinds = []
    while (result := await world.project.ended(run))["status"] == "waiting":
        (interrupt,) = result["interrupts"]
        kinds.append(interrupt["kind"])
        gate.unlink(missing_ok=True)
        await world.answer(run, "retry")
    assert (result["status"], result["output"]) == ("succeeded", "done: slow 1"), result
    return result, kinds


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_tool_of_its_own_that_has_returned_is_not_called_again(project: Project, framework: str) -> None:
    """The one that was under way waits for a human, as any tool that must not run twice does."""
    world = World(project, framework)
    _, kinds = await killed_in_slow(world)
    assert kinds == ["tool"]
    assert world.calls() == [["careful", 0], ["slow", 1], ["slow", 1]]
    assert len(project.model.requests) == 3


async def test_tools_that_are_declared_idempotent_are_called_again_at_once(project: Project) -> None:
    world = World(project, "python", tools_idempotent=True)
    gate = world.gate("slow")
    run = await project.detached(world.agent, "Go.", "--model", f"openai:{world.model}")
    await world.until_called(2)
    await world.kill_worker()
    await world.until_called(3)
    gate.unlink()
    assert (await project.ended(run))["output"] == "done: slow 1"
    assert world.calls() == [["careful", 0], ["slow", 1], ["slow", 1]]


@pytest.mark.framework("langchain")
async def test_tools_that_no_hook_shows_are_called_again_only_if_a_human_allows_it(project: Project) -> None:
    world = World(project, "langchain", UNSEEN)
    _, kinds = await killed_in_slow(world)
    assert kinds == ["recovery"]
    assert world.calls() == [["careful", 0], ["slow", 1]] * 2
    assert len(project.model.requests) == 3


@pytest.mark.framework("pydantic-ai")
async def test_what_a_tool_asked_a_model_for_is_part_of_its_call(project: Project) -> None:
    """An agent whose tool is another agent: once the tool has returned, that one is not asked again."""
    world = World(project, "pydantic-ai", DELEGATING)
    _, kinds = await killed_in_slow(world)
    assert kinds == ["tool"]
    assert world.calls() == [["careful", 0], ["slow", 1], ["slow", 1]]
    assert len(project.model.requests) == 4
