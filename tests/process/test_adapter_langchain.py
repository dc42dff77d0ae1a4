"""The LangChain adapter: the suite, structured output of known models, native agents."""

from pathlib import Path

import pytest

from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.lab import ADD, Lab

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
OUTPUT = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}


@pytest.mark.framework("langchain")
class TestLangChain(AdapterSuite):
    reference = "langchain"

    async def test_a_model_known_to_hold_to_schemas_is_given_the_schema(self, lab: Lab) -> None:
        run = await lab.run(await lab.open(model="gpt-5", output=OUTPUT, tools=[ADD]))
        assert run.result["output"] == {"total": 2.0}
        assert lab.requests(run)[0].json["response_format"]["json_schema"]["name"] == "answer"
        assert [m["role"] for m in run.result["messages"]] == ["assistant", "tool", "assistant"]

    async def test_any_runnable_is_a_native_agent(self, lab: Lab, tmp_path: Path) -> None:
        (tmp_path / "lc_agents.py").write_text(AGENTS)
        run = await lab.run(await lab.open_native(tmp_path, "lc_agents:doubles"), {"n": 21})
        assert run.result["output"] == {"double": 42}

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_native_graph_takes_text_and_answers_with_text(
        self, lab: Lab, tmp_path: Path, stream: bool
    ) -> None:
        (tmp_path / "lc_graphs.py").write_text(AGENTS)
        run = await lab.run(await lab.open_native(tmp_path, "lc_graphs:make"), "Hello!", stream=stream)
        assert run.result["output"] == "FINAL: Hello!"
        assert [bool(r.json["stream"]) for r in lab.requests(run)] == [stream]
