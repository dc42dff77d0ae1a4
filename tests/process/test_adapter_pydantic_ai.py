"""The pydantic-ai adapter."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from agentforge.frameworks import Release
from agentforge.workers import TrialRun
from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.fidelity import compare, readable
from agentforge_conformance.lab import SAMPLE_SETTINGS, Lab, run_native
from agentforge_conformance.scripted_model import CalledTool, ScriptedModel, Step
from agentforge_worker.wire import ErrorCode


@pytest.mark.framework("pydantic-ai")
class TestPydanticAI(AdapterSuite):
    reference = "pydantic-ai"

    async def test_a_structured_answer_is_asked_for_as_the_native_program_asks(
        self, lab: Lab, release: Release, python: Path
    ) -> None:
        """The schema is the sample's."""
        schema = {
            "type": "object",
            "properties": {"total": {"type": "number", "description": "The sum in euros."}},
            "required": ["total"],
        }
        async with ScriptedModel() as model:
            program = release.framework.folder / release.sample
            await run_native(python, program, model, ["--json-output", "How much was it?"])
            run = await lab.run(await lab.open(settings=SAMPLE_SETTINGS, output=schema))
            differences = compare(model.requests, lab.requests(run))
            assert not differences, readable(differences)

    @pytest.mark.parametrize(
        ("schema", "arguments", "output"),
        [
            ({"type": "array", "items": {"type": "number"}}, [1.5, 2], [1.5, 2]),
            (
                {"type": "array", "items": {"$ref": "#/$defs/Sum"}, "$defs": {"Sum": {"type": "integer"}}},
                [3],
                [3],
            ),
            ({"enum": ["yes", "no"]}, "yes", "yes"),
        ],
        ids=["list", "definitions", "enum"],
    )
    async def test_an_output_that_is_no_object_comes_in_one_and_is_taken_out(
        self, lab: Lab, schema: dict[str, Any], arguments: Any, output: Any
    ) -> None:
        """Tools take objects alone."""
        lab.model.script("wrapped", Step(calls=[CalledTool("final_result", {"response": arguments})]))
        run = await lab.run(await lab.open(model="wrapped", output=schema, tools=[]))
        assert result(run)["output"] == output
        assert [m["content"] for m in result(run)["messages"]] == [json.dumps(output)]

    async def test_a_structured_answer_goes_on_in_a_thread_as_text(self, lab: Lab) -> None:
        """No other framework knows this one's output tool."""
        schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
        lab.model.script(
            "answers",
            Step(calls=[CalledTool("add", {"a": 1, "b": 2})]),
            Step(calls=[CalledTool("final_result", {"total": 3})]),
        )
        run = await lab.run(await lab.open(model="answers", output=schema))
        messages = result(run)["messages"]
        assert [m["role"] for m in messages] == ["assistant", "tool", "assistant"]
        assert messages[-1]["content"] == '{"total": 3}'
        assert messages[-1]["tool_calls"] == []

    async def test_a_setting_that_pydantic_ai_does_not_know_reaches_the_wire(self, lab: Lab) -> None:
        """Compatible endpoints have settings of their own."""
        run = await lab.run(await lab.open(settings={"top_k": 5, "repetition_penalty": 1.1}, tools=[]))
        body = lab.requests(run)[0].json
        assert (body["top_k"], body["repetition_penalty"]) == (5, 1.1)

    async def test_settings_that_a_reasoning_model_takes_not_are_warned_of_by_name(self, lab: Lab) -> None:
        """pydantic-ai leaves them out for models that it knows to reason."""
        agent = await lab.open(model="o3", settings=SAMPLE_SETTINGS, tools=[])
        run = await lab.run(agent)
        left_out = {name for name in SAMPLE_SETTINGS if name not in lab.requests(run)[0].json} - {"max_tokens"}
        assert left_out == {"temperature", "top_p", "presence_penalty", "frequency_penalty"}
        assert len(lab.warnings[agent]) == len(left_out)
        assert all(any(f"`{name}`" in warning for warning in lab.warnings[agent]) for name in left_out)

    async def test_reasoning_switched_off_lets_the_settings_through(self, lab: Lab) -> None:
        """Some models can."""
        agent = await lab.open(model="gpt-5.2", settings={"reasoning_effort": "none", "temperature": 0.2}, tools=[])
        body = lab.requests(await lab.run(agent))[0].json
        assert (body["reasoning_effort"], body["temperature"]) == ("none", 0.2)
        assert lab.warnings[agent] == []

    @pytest.mark.parametrize(("retries", "asked"), [(1, 2), (3, 4)])
    async def test_arguments_that_are_no_json_go_back_to_the_model_as_often_as_set(
        self, lab: Lab, retries: int, asked: int
    ) -> None:
        """`retries` is the framework's own setting."""
        lab.model.script("babbles", Step(calls=[CalledTool("add", "{no json")]))
        agent = await lab.open(model="babbles", framework_settings={"retries": retries})
        run = lab.trial.prepare()
        error = await lab.fail(agent, run=run)
        assert error.data["origin"] == "framework"
        assert len(lab.requests(run)) == asked
        assert run.tool_calls == []

    async def test_tools_called_together_run_together_each_in_its_own_step(self, lab: Lab) -> None:
        """A step is a tool call here, not a round of them."""
        both = Step(calls=[CalledTool("add", {"a": 1, "b": 2}), CalledTool("total_for", {"category": "hotel"})])
        lab.model.script("both", both, Step(text="done"))
        run = await lab.run(await lab.open(model="both"))
        started = [data["name"] for kind, data in run.events if kind == "step.started"]
        assert started[0] == started[-1] == "model"
        assert sorted(started[1:-1]) == ["add", "total_for"]

    async def test_a_users_own_agent_runs_unchanged_with_each_runs_token(self, lab: Lab, place: Path) -> None:
        """Its client is made when its module is imported, before there is a run."""
        (place / "mine.py").write_text(textwrap.dedent(NATIVE))
        source = {"root": str(place), "module": "mine", "attribute": "agent"}
        opened = await lab.trial.open({"agent_id": "native", "source": source})
        assert opened["card"]["tools"] == ["double"]
        assert opened["card"]["models"] == ["scripted"]
        for _ in range(2):
            run = await lab.run("native")
            assert result(run)["output"] == "FINAL: tool said 4"
            assert len(lab.requests(run)) == 2
            assert [d["name"] for k, d in run.events if k == "step.started"] == ["model", "double", "model"]

    async def test_a_users_own_structured_answer_becomes_json(self, lab: Lab, place: Path) -> None:
        """It is an object of the user's own class."""
        (place / "typed.py").write_text(textwrap.dedent(TYPED))
        source = {"root": str(place), "module": "typed", "attribute": "make"}
        await lab.trial.open({"agent_id": "typed", "source": source})
        lab.model.script("typed", Step(calls=[CalledTool("final_result", {"total": 2})]))
        run = await lab.run("typed")
        assert result(run)["output"] == {"total": 2, "day": "2026-11-01"}

    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    async def test_a_users_own_tools_are_called_once_in_all_attempts(self, lab: Lab, place: Path, stream: bool) -> None:
        """What they return, and what they raise for the model to hear, is the same to the model both times."""
        module = f"own_{stream}"
        (place / f"{module}.py").write_text(textwrap.dedent(OWN_TOOLS))
        agent = await lab.open_native(place, f"{module}:agent")
        calls = [
            CalledTool(name, {"n": n}, f"call_{n}")
            for n, name in enumerate(["plain", "typed", "rich", "again", "fails"])
        ]
        steps = [Step(calls=calls[:3]), Step(calls=calls[3:]), Step(calls=[calls[0]]), Step(text="end")]
        lab.model.script("own", *steps, per="conversation")
        first = await lab.run(agent, stream=stream)
        assert sorted(first.own_tool_calls) == sorted((c.name, c.arguments) for c in [*calls, calls[0]])
        assert first.journal['typed {"n": 1} 0']["value"] == {"total": 1, "day": "2026-11-01"}
        again = lab.trial.prepare_again(first)
        await lab.run(agent, run=again, stream=stream)
        assert again.own_tool_calls == first.own_tool_calls
        assert [r.body for r in lab.requests(again)] == [r.body for r in lab.requests(first)]
        told = [m["content"] for m in lab.requests(again)[-1].json["messages"] if m["role"] == "tool"]
        assert [part in text for part, text in zip(["0", "2026-11-01", "the answer"], told, strict=False)] == [True] * 3
        assert "try 3 again" in told[3]
        assert "no luck" in told[4]
        assert (place / "called").read_text().split() == ["0", "1", "2", "3", "4", "0"]

    async def test_a_users_own_tool_that_asks_a_human_leaves_the_run_and_is_called_again(
        self, lab: Lab, place: Path
    ) -> None:
        (place / "asking.py").write_text(textwrap.dedent(OWN_TOOLS))
        agent = await lab.open_native(place, "asking:agent")
        steps = [Step(calls=[CalledTool("confirm", {"n": 5})]), Step(text="It said {tool}.")]
        lab.model.script("own", *steps, per="conversation")
        run = lab.trial.prepare()
        assert (await lab.fail(agent, run=run)).code == ErrorCode.CANCELLED
        assert len(lab.requests(run)) == 1
        assert [method for method, _ in run.asked] == ["question.ask"]
        lab.trial.answers["Sure of 5?"] = "yes"
        again = await lab.run(agent, run=lab.trial.prepare_again(run))
        assert result(again)["output"] == "It said yes."


OWN_TOOLS = """
    import datetime
    from pathlib import Path

    from pydantic import BaseModel
    from pydantic_ai import Agent, ModelRetry, ToolReturn
    from pydantic_ai.exceptions import ToolFailed

    from agentforge_worker.adapter import current_run

    agent = Agent("openai-chat:own", name="mine", instructions="Use the tools.")

    def note(n):
        with Path(__file__).with_name("called").open("a") as file:
            file.write(f"{n} ")

    class Sum(BaseModel):
        total: int
        day: datetime.date = datetime.date(2026, 11, 1)

    @agent.tool_plain
    def plain(n: int) -> int:
        note(n)
        return n

    @agent.tool_plain(sequential=True)
    def typed(n: int) -> Sum:
        note(n)
        return Sum(total=n)

    @agent.tool_plain(sequential=True)
    def rich(n: int) -> ToolReturn:
        note(n)
        return ToolReturn({"is": "the answer"}, content="and more", metadata={"n": n})

    @agent.tool_plain(sequential=True)
    def again(n: int) -> str:
        note(n)
        raise ModelRetry(f"try {n} again")

    @agent.tool_plain(sequential=True)
    async def fails(n: int) -> str:
        note(n)
        raise ToolFailed("no luck")

    @agent.tool_plain
    async def confirm(n: int) -> str:
        return await current_run().ask(f"Sure of {n}?")
"""
TYPED = """
    import datetime

    from pydantic import BaseModel
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel

    class Sum(BaseModel):
        total: int
        day: datetime.date = datetime.date(2026, 11, 1)

    def make():
        return Agent(OpenAIChatModel("typed"), output_type=Sum)
"""
NATIVE = """
    from pydantic_ai import Agent

    agent = Agent("openai-chat:scripted", name="mine", instructions="Use the tools.")

    @agent.tool_plain
    def double(n: int) -> int:
        return n * 2
"""


def result(run: TrialRun) -> dict[str, Any]:
    assert run.result is not None
    return run.result
