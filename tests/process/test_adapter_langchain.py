"""The LangChain adapters: the suite, structured output of known models, native agents."""

from pathlib import Path
from typing import Any

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


EXECUTORS = """
import os
from pathlib import Path

from langchain.agents import AgentExecutor, create_openai_tools_agent
from langchain.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain.tools import BaseTool, StructuredTool, Tool, tool
from langchain_core.runnables import RunnableLambda
try:
    from langchain_openai import ChatOpenAI
except ImportError:
    from langchain.chat_models import ChatOpenAI

from agentforge_worker.adapter import current_run

doubles = RunnableLambda(lambda input: {"double": 2 * input["n"]})


def note(n):
    with Path(__file__).with_name("called").open("a") as file:
        file.write(f"{n} ")


@tool
def plain(n: int) -> dict:
    "Plain."
    note(n)
    return {"n": n}


@tool
async def waits(n: int) -> tuple:
    "Waits."
    note(n)
    return n, "tuple"


@tool
def typed(n: int) -> Path:
    "Typed."
    note(n)
    return Path(str(n))


@tool
def fails(n: int) -> str:
    "Fails."
    note(n)
    raise KeyError(n)


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


def one(text):
    note(text)
    return text.upper()


def make():
    single = Tool(name="single", description="Single.", func=one)
    tools = [plain, waits, typed, single, fails, confirm, confirm_in_a_thread, Other()]
    prompt = ChatPromptTemplate.from_messages(
        [MessagesPlaceholder("chat_history"), ("human", "{input}"), MessagesPlaceholder("agent_scratchpad")]
    )
    return AgentExecutor(agent=create_openai_tools_agent(ChatOpenAI(model="own"), tools, prompt), tools=tools)
"""


class Own:
    """A user's own executor: its client keeps the key that it was made with."""

    def __init__(self, lab: Lab, place: Path, name: str) -> None:
        self.lab = lab
        self.place = place
        self.name = f"lc_{name}"
        self.token = f"af-own-{name}"
        (place / f"{self.name}.py").write_text(EXECUTORS)

    async def open(self) -> Any:
        source = {"root": str(self.place), "module": self.name, "attribute": "make"}
        return await self.lab.trial.open({"agent_id": self.name, "source": source, "token": self.token})

    def run(self, **options: Any) -> Any:
        return self.lab.run(self.name, **options)

    def requests(self) -> list[Any]:
        return [r for r in self.lab.model.requests if r.header("authorization") == f"Bearer {self.token}"]

    def called(self) -> list[str]:
        return sorted((self.place / "called").read_text().split())


class ExecutorSuite(AdapterSuite):
    """What the releases before 1.0 have in common."""

    async def test_an_executor_that_runs_out_of_iterations_fails(self, lab: Lab) -> None:
        """LangChain ends with a sentence of its own, as if that were the answer."""
        lab.model.script("endless", Step(calls=[CalledTool("add", {"a": 1, "b": 1})]))
        error = await lab.fail(await lab.open(model="endless", framework_settings={"max_iterations": 2}))
        assert (error.data["code"], error.data["origin"]) == ("AF425", "user")

    async def test_a_model_that_answers_in_text_whatever_it_is_told_may_answer_in_json(self, lab: Lab) -> None:
        lab.model.script("wordy", Step(text='Here:\n```json\n{"total": 3}\n```'))
        run = await lab.run(await lab.open(model="wordy", output=OUTPUT, tools=[ADD]))
        assert run.result["output"] == {"total": 3}

    async def test_any_runnable_is_a_native_agent(self, lab: Lab, place: Path) -> None:
        (place / "lc_doubles.py").write_text(EXECUTORS)
        run = await lab.run(await lab.open_native(place, "lc_doubles:doubles"), {"n": 21})
        assert run.result["output"] == {"double": 42}

    async def test_an_executor_knows_the_conversation(self, lab: Lab, place: Path) -> None:
        own = Own(lab, place, "thread")
        await own.open()
        lab.model.script("own", Step(text="end"))
        thread = [{"role": "user", "content": "I am Ada."}, {"role": "assistant", "content": "Hello Ada!"}]
        run = await own.run(text="Who am I?", messages=thread)
        assert [m["content"] for m in own.requests()[0].json["messages"]] == ["I am Ada.", "Hello Ada!", "Who am I?"]
        assert run.result["output"] == "end"

    async def test_an_executors_own_tools_are_called_once_in_all_attempts(self, lab: Lab, place: Path) -> None:
        """What they return is the same to the model both times."""
        own = Own(lab, place, "tools")
        unseen = "the calls of the tool `other` are not recorded: only those of functions are"
        assert (await own.open())["warnings"] == [unseen]
        names = ["plain", "waits", "typed", "other"]
        calls = [CalledTool(name, {"n": n}, f"call_{n}") for n, name in enumerate(names)]
        calls.append(CalledTool("single", {"__arg1": "a"}, "call_4"))
        more = Step(calls=[CalledTool("plain", {"n": 0}, "call_5")])
        lab.model.script("own", Step(calls=calls), more, Step(text="end"), per="conversation")
        first = await own.run()
        recorded = [("plain", {"n": 0})] * 2 + [("single", {"input": "a"}), ("typed", {"n": 2}), ("waits", {"n": 1})]
        assert sorted(first.own_tool_calls, key=str) == recorded
        again = await own.run(run=lab.trial.prepare_again(first))
        assert sorted(again.own_tool_calls, key=str) == recorded
        bodies = [r.body for r in own.requests()]
        assert len(bodies) == 6
        assert bodies[:3] == bodies[3:]
        told = [m["content"] for m in own.requests()[1].json["messages"] if m["role"] == "tool"]
        assert told == ['{"n": 0}', '[1, "tuple"]', "2", "3", "A"]
        assert own.called() == ["0", "0", "1", "2", "a"]

    async def test_what_a_users_own_tool_raises_is_raised_again(self, lab: Lab, place: Path) -> None:
        own = Own(lab, place, "fails")
        await own.open()
        lab.model.script("own", Step(calls=[CalledTool("fails", {"n": 7})]), per="conversation")
        run = lab.trial.prepare()
        first = await lab.fail(own.name, run=run)
        again = await lab.fail(own.name, run=lab.trial.prepare_again(run))
        assert [e.data["details"]["exception"] for e in (first, again)] == ["builtins.KeyError"] * 2
        assert own.called() == ["7"]

    @pytest.mark.parametrize("tool", ["confirm", "confirm_in_a_thread"])
    async def test_a_users_own_tool_that_asks_a_human_leaves_the_run_and_is_called_again(
        self, lab: Lab, place: Path, tool: str
    ) -> None:
        own = Own(lab, place, tool)
        await own.open()
        steps = [Step(calls=[CalledTool(tool, {"n": 5})]), Step(text="It said {tool}.")]
        lab.model.script("own", *steps, per="conversation")
        lab.trial.answers.clear()
        run = lab.trial.prepare()
        assert (await lab.fail(own.name, run=run)).code == ErrorCode.CANCELLED
        assert len(own.requests()) == 1
        lab.trial.answers["Sure of 5?"] = "yes"
        again = await own.run(run=lab.trial.prepare_again(run))
        assert again.result["output"] == "It said yes."


@pytest.mark.framework("langchain")
class TestLangChain01(ExecutorSuite):
    reference = "langchain==0.1.20"


@pytest.mark.matrix
@pytest.mark.framework("langchain")
class TestLangChain02(ExecutorSuite):
    reference = "langchain==0.2.17"


@pytest.mark.matrix
@pytest.mark.framework("langchain")
class TestLangChain03(ExecutorSuite):
    reference = "langchain==0.3.30"


@pytest.mark.matrix
@pytest.mark.framework("langchain")
class TestLangChain00(ExecutorSuite):
    reference = "langchain==0.0.354"
