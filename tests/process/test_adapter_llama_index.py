"""The LlamaIndex adapters: the suite for each release, native agents."""

from pathlib import Path

import pytest

from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.lab import Lab
from agentforge_conformance.scripted_model import CalledTool, Step
from agentforge_worker.wire import ErrorCode, RpcError

MODEL = """
from llama_index.llms.openai_like import OpenAILike


def model(name):
    return OpenAILike(model=name, is_chat_model=True, is_function_calling_model=True, context_window=8000)
"""
AGENTS = (
    MODEL
    + """
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context
from pathlib import Path
from agentforge_worker.adapter import current_run


def note(n):
    with Path(__file__).with_name("called").open("a") as file:
        file.write(f"{n} ")


def plain(n: int) -> dict:
    note(n)
    return {"n": n}

async def waits(n: int) -> str:
    note(n)
    return f"waited {n}"

def raises(n: int) -> str:
    note(n)
    raise ValueError(f"no {n}")

async def remembers(ctx: Context, n: int) -> str:
    note(n)
    return f"remembered {n}"

async def confirm(n: int) -> str:
    return await current_run().ask(f"Sure of {n}?")

TOOLS = [plain, waits, raises, remembers, confirm]
agent = FunctionAgent(name="mine", system_prompt="Use the tools.", tools=TOOLS, llm=model("own"))

def several():
    first = FunctionAgent(name="first", description="The first.", tools=TOOLS, llm=model("own"))
    other = FunctionAgent(name="other", description="Another.", llm=model("own"))
    return AgentWorkflow(agents=[first, other], root_agent="first")
"""
)
ENGINES = (
    MODEL
    + """
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step


def query_engine():
    index = VectorStoreIndex.from_documents([Document(text="2+2 is 4")], embed_model=MockEmbedding(embed_dim=8))
    return index.as_query_engine(llm=model("plain-answer"))


def chat_engine():
    from llama_index.core.chat_engine import SimpleChatEngine

    return SimpleChatEngine.from_defaults(llm=model("plain-answer"))


class Flow(Workflow):
    llm = model("plain-answer")

    @step
    async def answer(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result={"of": ev.of, "is": (await self.llm.acomplete(f"What of {ev.of}?")).text})


flow = Flow(timeout=30)
number = 7
"""
)


class LlamaIndexSuite(AdapterSuite):
    """What holds for all releases."""

    @pytest.mark.parametrize("engine", ["query_engine", "chat_engine"])
    async def test_engines_are_native_agents(self, lab: Lab, place: Path, engine: str) -> None:
        (place / f"li_{engine}.py").write_text(ENGINES)
        run = await lab.run(await lab.open_native(place, f"li_{engine}:{engine}"), "What is 2 + 2?")
        assert "What is 2 + 2?" in run.result["output"]
        assert len(lab.requests(run)) == 1

    async def test_a_workflow_is_a_native_agent_and_each_run_has_its_own_key(self, lab: Lab, place: Path) -> None:
        (place / "li_flow.py").write_text(ENGINES)
        agent = await lab.open_native(place, "li_flow:flow")
        for given in ({"of": "it"}, '{"of": "it"}'):
            run = await lab.run(agent, given)
            assert run.result["output"] == {"of": "it", "is": "FINAL: What of it?"}
            assert len(lab.requests(run)) == 1
            assert [kind for kind, _ in run.events] == ["step.started", "step.finished", "message.added"]

    async def test_what_cannot_be_run_is_named(self, lab: Lab, place: Path) -> None:
        (place / "li_number.py").write_text(ENGINES)
        with pytest.raises(RpcError) as caught:
            await lab.open_native(place, "li_number:number")
        assert caught.value.data["origin"] == "user"
        told = "type `int`, and not a workflow, an agent, a chat engine or a query engine"
        assert told in caught.value.data["message"]

    async def test_an_output_that_is_no_object_comes_in_one_and_is_taken_out(self, lab: Lab) -> None:
        output = {"type": "array", "items": {"type": "integer"}}
        run = await lab.run(await lab.open(output=output, tools=[]))
        assert isinstance(run.result["output"], list)


class WorkflowAgentSuite(LlamaIndexSuite):
    """What holds where agents are workflows."""

    async def test_a_users_own_agent_takes_text_and_a_thread(self, lab: Lab, place: Path) -> None:
        (place / "li_mine.py").write_text(AGENTS)
        agent = await lab.open_native(place, "li_mine:agent")
        for _ in range(2):
            lab.model.script("own", Step(text="Said."))
            run = await lab.run(agent, "And?", messages=[{"role": "user", "content": "Hi."}])
            assert run.result["output"] == "Said."
            assert [m["content"] for m in lab.requests(run)[0].json["messages"]] == ["Use the tools.", "Hi.", "And?"]

    @pytest.mark.parametrize("made_by", ["agent", "several"])
    async def test_a_users_own_tools_are_called_once_in_all_attempts(self, lab: Lab, place: Path, made_by: str) -> None:
        (place / f"li_own_{made_by}.py").write_text(AGENTS)
        agent = await lab.open_native(place, f"li_own_{made_by}:{made_by}")
        names = ["plain", "waits", "raises", "remembers"]
        calls = [CalledTool(name, {"n": n}, f"call_{n}") for n, name in enumerate(names)]
        lab.model.script("own", *(Step(calls=[call]) for call in calls), Step(text="end"), per="conversation")
        first = await lab.run(agent)
        recorded = [(call.name, call.arguments) for call in calls[:3]]
        assert first.own_tool_calls == recorded
        assert [w for w in first.warnings if "`remembers` are not recorded" in w]
        again = lab.trial.prepare_again(first)
        await lab.run(agent, run=again)
        assert [r.body for r in lab.requests(again)] == [r.body for r in lab.requests(first)]
        told = [m["content"] for m in lab.requests(again)[-1].json["messages"] if m["role"] == "tool"]
        assert told == ["{'n': 0}", "waited 1", "no 2", "remembered 3"]
        assert (place / "called").read_text().split() == ["0", "1", "2", "3", "3"]

    async def test_a_users_own_tool_that_asks_a_human_leaves_the_run_and_is_called_again(
        self, lab: Lab, place: Path
    ) -> None:
        (place / "li_confirm.py").write_text(AGENTS)
        agent = await lab.open_native(place, "li_confirm:agent")
        steps = [Step(calls=[CalledTool("confirm", {"n": 5})]), Step(text="It said {tool}.")]
        lab.model.script("own", *steps, per="conversation")
        lab.trial.answers.clear()
        run = lab.trial.prepare()
        assert (await lab.fail(agent, run=run)).code == ErrorCode.CANCELLED
        assert len(lab.requests(run)) == 1
        lab.trial.answers["Sure of 5?"] = "yes"
        again = await lab.run(agent, run=lab.trial.prepare_again(run))
        assert again.result["output"] == "It said yes."


@pytest.mark.framework("llama-index")
class TestLlamaIndex(WorkflowAgentSuite):
    reference = "llama-index"


@pytest.mark.matrix
@pytest.mark.framework("llama-index")
class TestLlamaIndex012(WorkflowAgentSuite):
    reference = "llama-index==0.12.52"


@pytest.mark.matrix
@pytest.mark.framework("llama-index")
class TestLlamaIndex011(LlamaIndexSuite):
    reference = "llama-index==0.11.23"


@pytest.mark.matrix
@pytest.mark.framework("llama-index")
class TestLlamaIndex010(LlamaIndexSuite):
    reference = "llama-index==0.10.68"
