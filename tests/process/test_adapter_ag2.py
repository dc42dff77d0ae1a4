"""The AG2 adapter: the suite, native agents."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentforge.workers import TrialRun
from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.lab import Lab
from agentforge_conformance.scripted_model import CalledTool, Step
from agentforge_worker.wire import ErrorCode

AGENTS = """
from pathlib import Path

from ag2 import Agent, Context
from ag2.config import OpenAIConfig
from ag2.tools import tool
from pydantic import BaseModel

from agentforge_worker.adapter import current_run


def note(n):
    with Path(__file__).with_name("called").open("a") as file:
        file.write(f"{n} ")


class Total(BaseModel):
    total: int


@tool
def plain(n: int) -> dict:
    "In a thread."
    note(n)
    return {"n": n}


@tool
async def typed(n: int) -> Total:
    "Typed."
    note(n)
    return Total(total=n)


@tool
async def raises(n: int) -> str:
    "Raises."
    note(n)
    raise ValueError(f"no {n}")


@tool
async def confirm(n: int) -> str:
    "Confirm."
    return await current_run().ask(f"Sure of {n}?")


@tool
async def human(n: int, context: Context) -> str:
    "Ask as AG2 does."
    return await context.input(f"Sure of {n}?")


loaded = Agent("mine", "Use the tools.", config=OpenAIConfig("own"), tools=[plain, typed, raises, confirm, human])


def make():
    return Agent("sums", config=OpenAIConfig("json"), response_schema=Total)
"""


@pytest.mark.framework("ag2")
class TestAG2(AdapterSuite):
    reference = "ag2"

    @pytest.mark.parametrize(
        ("schema", "value", "output"),
        [
            ({"type": "array", "items": {"type": "number"}}, {"response": [1.5, 2]}, [1.5, 2]),
            ({"enum": ["yes", "no"]}, {"response": "yes"}, "yes"),
        ],
        ids=["list", "enum"],
    )
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    async def test_an_output_that_is_no_object_comes_in_one_and_is_taken_out(
        self, lab: Lab, schema: dict[str, Any], value: Any, output: Any, stream: bool
    ) -> None:
        lab.model.script("wrapped", Step(value=value))
        run = await lab.run(await lab.open(model="wrapped", output=schema), stream=stream)
        assert result(run)["output"] == output

    async def test_a_setting_that_ag2_does_not_know_reaches_the_wire(self, lab: Lab) -> None:
        run = await lab.run(await lab.open(settings={"top_k": 5, "repetition_penalty": 1.1}, tools=[]))
        body = lab.requests(run)[0].json
        assert (body["top_k"], body["repetition_penalty"]) == (5, 1.1)

    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    async def test_a_users_own_tools_are_called_once_in_all_attempts(self, lab: Lab, place: Path, stream: bool) -> None:
        """What they return, and what they raise for the model to hear, is the same to the model both times."""
        module = f"ag2_own_{stream}"
        (place / f"{module}.py").write_text(AGENTS)
        agent = await lab.open_native(place, f"{module}:loaded")
        calls = [CalledTool(name, {"n": n}, f"call_{n}") for n, name in enumerate(["plain", "typed", "raises"])]
        lab.model.script("own", Step(calls=calls), Step(text="end"), per="conversation")
        first = await lab.run(agent, stream=stream)
        assert sorted(first.own_tool_calls) == sorted((call.name, call.arguments) for call in calls)
        again = lab.trial.prepare_again(first)
        await lab.run(agent, run=again, stream=stream)
        assert result(again)["output"] == "end"
        assert [r.body for r in lab.requests(again)] == [r.body for r in lab.requests(first)]
        assert [bool(r.json.get("stream")) for r in lab.requests(again)] == [stream, stream]
        told = [m["content"] for m in lab.requests(again)[1].json["messages"] if m["role"] == "tool"]
        assert [json.loads(text) for text in told[:2]] == [{"n": 0}, {"total": 1}]
        assert "ValueError: no 2" in told[2]
        assert sorted((place / "called").read_text().split()) == ["0", "1", "2"]
        steps = [data["name"] for kind, data in again.events if kind == "step.started"]
        assert [steps[0], *sorted(steps[1:4]), steps[4]] == ["model", "plain", "raises", "typed", "model"]

    @pytest.mark.parametrize("tool", ["confirm", "human"])
    async def test_a_users_own_tool_that_asks_a_human_leaves_the_run_and_is_called_again(
        self, lab: Lab, place: Path, tool: str
    ) -> None:
        (place / f"ag2_{tool}.py").write_text(AGENTS)
        agent = await lab.open_native(place, f"ag2_{tool}:loaded")
        steps = [Step(calls=[CalledTool(tool, {"n": 5})]), Step(text="It said {tool}.")]
        lab.model.script("own", *steps, per="conversation")
        lab.trial.answers.clear()
        run = lab.trial.prepare()
        assert (await lab.fail(agent, run=run)).code == ErrorCode.CANCELLED
        assert len(lab.requests(run)) == 1
        lab.trial.answers["Sure of 5?"] = "yes"
        again = await lab.run(agent, run=lab.trial.prepare_again(run))
        assert result(again)["output"] == "It said yes."

    async def test_a_users_own_structured_answer_becomes_json(self, lab: Lab, place: Path) -> None:
        (place / "ag2_typed.py").write_text(AGENTS)
        for _ in range(2):
            run = await lab.run(await lab.open_native(place, "ag2_typed:make"))
            assert isinstance(result(run)["output"]["total"], int)
            assert len(lab.requests(run)) == 1


def result(run: TrialRun) -> dict[str, Any]:
    assert run.result is not None
    return run.result
