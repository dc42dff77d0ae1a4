"""The LangChain adapter: the suite, structured output of known models, native agents."""

from pathlib import Path

import pytest

from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.lab import ADD, Lab
from agentforge_conformance.scripted_model import CalledTool, Step
from agentforge_worker.wire import ErrorCode

AGENTS = """
import os
from langchain.agents import create_agent
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI

doubles = RunnableLambda(lambda input: {"double": 2 * input["n"]})

async def token():
    return os.environ["OPENAI_API_KEY"]

def make():
    return create_agent(ChatOpenAI(model="scripted", api_key=token), [])
"""
OWN_TOOLS = """
import os
from dataclasses import dataclass
from pathlib import Path

from langchain.agents import create_agent
from langchain.tools import ToolRuntime
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException, tool
from langchain_openai import ChatOpenAI
from langgraph.graph import StateGraph, MessagesState
from langgraph.types import Command

from agentforge_worker.adapter import current_run


def note(n):
    with Path(__file__).with_name("called").open("a") as file:
        file.write(f"{n} ")


@dataclass
class Total:
    total: int


@tool
def plain(n: int) -> dict:
    "Plain."
    note(n)
    return {"n": n}


@tool
async def waits(n: int, config: RunnableConfig) -> list:
    "Waits."
    note(n)
    return [n, "config" if config["callbacks"] else ""]


@tool
def typed(n: int) -> Total:
    "Typed."
    note(n)
    return Total(n)


@tool(response_format="content_and_artifact")
def pair(n: int):
    "A pair."
    note(n)
    return f"content {n}", {"artifact": n}


@tool
def steers(n: int, runtime: ToolRuntime) -> Command:
    "Steers."
    note(n)
    return Command(update={"messages": [ToolMessage(f"steered {n}", tool_call_id=runtime.tool_call_id)]})


@tool
def raises(n: int) -> str:
    "Raises."
    note(n)
    raise ToolException(f"no {n}")


raises.handle_tool_error = True


@tool
async def confirm(n: int) -> str:
    "Confirm."
    return await current_run().ask(f"Sure of {n}?")


@tool
def confirm_in_a_thread(n: int) -> str:
    "Confirm."
    run = current_run()
    return run.wait(run.ask(f"Sure of {n}?"))


class Other(BaseTool):
    name: str = "other"
    description: str = "Other."

    def _run(self, n: int) -> int:
        return n


async def token():
    return os.environ["OPENAI_API_KEY"]


def make():
    tools = [plain, waits, typed, pair, steers, raises, confirm, confirm_in_a_thread, Other()]
    return create_agent(ChatOpenAI(model="own", api_key=token), tools)


def make_inside_another():
    return StateGraph(MessagesState).add_node("inner", make()).set_entry_point("inner").compile()
"""
OUTPUT = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}


@pytest.mark.framework("langchain")
class TestLangChain(AdapterSuite):
    reference = "langchain"

    async def test_a_model_known_to_hold_to_schemas_is_given_the_schema(self, lab: Lab) -> None:
        run = await lab.run(await lab.open(model="gpt-5", output=OUTPUT, tools=[ADD]))
        assert run.result["output"] == {"total": 2.0}
        assert lab.requests(run)[0].json["response_format"]["json_schema"]["name"] == "answer"
        assert [m["role"] for m in run.result["messages"]] == ["assistant", "tool", "assistant"]

    async def test_any_runnable_is_a_native_agent(self, lab: Lab, place: Path) -> None:
        (place / "lc_agents.py").write_text(AGENTS)
        run = await lab.run(await lab.open_native(place, "lc_agents:doubles"), {"n": 21})
        assert run.result["output"] == {"double": 42}

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_native_graph_takes_text_and_answers_with_text(self, lab: Lab, place: Path, stream: bool) -> None:
        (place / "lc_graphs.py").write_text(AGENTS)
        run = await lab.run(await lab.open_native(place, "lc_graphs:make"), "Hello!", stream=stream)
        assert run.result["output"] == "FINAL: Hello!"
        assert [bool(r.json["stream"]) for r in lab.requests(run)] == [stream]

    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    @pytest.mark.parametrize("made_by", ["make", "make_inside_another"])
    async def test_a_users_own_tools_are_called_once_in_all_attempts(
        self, lab: Lab, place: Path, stream: bool, made_by: str
    ) -> None:
        """What they return, and what they raise for the model to hear, is the same to the model both times."""
        module = f"lc_own_{made_by}_{stream}"
        (place / f"{module}.py").write_text(OWN_TOOLS)
        opened = await lab.trial.open(
            {"agent_id": module, "source": {"root": str(place), "module": module, "attribute": made_by}}
        )
        assert opened["warnings"] == ["the calls of the tool `other` are not recorded: only those of functions are"]
        names = ["plain", "waits", "typed", "pair", "steers", "raises", "other"]
        calls = [CalledTool(name, {"n": n}, f"call_{n}") for n, name in enumerate(names)]
        steps = [Step(calls=calls), Step(calls=calls[:1]), Step(text="end")]
        lab.model.script("own", *steps, per="conversation")
        first = await lab.run(module, stream=stream)
        recorded = sorted((call.name, call.arguments) for call in [*calls[:-1], calls[0]])
        assert sorted(first.own_tool_calls) == recorded
        assert first.journal['plain {"n": 0} 1']["value"] == {"n": 0}
        again = lab.trial.prepare_again(first)
        await lab.run(module, run=again, stream=stream)
        assert sorted(again.own_tool_calls) == recorded
        assert [r.body for r in lab.requests(again)] == [r.body for r in lab.requests(first)]
        told = [m["content"] for m in lab.requests(again)[1].json["messages"] if m["role"] == "tool"]
        assert told == ['{"n": 0}', '[1, "config"]', "Total(total=2)", "content 3", "steered 4", "no 5", "6"]
        assert sorted((place / "called").read_text().split()) == ["0", "0", "1", "2", "3", "4", "5"]

    @pytest.mark.parametrize("tool", ["confirm", "confirm_in_a_thread"])
    async def test_a_users_own_tool_that_asks_a_human_leaves_the_run_and_is_called_again(
        self, lab: Lab, place: Path, tool: str
    ) -> None:
        (place / f"lc_{tool}.py").write_text(OWN_TOOLS)
        agent = await lab.open_native(place, f"lc_{tool}:make")
        steps = [Step(calls=[CalledTool(tool, {"n": 5})]), Step(text="It said {tool}.")]
        lab.model.script("own", *steps, per="conversation")
        lab.trial.answers.clear()
        run = lab.trial.prepare()
        assert (await lab.fail(agent, run=run)).code == ErrorCode.CANCELLED
        assert len(lab.requests(run)) == 1
        lab.trial.answers["Sure of 5?"] = "yes"
        again = await lab.run(agent, run=lab.trial.prepare_again(run))
        assert again.result["output"] == "It said yes."
