"""The CrewAI adapters: the suite of each family of releases, and users' own crews with tools of their own."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.lab import SAMPLE_OUTPUT, Lab
from agentforge_conformance.scripted_model import CalledTool, Step
from agentforge_worker.wire import ErrorCode

OWN_TOOLS = """
from pathlib import Path

from crewai import Agent, Crew, Flow, LLM, Task
from crewai.flow.flow import start
from crewai.tools import BaseTool, tool

from agentforge_worker.adapter import current_run


def note(n):
    with Path(__file__).with_name("called").open("a") as file:
        file.write(f"{n} ")


@tool
def plain(n: int) -> int:
    "Plain."
    note(n)
    return n


@tool
def fails(n: int) -> str:
    "Fails."
    note(n)
    raise ValueError(f"no {n}")


class Other(BaseTool):
    name: str = "other"
    description: str = "Other."

    def _run(self, n: int) -> dict:
        note(n)
        return {"n": n}


@tool
def confirm(n: int) -> str:
    "Confirm."
    run = current_run()
    return run.wait(run.ask(f"Sure of {n}?"))


def agent():
    tools = [plain, fails, Other(), confirm]
    return Agent(role="r", goal="g", backstory="b", llm=LLM(model="own", provider="openai"), tools=tools)


def crew():
    agents = [agent()]
    return Crew(agents=agents, tasks=[Task(description="{input}", expected_output="o", agent=agents[0])])


class MyFlow(Flow):
    @start()
    def only(self):
        return crew().kickoff(inputs={"input": "Go."}).raw


def flow():
    return MyFlow()
"""


@pytest.mark.framework("crewai")
class TestCrewAI(AdapterSuite):
    reference = "crewai"

    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    @pytest.mark.parametrize("made_by", ["crew", "agent", "flow"])
    async def test_a_users_own_tools_are_called_once_in_all_attempts(
        self, lab: Lab, place: Path, stream: bool, made_by: str
    ) -> None:
        """What they return, and what they raise, is told to the model in the same words both times."""
        module = f"crew_own_{made_by}_{stream}"
        (place / f"{module}.py").write_text(OWN_TOOLS)
        agent = await lab.open_native(place, f"{module}:{made_by}")
        calls = [CalledTool(name, {"n": n}, f"call_{n}") for n, name in enumerate(["plain", "fails", "other"])]
        steps = [Step(calls=calls), Step(calls=calls[:1]), Step(text="end")]
        lab.model.script("own", *steps, per="conversation")
        first = await lab.run(agent, stream=stream)
        recorded = sorted((call.name, call.arguments) for call in [*calls, calls[0]])
        assert sorted(first.own_tool_calls) == recorded
        again = lab.trial.prepare_again(first)
        await lab.run(agent, run=again, stream=stream)
        assert sorted(again.own_tool_calls) == recorded
        assert [r.body for r in lab.requests(again)] == [r.body for r in lab.requests(first)]
        told = [m["content"] for m in lab.requests(again)[1].json["messages"] if m["role"] == "tool"]
        assert [part in text for part, text in zip(["0", "no 1", "{'n': 2}"], told, strict=True)] == [True] * 3
        assert again.result is not None
        assert "end" in again.result["output"]
        called = (place / "called").read_text().split()
        assert sorted(called) in (["0", "1", "2"], ["0", "0", "1", "2"])  # CrewAI keeps results of equal calls

    async def test_a_users_own_tool_that_asks_a_human_leaves_the_run_and_is_called_again(
        self, lab: Lab, place: Path
    ) -> None:
        (place / "crew_asking.py").write_text(OWN_TOOLS)
        agent = await lab.open_native(place, "crew_asking:crew")
        steps = [Step(calls=[CalledTool("confirm", {"n": 5})]), Step(text="It said {tool}.")]
        lab.model.script("own", *steps, per="conversation")
        run = lab.trial.prepare()
        assert (await lab.fail(agent, run=run)).code == ErrorCode.CANCELLED
        assert len(lab.requests(run)) == 1
        lab.trial.answers["Sure of 5?"] = "yes"
        again = await lab.run(agent, run=lab.trial.prepare_again(run))
        assert again.result is not None
        assert again.result["output"] == "It said yes."

    async def test_a_users_own_agent_knows_the_conversation_and_a_crew_is_said_not_to(
        self, lab: Lab, place: Path
    ) -> None:
        (place / "crew_thread.py").write_text(OWN_TOOLS)
        lab.model.script("own", Step(text="end"))
        thread = [{"role": "user", "content": "I am Ada."}, {"role": "assistant", "content": "Hello Ada!"}]
        run = await lab.run(await lab.open_native(place, "crew_thread:agent"), "Who am I?", messages=thread)
        asked = [m for m in lab.requests(run)[0].json["messages"] if m["role"] != "system"]
        assert [m["role"] for m in asked] == ["user", "assistant", "user"]
        assert all(
            text in m["content"] for m, text in zip(asked, ["I am Ada.", "Hello Ada!", "Who am I?"], strict=True)
        )
        assert run.warnings == []
        run = await lab.run(await lab.open_native(place, "crew_thread:crew"), "Who am I?", messages=thread)
        assert len(run.warnings) == 1


OWN_TEXT_CREWS = {
    "litellm": """
from crewai import Agent, Crew, LLM, Task
from crewai.tools import tool

llm = lambda: LLM(model="openai/own")

@tool
def double(n: int) -> int:
    "Double a number."
    return 2 * n

def task(agent):
    return Task(description="{input}", expected_output="o", agent=agent)
""",
    "langchain": """
from crewai import Agent, Crew, Task
from langchain.tools import tool
from langchain_openai import ChatOpenAI

llm = lambda: ChatOpenAI(model="own")

@tool
def double(n: int) -> int:
    "Double a number."
    return 2 * n

def task(agent):
    return Task(description="{input}", expected_output="o", agent=agent)
""",
    "one string": """
from crewai import Agent, Crew, Task
from langchain.tools import Tool
from langchain_openai import ChatOpenAI

from agentforge_worker.adapter import current_run

llm = lambda: ChatOpenAI(model="own")
double = Tool(name="double", description="Double a number.", func=lambda text: str(2 * int(text)))

def task(agent):
    return Task(description=current_run().request.input, agent=agent)
""",
}
MADE_FOR_EACH_RUN = """

def crew():
    agent = Agent(role="r", goal="g", backstory="b", llm=llm(), tools=[double], allow_delegation=False)
    return Crew(agents=[agent], tasks=[task(agent)])
"""


class TextSuite(AdapterSuite):
    """What holds besides for the releases that speak text."""

    crew: ClassVar[str] = "litellm"
    double_of: ClassVar[Any] = {"n": 21}

    async def test_a_users_own_crew_runs_unchanged(self, lab: Lab, place: Path) -> None:
        (place / "text_crew.py").write_text(OWN_TEXT_CREWS[self.crew] + MADE_FOR_EACH_RUN)
        agent = await lab.open_native(place, "text_crew:crew")
        lab.model.script("own", Step(calls=[CalledTool("double", self.double_of)]), Step(text="It is {tool}."))
        run = await lab.run(agent, "Double 21.")
        assert run.result is not None
        assert run.result["output"] == "It is 42."
        asked = lab.requests(run)[:2]  # 0.1 goes on to have its work summarized
        assert [request.conversation.user_text for request in asked] == ["Double 21."] * 2


@pytest.mark.framework("crewai==0.86.0")
class TestCrewAI086(TextSuite):
    reference = "crewai==0.86.0"


@pytest.mark.matrix
@pytest.mark.framework("crewai==0.150.0")
class TestCrewAI0150(TextSuite):
    reference = "crewai==0.150.0"

    async def test_an_answer_in_the_form_that_was_asked_for_is_the_output(self, lab: Lab) -> None:
        lab.model.script("json", Step(text='{"total": 2.5}'))
        run = await lab.run(await lab.open(model="json", tools=[], output=SAMPLE_OUTPUT))
        assert run.result is not None
        assert run.result["output"] == {"total": 2.5}
        assert '"total": float' in lab.requests(run)[0].json["messages"][1]["content"]


@pytest.mark.matrix
@pytest.mark.framework("crewai==0.30.11")
class TestCrewAI030(TextSuite):
    reference = "crewai==0.30.11"
    crew = "langchain"


@pytest.mark.matrix
@pytest.mark.framework("crewai==0.1.32")
class TestCrewAI01(TextSuite):
    reference = "crewai==0.1.32"
    crew = "one string"
    double_of = "21"
