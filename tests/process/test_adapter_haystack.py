"""The Haystack adapters: the suite for each release, native agents."""

from pathlib import Path

import pytest

from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.lab import ADD, Lab
from agentforge_conformance.scripted_model import CalledTool, Step
from agentforge_worker.wire import ErrorCode, RpcError

AGENTS = """
import os
from pathlib import Path

from haystack import Pipeline
from haystack.components.agents import Agent
from haystack.components.builders import ChatPromptBuilder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool

from agentforge_worker.adapter import current_run


def note(n):
    with Path(__file__).with_name("called").open("a") as file:
        file.write(f"{n} ")

@tool
def plain(n: int) -> dict:
    "Plain."
    note(n)
    return {"n": n}

@tool
def rich(n: int) -> ChatMessage:
    "Rich."
    note(n)
    return ChatMessage.from_user(f"rich {n}")

@tool
def raises(n: int) -> str:
    "Raises."
    note(n)
    raise ValueError(f"no {n}")

@tool
def confirm(n: int) -> str:
    "Confirm."
    run = current_run()
    return run.wait(run.ask(f"Sure of {n}?"))

os.environ["OPENAI_API_KEY"] = "that of an earlier run"

def make():
    model = OpenAIChatGenerator(model="own")
    return Agent(chat_generator=model, tools=[plain, rich, raises, confirm], system_prompt="Use the tools.")

agent = make()

def pipeline():
    pipeline = Pipeline()
    template = [ChatMessage.from_user("Joke about {{topic}}")]
    pipeline.add_component("ask", ChatPromptBuilder(template=template, required_variables=["topic"]))
    pipeline.add_component("llm", OpenAIChatGenerator(model="plain-answer"))
    pipeline.connect("ask.prompt", "llm.messages")
    return pipeline

def retrieval():
    from haystack import Document
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store = InMemoryDocumentStore()
    store.write_documents([Document(content="Rome is in Italy."), Document(content="Lyon is in France.")])
    pipeline = Pipeline()
    pipeline.add_component("find", InMemoryBM25Retriever(store, top_k=1))
    template = [ChatMessage.from_user("{{documents[0].content}}")]
    pipeline.add_component("ask", ChatPromptBuilder(template=template, required_variables=["documents"]))
    pipeline.add_component("llm", OpenAIChatGenerator(model="plain-answer"))
    pipeline.connect("find.documents", "ask.documents")
    pipeline.connect("ask.prompt", "llm.messages")
    return pipeline
"""
PIPELINE = """
import os

from haystack import Pipeline
from haystack.components.generators import OpenAIGenerator

os.environ["OPENAI_API_KEY"] = "that of an earlier run"
pipeline = Pipeline()
pipeline.add_component("llm", OpenAIGenerator(model="plain-answer"))
"""


class AgentSuite(AdapterSuite):
    """What holds where there are agents."""

    async def test_a_users_own_agent_takes_text_and_a_thread(self, lab: Lab, place: Path) -> None:
        (place / "hs_mine.py").write_text(AGENTS)
        agent = await lab.open_native(place, "hs_mine:agent")
        for stream in (False, True):
            lab.model.script("own", Step(text="Said."))
            run = await lab.run(agent, "And?", messages=[{"role": "user", "content": "Hi."}], stream=stream)
            assert run.result["output"] == "Said."
            (request,) = lab.requests(run)
            assert [m["content"] for m in request.json["messages"]] == ["Use the tools.", "Hi.", "And?"]
            assert bool(request.json.get("stream")) is stream

    @pytest.mark.parametrize("made_by", ["agent", "make"])
    async def test_a_users_own_tools_are_called_once_in_all_attempts(self, lab: Lab, place: Path, made_by: str) -> None:
        (place / f"hs_own_{made_by}.py").write_text(AGENTS)
        agent = await lab.open_native(place, f"hs_own_{made_by}:{made_by}")
        calls = [CalledTool(name, {"n": n}, f"call_{n}") for n, name in enumerate(["plain", "rich", "raises"])]
        lab.model.script("own", *(Step(calls=[call]) for call in calls), Step(text="end"), per="conversation")
        first = await lab.run(agent)
        assert first.own_tool_calls == [(call.name, call.arguments) for call in calls]
        again = lab.trial.prepare_again(first)
        await lab.run(agent, run=again)
        assert [r.body for r in lab.requests(again)] == [r.body for r in lab.requests(first)]
        assert (place / "called").read_text().split() == ["0", "1", "2"]

    async def test_a_users_own_tool_that_asks_a_human_leaves_the_run_and_is_called_again(
        self, lab: Lab, place: Path
    ) -> None:
        (place / "hs_confirm.py").write_text(AGENTS)
        agent = await lab.open_native(place, "hs_confirm:agent")
        steps = [Step(calls=[CalledTool("confirm", {"n": 5})]), Step(text="It said {tool}.")]
        lab.model.script("own", *steps, per="conversation")
        lab.trial.answers.clear()
        run = lab.trial.prepare()
        assert (await lab.fail(agent, run=run)).code == ErrorCode.CANCELLED
        assert len(lab.requests(run)) == 1
        lab.trial.answers["Sure of 5?"] = "yes"
        again = await lab.run(agent, run=lab.trial.prepare_again(run))
        assert again.result["output"] == "It said yes."

    async def test_a_pipeline_is_a_native_agent_and_its_components_are_steps(self, lab: Lab, place: Path) -> None:
        (place / "hs_pipeline.py").write_text(AGENTS)
        run = await lab.run(await lab.open_native(place, "hs_pipeline:pipeline"), {"ask": {"topic": "pirates"}})
        assert run.result["output"] == {"llm": {"replies": ["FINAL: Joke about pirates"]}}
        assert [data["name"] for kind, data in run.events if kind == "step.started"] == ["ask", "model"]

    async def test_a_pipeline_may_retrieve_documents(self, lab: Lab, place: Path) -> None:
        (place / "hs_retrieval.py").write_text(AGENTS)
        run = await lab.run(await lab.open_native(place, "hs_retrieval:retrieval"), {"find": {"query": "Lyon"}})
        assert run.result["output"] == {"llm": {"replies": ["FINAL: Lyon is in France."]}}
        assert [data["name"] for kind, data in run.events if kind == "step.started"] == ["find", "ask", "model"]

    async def test_an_output_that_is_no_object_comes_in_one_and_is_taken_out(self, lab: Lab) -> None:
        output = {"type": "array", "items": {"type": "integer"}}
        run = await lab.run(await lab.open(output=output, tools=[]))
        assert isinstance(run.result["output"], list)

    async def test_the_step_limit_has_a_code_of_its_own(self, lab: Lab) -> None:
        lab.model.script("for-ever", Step(calls=[CalledTool("add", {"a": 1, "b": 1})]))
        error = await lab.fail(await lab.open(model="for-ever", max_steps=2))
        assert (error.data["code"], error.data["origin"]) == ("AF425", "user")


@pytest.mark.framework("haystack")
class TestHaystack(AgentSuite):
    reference = "haystack"


@pytest.mark.matrix
@pytest.mark.framework("haystack")
class TestHaystack2(AgentSuite):
    reference = "haystack==2.31.0"


@pytest.mark.matrix
@pytest.mark.framework("haystack")
class TestHaystack20(AdapterSuite):
    reference = "haystack==2.0.1"

    async def test_an_agent_with_tools_is_refused_and_told_what_has_them(self, lab: Lab) -> None:
        with pytest.raises(RpcError) as caught:
            await lab.open(tools=[ADD])
        assert caught.value.data["origin"] == "framework"
        assert "no agent that calls them" in caught.value.data["message"]
        assert "haystack@2.31" in caught.value.data["hint"]

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_watched_run_streams(self, lab: Lab, stream: bool) -> None:
        run = await lab.run(await lab.open(), "Hello there", stream=stream)
        assert run.result["output"] == "FINAL: Hello there"
        assert [bool(r.json.get("stream")) for r in lab.requests(run)] == [stream]
        assert [kind for kind, _ in run.events] == ["step.started", "message.added", "step.finished"]

    async def test_a_conversation_goes_on_without_its_tool_calls(self, lab: Lab) -> None:
        call = {"id": "1", "name": "add", "arguments": {"a": 1, "b": 2}}
        thread = [
            {"role": "user", "content": "Sum?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "3", "tool_call_id": "1"},
            {"role": "assistant", "content": "It is 3."},
        ]
        run = await lab.run(await lab.open(), "Sure?", messages=thread)
        asked = [m["content"] for m in lab.requests(run)[0].json["messages"][1:]]
        assert asked == ["Sum?", "It is 3.", "Sure?"]
        assert any("tool calls" in warning for warning in run.warnings)

    async def test_a_pipeline_is_a_native_agent_and_each_run_has_its_own_key(self, lab: Lab, place: Path) -> None:
        (place / "hs_pipeline.py").write_text(PIPELINE)
        agent = await lab.open_native(place, "hs_pipeline:pipeline")
        for text in ("One?", "Two?"):
            run = await lab.run(agent, {"llm": {"prompt": text}})
            assert run.result["output"]["llm"]["replies"] == [f"FINAL: {text}"]
            assert len(lab.requests(run)) == 1
