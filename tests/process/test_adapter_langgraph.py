"""The LangGraph adapter: the suite, the end of the steps, native graphs."""

from pathlib import Path

import pytest

from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.lab import Lab
from agentforge_conformance.scripted_model import CalledTool, Step
from agentforge_worker.wire import ErrorCode

GRAPHS = """
import os
from pathlib import Path

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt


@tool
def careful(n: int) -> dict:
    "Be careful."
    with Path(__file__).with_name("called").open("a") as file:
        file.write(f"{n} ")
    return {"n": n}


async def token():
    return os.environ["OPENAI_API_KEY"]


model = ChatOpenAI(model="own", api_key=token)


async def ask(state: MessagesState):
    return {"messages": [await model.bind_tools([careful]).ainvoke(state["messages"])]}


def make():
    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([careful]))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", tools_condition)
    graph.add_edge("tools", "ask")
    return graph.compile()


@tool
def book(city: str) -> str:
    "Book."
    with Path(__file__).with_name("called").open("a") as file:
        file.write(f"{city} ")
    return f"{city}: {interrupt({'sure of': city})}"


def approve(state: MessagesState):
    return {"messages": [("ai", f"approved: {interrupt('Approve?')}")]}


def make_asking():
    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask_booker)
    graph.add_node("tools", ToolNode([book]))
    graph.add_node("approve", approve)
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", lambda state: tools_condition(state).replace("__end__", "approve"))
    graph.add_edge("tools", "ask")
    return graph.compile(checkpointer=InMemorySaver())


async def ask_booker(state: MessagesState):
    return {"messages": [await model.bind_tools([book]).ainvoke(state["messages"])]}


@task
def double(n):
    return 2 * n


@entrypoint()
async def doubles(input):
    return {"double": await double(input["n"])}
"""


@pytest.mark.framework("langgraph")
class TestLangGraph(AdapterSuite):
    reference = "langgraph"

    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    async def test_an_agent_that_runs_out_of_steps_fails(self, lab: Lab, stream: bool) -> None:
        """LangGraph ends with a sentence of its own, as if that were the answer."""
        lab.model.script("endless", Step(calls=[CalledTool("add", {"a": 1, "b": 1})]))
        error = await lab.fail(await lab.open(model="endless", max_steps=2), stream=stream)
        assert (error.data["code"], error.data["origin"]) == ("AF425", "user")

    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    async def test_tools_of_a_graph_are_called_once_in_all_attempts(self, lab: Lab, place: Path, stream: bool) -> None:
        (place / f"lg_own_{stream}.py").write_text(GRAPHS)
        agent = await lab.open_native(place, f"lg_own_{stream}:make")
        call = CalledTool("careful", {"n": 4}, "call_1")
        lab.model.script("own", Step(calls=[call]), Step(text="It said {tool}."), per="conversation")
        first = await lab.run(agent, stream=stream)
        assert [bool(r.json["stream"]) for r in lab.requests(first)] == [stream] * 2
        again = await lab.run(agent, run=lab.trial.prepare_again(first), stream=stream)
        for run in (first, again):
            assert run.own_tool_calls == [("careful", {"n": 4})]
            assert run.result["output"] == 'It said {"n": 4}.'
        assert [r.body for r in lab.requests(again)] == [r.body for r in lab.requests(first)]
        assert (place / "called").read_text() == "4 "

    async def test_a_function_of_the_functional_api_is_a_native_agent(self, lab: Lab, place: Path) -> None:
        (place / "lg_functional.py").write_text(GRAPHS)
        run = await lab.run(await lab.open_native(place, "lg_functional:doubles"), {"n": 21})
        assert run.result["output"] == {"double": 42}

    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    async def test_a_graphs_own_interrupts_are_questions_to_a_human(self, lab: Lab, place: Path, stream: bool) -> None:
        """In tools and in nodes; each attempt comes to them again, and has the answers that were given."""
        (place / f"lg_asks_{stream}.py").write_text(GRAPHS)
        agent = await lab.open_native(place, f"lg_asks_{stream}:make_asking")
        call = CalledTool("book", {"city": "Rome"}, "call_1")
        lab.model.script("own", Step(calls=[call]), Step(text="It said {tool}."), per="conversation")
        lab.trial.answers.clear()
        run = lab.trial.prepare()
        for question, answer in (('{"sure of": "Rome"}', "yes"), ("Approve?", "of course")):
            assert (await lab.fail(agent, run=run, stream=stream)).code == ErrorCode.CANCELLED
            assert run.asked[-1][1]["question"] == question
            lab.trial.answers[question] = answer
            run = lab.trial.prepare_again(run)
        await lab.run(agent, run=run, stream=stream)
        assert run.result["output"] == "approved: of course"
        assert lab.requests(run)[1].json["messages"][-1]["content"] == "Rome: yes"
        assert len(lab.requests(run)) == 2
