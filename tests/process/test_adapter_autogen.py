"""The AutoGen adapters: the suite for each release, native teams and agents."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentforge.workers import TrialRun
from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.lab import ADD, Lab
from agentforge_conformance.scripted_model import CalledTool, Step
from agentforge_worker.wire import ErrorCode

AGENTS = """
from pathlib import Path

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination, TextMentionTermination
from autogen_agentchat.teams import RoundRobinGroupChat, Swarm
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel

from agentforge_worker.adapter import current_run

INFO = {"vision": False, "function_calling": True, "json_output": True, "structured_output": True, "family": "unknown"}


def note(n):
    with Path(__file__).with_name("called").open("a") as file:
        file.write(f"{n} ")


class Total(BaseModel):
    total: int


async def waits(n: int) -> dict:
    "Waits."
    note(n)
    return {"n": n}


def plain(n: int) -> Total:
    "In a thread."
    note(n)
    return Total(total=n)


async def raises(n: int) -> str:
    "Raises."
    note(n)
    raise ValueError(f"no {n}")


async def confirm(n: int) -> str:
    "Confirm."
    return await current_run().ask(f"Sure of {n}?")


def client(model="own"):
    return OpenAIChatCompletionClient(model=model, model_info=INFO)


def agent():
    return AssistantAgent("worker", client(), tools=[waits, plain, raises, confirm], reflect_on_tool_use=True)


def team():
    end = TextMentionTermination("end")
    worker = AssistantAgent("worker", client(), tools=[waits, plain, raises, confirm])
    return RoundRobinGroupChat([worker], termination_condition=end)


def pair():
    writer = AssistantAgent("writer", client("pair"), model_client_stream=True)
    critic = AssistantAgent("critic", client("pair"), model_client_stream=True)
    return RoundRobinGroupChat([writer, critic], termination_condition=MaxMessageTermination(3))


def swarm():
    first = AssistantAgent("first", client("swarm"), handoffs=["second"])
    return Swarm([first, AssistantAgent("second", client("swarm"))], termination_condition=MaxMessageTermination(4))
"""
LOADED = """
import os

os.environ["OPENAI_API_KEY"] = "of the first run"
loaded = pair()
"""
CONVERSABLE = """
from pathlib import Path
from typing import Annotated

from autogen import ConversableAgent, GroupChat, GroupChatManager, UserProxyAgent, register_function

from agentforge_worker.adapter import current_run

LLM = {"config_list": [{"model": "own", "price": [0, 0]}], "cache_seed": None}


def note(n):
    with Path(__file__).with_name("called").open("a") as file:
        file.write(f"{n} ")


async def waits(n: int) -> str:
    note(n)
    return f"n is {n}"


def plain(n: int) -> str:
    note(n)
    return f"total {n}"


def raises(n: int) -> str:
    note(n)
    raise ValueError(f"no {n}")


def confirm(n: int) -> str:
    run = current_run()
    return run.wait(run.ask(f"Sure of {n}?"))


def pair():
    user = UserProxyAgent(
        "user",
        human_input_mode="NEVER",
        code_execution_config=False,
        is_termination_msg=lambda m: "end" in (m["content"] or ""),
    )
    assistant = ConversableAgent("assistant", llm_config=LLM, human_input_mode="NEVER")
    for tool in (waits, plain, raises, confirm):
        register_function(tool, caller=assistant, executor=user, description="A tool.")
    return user, assistant


def chat(text):
    user, assistant = pair()
    return user.initiate_chat(assistant, message=text, silent=True)


async def chat_waiting(text):
    user, assistant = pair()
    return await user.a_initiate_chat(assistant, message=text, silent=True)


def alone():
    return ConversableAgent("assistant", llm_config=LLM, human_input_mode="NEVER")


def group():
    writer = ConversableAgent("writer", llm_config=LLM, human_input_mode="NEVER")
    critic = ConversableAgent("critic", llm_config=LLM, human_input_mode="NEVER")
    chat = GroupChat([writer, critic], [], max_round=3, speaker_selection_method="round_robin")
    return GroupChatManager(chat, llm_config=LLM)
"""
OUTPUT = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
CALLS = [CalledTool(name, {"n": n}, f"call_{n}") for n, name in enumerate(["waits", "plain", "raises"])]


class AgentChatSuite(AdapterSuite):
    """What all releases from 0.4 on have."""

    raised = "no 2"
    """What the model is told of a tool that raises."""

    @pytest.mark.parametrize(
        ("schema", "value", "output"),
        [
            ({"type": "array", "items": {"type": "number"}}, {"response": [1.5, 2]}, [1.5, 2]),
            ({"enum": ["yes", "no"]}, {"response": "yes"}, "yes"),
            (OUTPUT, {"total": 3}, {"total": 3}),
        ],
        ids=["list", "enum", "object"],
    )
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    async def test_an_output_that_is_no_object_comes_in_one_and_is_taken_out(
        self, lab: Lab, schema: dict[str, Any], value: Any, output: Any, stream: bool
    ) -> None:
        lab.model.script("wrapped", Step(value=value))
        run = await lab.run(await lab.open(model="wrapped", output=schema), stream=stream)
        assert result(run)["output"] == output
        assert bool(lab.requests(run)[0].json.get("stream")) is stream

    async def test_optional_arguments_may_be_null_where_tools_are_strict(self, lab: Lab) -> None:
        """OpenAI's strict tools have no optional ones; the tool is not told of nulls that it does not take."""
        inner = {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}}
        parameters = {"type": "object", "properties": {"a": inner, "n": {"type": "integer"}}, "required": ["a"]}
        tool = {"name": "add", "description": "Add.", "parameters": parameters}
        lab.model.script(
            "strict", Step(calls=[CalledTool("add", {"a": {"b": 1}, "n": None})]), Step(value={"total": 1})
        )
        run = lab.trial.prepare()
        await lab.fail(await lab.open(model="strict", output=OUTPUT, tools=[tool]), run=run)
        assert run.tool_calls == [("add", {"a": {"b": 1}})]
        sent = lab.requests(run)[0].json["tools"][0]["function"]
        assert sent["strict"] is True
        assert sent["parameters"]["required"] == ["a", "n"]
        assert sent["parameters"]["properties"]["n"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]
        assert sent["parameters"]["properties"]["a"]["required"] == ["b"]

    async def test_a_setting_that_openais_client_does_not_know_reaches_the_wire(self, lab: Lab) -> None:
        run = await lab.run(await lab.open(settings={"top_k": 5, "repetition_penalty": 1.1}, tools=[]))
        body = lab.requests(run)[0].json
        assert (body["top_k"], body["repetition_penalty"]) == (5, 1.1)

    async def test_an_agent_may_have_a_name_that_is_no_identifier(self, lab: Lab) -> None:
        run = await lab.run(await lab.open(name="2nd expense-report", tools=[ADD]))
        assert result(run)["output"] == "FINAL: tool said 4"

    @pytest.mark.parametrize("made_by", ["agent", "team"])
    async def test_a_users_own_tools_are_called_once_in_all_attempts(self, lab: Lab, place: Path, made_by: str) -> None:
        """What they return, and what they raise for the model to hear, is the same to the model both times."""
        module = f"ag_own_{made_by}"
        (place / f"{module}.py").write_text(AGENTS)
        agent = await lab.open_native(place, f"{module}:{made_by}")
        lab.model.script("own", Step(calls=CALLS), Step(text="end"), per="conversation")
        first = await lab.run(agent)
        assert sorted(first.own_tool_calls) == sorted((call.name, call.arguments) for call in CALLS)
        again = lab.trial.prepare_again(first)
        await lab.run(agent, run=again)
        assert sorted(again.own_tool_calls) == sorted(first.own_tool_calls)
        assert result(again)["output"] == "end"
        assert [r.body for r in lab.requests(again)] == [r.body for r in lab.requests(first)]
        told = [m["content"] for m in lab.requests(again)[1].json["messages"] if m["role"] == "tool"]
        assert told == ["{'n': 0}", '{"total": 1}', self.raised]
        assert sorted((place / "called").read_text().split()) == ["0", "1", "2"]
        assert [d["name"] for k, d in again.events if k == "step.started"] == ["waits", "plain", "raises"]

    @pytest.mark.parametrize("made_by", ["agent", "team"])
    async def test_a_users_own_tool_that_asks_a_human_leaves_the_run_and_is_called_again(
        self, lab: Lab, place: Path, made_by: str
    ) -> None:
        (place / f"ag_asks_{made_by}.py").write_text(AGENTS)
        agent = await lab.open_native(place, f"ag_asks_{made_by}:{made_by}")
        steps = [Step(calls=[CalledTool("confirm", {"n": 5})]), Step(text="It said {tool}: end.")]
        lab.model.script("own", *steps, per="conversation")
        lab.trial.answers.clear()
        run = lab.trial.prepare()
        assert (await lab.fail(agent, run=run)).code == ErrorCode.CANCELLED
        assert len(lab.requests(run)) == 1
        lab.trial.answers["Sure of 5?"] = "yes"
        again = await lab.run(agent, run=lab.trial.prepare_again(run))
        assert result(again)["output"] == "It said yes: end."

    async def test_a_group_chat_runs_as_its_user_wrote_it(self, lab: Lab, place: Path) -> None:
        (place / "ag_pair.py").write_text(AGENTS)
        agent = await lab.open_native(place, "ag_pair:pair")
        lab.model.script("pair", Step(text="A haiku."), Step(text="Not bad."), after="cycle")
        thread = [{"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Hello Ada!"}]
        run = await lab.run(agent, "Write.", stream=True)
        assert result(run)["output"] == "Not bad."
        added = [data["content"] for kind, data in run.events if kind == "message.added"]
        assert added == [m["content"] for m in result(run)["messages"]] == ["A haiku.", "Not bad."]
        assert [r.json["stream"] for r in lab.requests(run)] == [True, True]
        assert "Ada" in (await self._asked(lab, agent, "Write.", thread))

    async def _asked(self, lab: Lab, agent: str, text: str, thread: list[dict[str, Any]]) -> str:
        run = lab.trial.prepare()
        await lab.run(agent, text, messages=thread[:1], run=run)
        return lab.requests(run)[0].body.decode()

    async def test_a_loaded_group_chat_forgets_its_last_run(self, lab: Lab, place: Path) -> None:
        (place / "ag_loaded.py").write_text((AGENTS + LOADED).replace('client("pair")', 'client("again")'))
        lab.model.script("again", Step(text="One."), Step(text="Two."), after="cycle")
        agent = await lab.open_native(place, "ag_loaded:loaded")
        before = len(lab.model.requests)
        for question in ("First.", "Second."):
            assert result(await lab.run(agent, question))["output"] == "Two."
        asked = [r.body.decode() for r in lab.model.requests[before:]]
        assert ["First." in body for body in asked] == [True, True, False, False]

    async def test_a_handoff_is_told(self, lab: Lab, place: Path) -> None:
        (place / "ag_swarm.py").write_text(AGENTS)
        agent = await lab.open_native(place, "ag_swarm:swarm")
        hands_over = Step(calls=[CalledTool("transfer_to_second", {})])
        lab.model.script("swarm", hands_over, Step(text="Second speaks."))
        run = await lab.run(agent, "Go.")
        assert [data for kind, data in run.events if kind == "handoff.made"] == [{"from": "first", "to": "second"}]

    async def test_a_cancelled_group_chat_ends_within_two_seconds(self, lab: Lab, place: Path) -> None:
        (place / "ag_slow.py").write_text(AGENTS.replace('client("pair")', 'client("slow-60")'))
        agent = await lab.open_native(place, "ag_slow:pair")
        run = lab.trial.prepare()
        await cancelled_while_asking(lab, agent, run)
        lab.model.script("own", Step(text="end"))
        (place / "ag_after.py").write_text(AGENTS)
        assert result(await lab.run(await lab.open_native(place, "ag_after:agent")))["output"] == "end"


@pytest.mark.framework("autogen")
class TestAutoGen(AgentChatSuite):
    reference = "autogen==0.7.5"


async def cancelled_while_asking(lab: Lab, agent: str, run: TrialRun) -> None:
    """Cancel a run while its model is silent."""
    before = len(lab.model.requests)
    under_way = asyncio.create_task(lab.fail(agent, run=run))
    async with asyncio.timeout(10):
        await lab.model.wait_for_requests(before + 1)
    lab.trial.cancel(run)
    async with asyncio.timeout(2):
        assert (await under_way).code == ErrorCode.CANCELLED
        await lab.model.wait_until_idle()


def result(run: TrialRun) -> dict[str, Any]:
    assert run.result is not None
    return run.result


@pytest.mark.framework("autogen")
class TestPyAutoGen(AdapterSuite):
    reference = "autogen==0.2.35"

    @pytest.mark.parametrize("text", ['{"response": [1, 2]}', "none of it"])
    async def test_an_output_that_is_no_object_comes_in_one_and_is_taken_out(self, lab: Lab, text: str) -> None:
        """What is no JSON is left for the host to say."""
        lab.model.script("wrapped", Step(text=text))
        run = await lab.run(await lab.open(model="wrapped", output={"type": "array", "items": {"type": "number"}}))
        assert result(run)["output"] == ([1, 2] if text.startswith("{") else text)

    async def test_a_setting_that_openais_client_does_not_know_reaches_the_wire(self, lab: Lab) -> None:
        run = await lab.run(await lab.open(settings={"top_k": 5, "repetition_penalty": 1.1}, tools=[]))
        body = lab.requests(run)[0].json
        assert (body["top_k"], body["repetition_penalty"]) == (5, 1.1)

    async def test_an_agent_may_have_any_name(self, lab: Lab) -> None:
        run = await lab.run(await lab.open(name="2nd expense report", tools=[ADD]))
        assert result(run)["output"] == "FINAL: tool said 4"

    @pytest.mark.parametrize("made_by", ["pair", "chat", "chat_waiting"])
    async def test_a_users_own_functions_are_called_once_in_all_attempts(
        self, lab: Lab, place: Path, made_by: str
    ) -> None:
        """What they return, and what they raise for the model to hear, is the same to the model both times."""
        module = f"pyag_own_{made_by}"
        (place / f"{module}.py").write_text(CONVERSABLE)
        agent = await lab.open_native(place, f"{module}:{made_by}")
        lab.model.script("own", Step(calls=CALLS), Step(text="The end."), per="conversation")
        first = await lab.run(agent)
        assert result(first)["output"] == "The end."
        again = lab.trial.prepare_again(first)
        await lab.run(agent, run=again)
        assert sorted(name for name, _ in first.own_tool_calls) == ["plain", "raises", "waits"]
        assert again.own_tool_calls == first.own_tool_calls
        assert [r.body for r in lab.requests(again)] == [r.body for r in lab.requests(first)]
        told = [m["content"] for m in lab.requests(again)[1].json["messages"] if m["role"] == "tool"]
        assert sorted(told) == ["Error: no 2", "n is 0", "total 1"]
        assert sorted((place / "called").read_text().split()) == ["0", "1", "2"]
        assert sorted(d["name"] for k, d in again.events if k == "step.started") == ["plain", "raises", "waits"]

    async def test_a_users_own_function_that_asks_a_human_leaves_the_run_and_is_called_again(
        self, lab: Lab, place: Path
    ) -> None:
        (place / "pyag_asks.py").write_text(CONVERSABLE)
        agent = await lab.open_native(place, "pyag_asks:pair")
        steps = [Step(calls=[CalledTool("confirm", {"n": 5})]), Step(text="It said {tool}: end.")]
        lab.model.script("own", *steps, per="conversation")
        lab.trial.answers.clear()
        run = lab.trial.prepare()
        assert (await lab.fail(agent, run=run)).code == ErrorCode.CANCELLED
        assert len(lab.requests(run)) == 1
        lab.trial.answers["Sure of 5?"] = "yes"
        again = await lab.run(agent, run=lab.trial.prepare_again(run))
        assert result(again)["output"] == "It said yes: end."

    @pytest.mark.parametrize("made_by", ["alone", "group"])
    async def test_an_agent_or_a_group_chat_answers(self, lab: Lab, place: Path, made_by: str) -> None:
        (place / f"pyag_{made_by}.py").write_text(CONVERSABLE)
        agent = await lab.open_native(place, f"pyag_{made_by}:{made_by}")
        lab.model.script("own", Step(text="A haiku."), Step(text="Not bad."), after="cycle")
        run = await lab.run(agent, "Write.")
        said = ["A haiku."] if made_by == "alone" else ["A haiku.", "Not bad."]
        assert [(m["role"], m["content"]) for m in result(run)["messages"]] == [("assistant", text) for text in said]
        assert result(run)["output"] == said[-1]
        assert [data["content"] for kind, data in run.events if kind == "message.added"] == said


@pytest.mark.matrix
@pytest.mark.framework("autogen")
class TestAutoGen04(AgentChatSuite):
    reference = "autogen==0.4.9.3"
    raised = "Error: no 2"
