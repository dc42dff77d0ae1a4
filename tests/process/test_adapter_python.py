"""The `python` adapter: the suite for portable agents, and functions as native agents."""

import asyncio
import shutil
from pathlib import Path

import pytest

from agentforge.frameworks import Release
from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.lab import Lab
from agentforge_conformance.scripted_model import CalledTool, Step
from agentforge_worker.wire import ErrorCode, RpcError

AGENTS = '''
import time

async def asks(input, ctx):
    """Ask the model once.

    More about it.
    """
    answer = await ctx.chat([{"role": "user", "content": input["question"]}], model="plain")
    return {"answer": answer["choices"][0]["message"]["content"], "sum": await ctx.call_tool("add", {"a": 1, "b": 2})}

def blocks(input, ctx):
    ctx.wait(ctx.call_tool("hang", {"why": input}))

def computes(input, ctx):
    print("computes in a thread")
    return [ctx.wait(ctx.call_tool("add", {"a": input, "b": 1})), ctx.workspace]

async def fails(input, ctx):
    raise KeyError("no such category")

async def fails_at_the_model(input, ctx):
    await ctx.chat([{"role": "user", "content": "hi"}], model="fail-401")

def asks_twice(input, ctx):
    first = ctx.wait(ctx.chat([{"role": "user", "content": input}], model="barrier-2"))
    return first["choices"][0]["message"]["content"]
'''


@pytest.mark.framework("python")
class TestPython(AdapterSuite):
    reference = "python"

    @pytest.fixture(scope="class")
    @classmethod
    def agents(cls, lab: Lab) -> Path:
        folder = lab.place()
        (folder / "my_agents.py").write_text(AGENTS)
        return folder

    async def test_an_async_function_uses_model_and_tools_and_returns_json(self, lab: Lab, agents: Path) -> None:
        run = await lab.run(await lab.open_native(agents, "my_agents:asks"), {"question": "Is it late?"})
        assert run.result["output"] == {"answer": "FINAL: Is it late?", "sum": 3}
        assert run.tool_calls == [("add", {"a": 1, "b": 2})]
        assert len(lab.requests(run)) == 1

    async def test_a_plain_function_runs_in_a_thread_of_its_run(self, lab: Lab, agents: Path) -> None:
        run = await lab.run(await lab.open_native(agents, "my_agents:computes"), 41)
        assert run.result["output"] == [42, str(run.workspace)]
        assert run.logs == ["computes in a thread"]

    async def test_plain_functions_do_not_hold_each_other_back(self, lab: Lab, agents: Path) -> None:
        agent = await lab.open_native(agents, "my_agents:asks_twice")
        runs = await asyncio.gather(lab.run(agent, "one"), lab.run(agent, "two"))
        assert [run.result["output"] for run in runs] == ["FINAL: one", "FINAL: two"]

    async def test_a_plain_function_that_waits_is_cancelled(self, lab: Lab, agents: Path) -> None:
        agent = await lab.open_native(agents, "my_agents:blocks")
        run = lab.trial.prepare()
        lab.hanging.clear()
        under_way = asyncio.create_task(lab.run(agent, "ever", run=run))
        await lab.hanging.wait()
        lab.trial.cancel(run)
        with pytest.raises(RpcError) as caught:
            async with asyncio.timeout(2):
                await under_way
        assert caught.value.code == ErrorCode.CANCELLED

    async def test_an_exception_of_the_function_is_the_users(self, lab: Lab, agents: Path) -> None:
        error = await lab.fail(await lab.open_native(agents, "my_agents:fails"))
        assert (error.data["code"], error.data["origin"]) == ("AF422", "user")
        assert "in fails" in error.data["details"]["traceback"]

    async def test_a_refused_model_call_is_the_models(self, lab: Lab, agents: Path) -> None:
        error = await lab.fail(await lab.open_native(agents, "my_agents:fails_at_the_model"))
        assert error.data["origin"] == "model"
        assert "401" in error.data["message"]

    @pytest.mark.parametrize("name", ["agent", "agent_that_blocks"])
    async def test_the_sample_agents_answer(self, lab: Lab, release: Release, place: Path, name: str) -> None:
        shutil.copy(release.framework.folder / "samples" / "agent.py", place)
        agent = await lab.open_native(place, f"agent:{name}")
        run = await lab.run(agent, "How much was it?")
        assert run.result["output"] == "FINAL: tool said 4"

    async def test_the_step_limit_has_a_code_of_its_own(self, lab: Lab) -> None:
        lab.model.script("for-ever", Step(calls=[CalledTool("add", {"a": 1, "b": 1})]))
        error = await lab.fail(await lab.open(model="for-ever", max_steps=2))
        assert (error.data["code"], error.data["origin"]) == ("AF425", "user")
