"""The conformance suite of adapters: what every framework must do alike, tried in its real environment.

    class TestMyFramework(AdapterSuite):
        reference = "my-framework"

That is the whole test of an adapter whose folder the catalogue knows. For one that lies elsewhere, or an environment
made by hand, override the fixtures `release` and `python`. One worker serves all tests of a class. Where a test can't
hold, the manifest says so in its capabilities, and the test is skipped with the manifest's note.

A release that speaks text with the model (`native-tool-calls` is `absent`) makes one call with each answer, and its
conversation is lines of text: the scripted model reads those, and the tests hold for what it has read.
"""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from agentforge.frameworks import Catalogue, Release
from agentforge.workers import TrialRun
from agentforge_conformance.capabilities import proves
from agentforge_conformance.fidelity import compare, differing_paths, readable
from agentforge_conformance.lab import (
    ADD,
    EXPLODE,
    HANG,
    INTERRUPT,
    NO_AGENTS,
    SAMPLE_OUTPUT,
    SAMPLE_SETTINGS,
    Lab,
    Own,
    built_python,
    open_lab,
    own_agent,
    run_native,
)
from agentforge_conformance.scripted_model import CalledTool, Conversation, RecordedRequest, ScriptedModel, Step
from agentforge_worker.wire import ErrorCode, RpcError

__all__ = ["AdapterSuite"]

Json = Any

MANY = 20
"""Runs at once; the suite is about right tokens and answers, benchmarks are about numbers."""

_ON_THE_WIRE = {"max_tokens": ("max_tokens", "max_completion_tokens")}
_OUTPUT = {
    "type": "object",
    "properties": {"total": {"type": "number"}, "currency": {"type": "string", "enum": ["EUR", "USD"]}},
    "required": ["total", "currency"],
    "additionalProperties": False,
}
_ASKED_AND_TOLD: list[dict[str, Json]] = [
    {"role": "user", "content": "What is 20 + 22?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call-9", "name": "add", "arguments": {"a": 20, "b": 22}}],
    },
    {"role": "tool", "content": "42", "tool_call_id": "call-9"},
]
"""How a conversation begins that goes on."""


class AdapterSuite:
    """Inherit it, set `reference`."""

    pytestmark = pytest.mark.asyncio(loop_scope="class")

    reference: ClassVar[str] = ""
    """The framework or release under test: `langchain`, `langchain==1.4.7`."""

    @pytest.fixture(scope="class")
    @classmethod
    def release(cls) -> Release:
        """The release under test."""
        return Catalogue.discover().resolve(cls.reference)

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def python(cls, release: Release) -> Path:
        """The interpreter of its environment."""
        return await built_python(release)

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def lab(cls, release: Release, python: Path) -> AsyncIterator[Lab]:
        """The worker that serves all tests."""
        async with open_lab(release, python) as lab:
            await lab.start()
            yield lab

    @pytest.fixture
    def place(self, lab: Lab) -> Path:
        """A folder that the worker may read and write: for native agents, and what they leave."""
        return lab.place()

    @pytest.fixture(scope="class")
    @classmethod
    def first(cls, lab: Lab) -> TrialRun:
        """The first run of the worker: the sample agent, its settings set."""
        return lab.first

    @pytest.fixture
    def own(self, lab: Lab, release: Release) -> Own:
        """The agent that a user of the framework has: what the function `agent` of the native sample returns."""
        capability = release.traits.capability("native")
        if capability.level == "absent":
            pytest.skip(f"native is absent: {capability.note}")
        return own_agent(release)

    @pytest.fixture
    def needs(self, release: Release) -> Callable[[str], None]:
        """Skip the test unless the manifest declares a capability as full."""

        def require(name: str) -> None:
            declared = release.traits.capabilities
            capability = declared.get(name)
            if capability is None:
                pytest.skip(f"{release.framework.name} declares no capability {name!r}")
            elif capability.level != "full":
                pytest.skip(f"{name} is {capability.level}: {capability.note}")

        return require

    # ---- what it is

    @proves("basics")
    async def test_the_installed_release_is_the_one_asked_for(self, lab: Lab, release: Release) -> None:
        assert release.is_version(lab.trial.worker.hello["probe"]["version"])

    @proves("basics")
    async def test_the_card_says_what_the_agent_is(self, lab: Lab) -> None:
        card = (await lab.opened("card"))["card"]
        assert card["name"] == "expenses"
        assert card["tools"] == lab.tool_names
        assert card["models"] == ["scripted"]

    # ---- the tool loop

    @proves("tools")
    async def test_a_tool_gets_the_models_arguments_and_its_result_goes_back(
        self, lab: Lab, needs: Callable[[str], None]
    ) -> None:
        needs("tools")
        lab.model.script("one-call", _call("total_for", category="meals"), Step(text="It was {tool}."))
        run = await lab.run(await lab.open(model="one-call"))
        assert run.tool_calls == [("total_for", {"category": "meals"})]
        assert _output(run) == "It was 96.0."

    @proves("tools")
    async def test_results_of_several_calls_go_back_to_their_calls(
        self, lab: Lab, needs: Callable[[str], None]
    ) -> None:
        needs("tools")
        both = Step(calls=[CalledTool("add", {"a": 1, "b": 2}), CalledTool("total_for", {"category": "hotel"})])
        lab.model.script("two-calls", both, Step(text="done"))
        run = await lab.run(await lab.open(model="two-calls"))
        assert sorted(run.tool_calls) == [("add", {"a": 1, "b": 2}), ("total_for", {"category": "hotel"})]
        messages = lab.requests(run)[-1].conversation.messages
        asked = {call["id"]: call["function"]["name"] for m in messages for call in m.get("tool_calls") or ()}
        told = {asked[m["tool_call_id"]]: _text(m) for m in messages if m["role"] == "tool"}
        assert told == {"add": "3", "total_for": "730.0"}

    @proves("basics")
    async def test_a_run_without_tools_answers_at_once(self, lab: Lab) -> None:
        run = await lab.run(await lab.open(tools=[], model="plain-answer"), "Hello there")
        assert "Hello there" in _output(run)
        assert len(lab.requests(run)) == 1
        assert "tools" not in lab.requests(run)[0].json

    @proves("tools")
    async def test_the_messages_of_a_run_tell_what_it_did(self, first: TrialRun, needs: Callable[[str], None]) -> None:
        needs("tools")
        assert first.result is not None
        asked, told, answered = first.result["messages"]
        (call,) = asked["tool_calls"]
        assert (asked["role"], call["name"], call["arguments"]) == ("assistant", "add", {"a": 2, "b": 2})
        assert (told["role"], told["tool_call_id"], told["content"]) == ("tool", call["id"], "4")
        assert (answered["role"], answered["content"]) == ("assistant", "FINAL: tool said 4")

    @proves("tools")
    async def test_steps_end_where_the_agent_never_answers(self, lab: Lab, needs: Callable[[str], None]) -> None:
        needs("tools")
        lab.model.script("endless", _call("add", a=1, b=1))
        agent = await lab.open(model="endless", max_steps=3)
        run = lab.trial.prepare()
        with contextlib.suppress(RpcError):  # frameworks fail here, or make the model answer with what it has
            await lab.run(agent, run=run)
        assert 3 <= len(lab.requests(run)) <= 4

    @proves("native-tool-calls")
    async def test_tools_and_their_calls_are_the_apis_own_and_not_text(
        self, lab: Lab, first: TrialRun, needs: Callable[[str], None], release: Release
    ) -> None:
        needs("tools")
        if "native-tool-calls" in release.traits.capabilities:
            needs("native-tool-calls")
        asked, told = lab.requests(first)
        assert [tool["function"]["name"] for tool in asked.json["tools"]] == lab.tool_names
        assert [m["role"] for m in told.json["messages"]][-2:] == ["assistant", "tool"]

    # ---- what reaches the model

    @proves("basics")
    async def test_instructions_and_question_reach_the_model_as_they_are(self, lab: Lab) -> None:
        strange = 'Ünïcödé, {braces} {{twice}}, "quotes", %s, $x, <b>tags</b>, a \\ and 日本語'
        run = await lab.run(await lab.open(instructions="Mind this: " + strange, tools=[]), "Asked: " + strange)
        texts = [_text(m) for m in lab.requests(run)[0].json["messages"]]
        assert any("Mind this: " + strange in text for text in texts)
        assert any("Asked: " + strange in text for text in texts)

    @proves("basics")
    async def test_role_goal_and_backstory_reach_the_model(self, lab: Lab) -> None:
        told = {"role": "Senior accountant", "goal": "No cent is lost", "backstory": "Thirty years of ledgers."}
        run = await lab.run(await lab.open(tools=[], **told))
        body = lab.requests(run)[0].body.decode()
        assert all(text in body for text in told.values())

    @proves("settings")
    @pytest.mark.parametrize("setting", sorted(SAMPLE_SETTINGS))
    async def test_a_setting_reaches_the_wire_or_is_warned_of(self, lab: Lab, release: Release, setting: str) -> None:
        value = SAMPLE_SETTINGS[setting]
        agent = await lab.open(settings={setting: value}, tools=[])
        run = await lab.run(agent)
        body = lab.requests(run)[0].json
        sent = [body[name] for name in _ON_THE_WIRE.get(setting, (setting,)) if name in body]
        if setting in release.traits.model_settings:
            if setting == "stop" and lab.requests(run)[0].conversation.in_text:
                assert set(value) <= set(*sent)  # text needs stops of its own
            else:
                assert sent == [value]
        else:
            assert any(setting in warning for warning in [*lab.warnings[agent], *run.warnings])

    @proves("replay")
    async def test_several_runs_of_an_agent_make_the_same_requests(self, lab: Lab) -> None:
        agent = await lab.open(settings=SAMPLE_SETTINGS)
        runs = [await lab.run(agent) for _ in range(2)]
        differences = compare(*(lab.requests(run) for run in runs))
        assert not differences, readable(differences)

    @proves("replay")
    async def test_a_fresh_worker_makes_the_same_requests_byte_for_byte(
        self, lab: Lab, first: TrialRun, release: Release, python: Path
    ) -> None:
        """Replay matches by request: a run that is executed again must ask the same."""
        async with open_lab(release, python) as other:
            again = await other.start()
            assert [r.body for r in other.requests(again)] == [r.body for r in lab.requests(first)]

    # ---- streams, threads, structured output

    @proves("streaming")
    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_run_streams_its_model_requests_when_it_is_watched(
        self, lab: Lab, needs: Callable[[str], None], stream: bool
    ) -> None:
        needs("streaming")
        run = await lab.run(await lab.open(), stream=stream)
        assert [bool(r.json.get("stream")) for r in lab.requests(run)] == [stream] * (len(lab.calls) + 1)
        assert _output(run) == lab.answer
        assert run.tool_calls == lab.calls

    @proves("threads")
    async def test_a_thread_goes_on(self, lab: Lab, needs: Callable[[str], None]) -> None:
        needs("threads")
        thread = [*_ASKED_AND_TOLD, _message("assistant", "It is 42.")]
        run = await lab.run(await lab.open(model="thread"), "And doubled?", messages=thread)
        conversation = lab.requests(run)[0].conversation
        asked = _said(conversation)
        assert [m["role"] for m in asked] == ["user", "assistant", "tool", "assistant", "user"]
        assert [_text(asked[i]) for i in (0, 2, 3, 4)] == ["What is 20 + 22?", "42", "It is 42.", "And doubled?"]
        (sent,) = asked[1]["tool_calls"]
        assert (sent["id"], sent["function"]["name"]) == (asked[2]["tool_call_id"], "add")
        assert conversation.in_text or sent["id"] == "call-9"

    @proves("takeover")
    @pytest.mark.parametrize("length", [1, 3, 5], ids=["question", "tool result", "later question"])
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    async def test_a_conversation_taken_over_goes_on_from_its_last_message(
        self, lab: Lab, needs: Callable[[str], None], length: int, stream: bool
    ) -> None:
        """A run that another framework began: nothing is said that is not in its messages."""
        needs("tools")
        thread = [*_ASKED_AND_TOLD, _message("assistant", "It is 42."), _message("user", "And doubled?")][:length]
        lab.model.script("taken-over", Step(text="Taken over."))
        run = await lab.run(await lab.open(model="taken-over"), None, messages=thread, continues=True, stream=stream)
        assert _output(run) == "Taken over."
        (request,) = lab.requests(run)
        asked = _said(request.conversation)
        assert [m["role"] for m in asked] == [m["role"] for m in thread]
        assert all(told["content"] in _text(sent) for sent, told in zip(asked, thread, strict=True))
        assert run.result is not None
        assert [(m["role"], m["content"]) for m in run.result["messages"]] == [("assistant", "Taken over.")]

    @proves("takeover")
    async def test_calls_that_a_conversation_taken_over_ends_with_are_made_first(
        self, lab: Lab, needs: Callable[[str], None]
    ) -> None:
        needs("tools")
        run = await lab.run(await lab.open(), None, messages=_ASKED_AND_TOLD[:2], continues=True)
        assert run.tool_calls == [("add", {"a": 20, "b": 22})]
        conversation = lab.requests(run)[0].conversation
        asked = _said(conversation)
        assert [m["role"] for m in asked] == ["user", "assistant", "tool"]
        assert (asked[2]["tool_call_id"], _text(asked[2])) == (asked[1]["tool_calls"][0]["id"], "42")
        assert conversation.in_text or asked[2]["tool_call_id"] == "call-9"
        assert run.result is not None
        assert [m["role"] for m in run.result["messages"]] == ["tool", "assistant"]
        assert _output(run) == "FINAL: tool said 42"

    @proves("takeover")
    async def test_the_messages_of_a_run_are_a_conversation_to_go_on_from(
        self, lab: Lab, first: TrialRun, needs: Callable[[str], None]
    ) -> None:
        needs("tools")
        assert first.result is not None
        thread = [_message("user", "How much was it?"), *first.result["messages"]]
        run = await lab.run(await lab.open(model="thread"), "Are you sure?", messages=thread)
        asked = _said(lab.requests(run)[0].conversation)
        assert [m["role"] for m in asked] == ["user", "assistant", "tool", "assistant", "user"]
        assert asked[1]["tool_calls"][0]["id"] == asked[2]["tool_call_id"]
        assert [_text(m) for m in asked[2:4]] == ["4", "FINAL: tool said 4"]

    @proves("threads")
    async def test_an_earlier_conversation_is_known(self, lab: Lab) -> None:
        thread = [_message("user", "My name is Ada."), _message("assistant", "Hello Ada!")]
        run = await lab.run(await lab.open(tools=[]), "Who am I?", messages=thread)
        body = lab.requests(run)[0].body.decode()
        assert all(text in body for text in ("My name is Ada.", "Hello Ada!", "Who am I?"))

    @proves("structured-output")
    @pytest.mark.parametrize("tools", [[], [ADD]], ids=["alone", "after a tool"])
    async def test_structured_output_is_the_output(
        self, lab: Lab, needs: Callable[[str], None], tools: list[Json]
    ) -> None:
        needs("structured-output")
        if tools:
            needs("tools")
        run = await lab.run(await lab.open(output=_OUTPUT, tools=tools))
        assert run.result is not None
        assert _output(run) == {"total": 2.0, "currency": "EUR"}
        assert json.loads(run.result["messages"][-1]["content"]) == _output(run)
        assert [name for name, _ in run.tool_calls] == [tool["name"] for tool in tools]

    # ---- many at once

    @proves("concurrency")
    async def test_many_runs_at_once_keep_their_tokens_and_answers(
        self, lab: Lab, needs: Callable[[str], None]
    ) -> None:
        """Every request waits until all runs have asked: they are under way at once or not at all."""
        needs("concurrency")
        lab.model.script("together", Step(barrier=MANY, echo=True))
        agent = await lab.open(model="together")
        runs = await asyncio.gather(*(lab.run(agent, f"question {n:03}") for n in range(MANY)))
        for number, run in enumerate(runs):
            asked = lab.requests(run)
            assert _output(run).startswith("FINAL: tool said 4 | user said " if lab.tools else "FINAL: ")
            assert f"question {number:03}" in _output(run)
            assert len(asked) == len(lab.calls) + 1
            assert all(f"question {number:03}" in request.body.decode() for request in asked)

    # ---- ends before the end

    @proves("cancel")
    @pytest.mark.parametrize("where", ["model", "stream", "tool"])
    async def test_a_cancelled_run_ends_within_two_seconds(
        self, lab: Lab, needs: Callable[[str], None], where: str
    ) -> None:
        needs("cancel")
        if where == "tool":
            needs("tools")
        model = {"model": "slow-60", "stream": "silent-stream", "tool": "scripted"}[where]
        agent = await lab.open(model=model, tools=[HANG] if where == "tool" else [])
        run = lab.trial.prepare()
        lab.hanging.clear()
        before = len(lab.model.requests)
        under_way = asyncio.create_task(lab.run(agent, run=run, stream=where == "stream"))
        await (lab.hanging.wait() if where == "tool" else lab.model.wait_for_requests(before + 1))
        lab.trial.cancel(run)
        with pytest.raises(RpcError) as caught:
            async with asyncio.timeout(2):
                await under_way
        assert caught.value.code == ErrorCode.CANCELLED
        async with asyncio.timeout(2):
            await lab.model.wait_until_idle()
        assert _output(await lab.run(await lab.open())) == lab.answer

    @proves("waiting")
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    @pytest.mark.parametrize("others", [0, 1, 2], ids=["alone", "beside another", "between others"])
    async def test_a_run_that_has_to_wait_in_a_tool_leaves_the_framework(
        self, lab: Lab, needs: Callable[[str], None], stream: bool, others: int
    ) -> None:
        """The model hears nothing of it: the run goes on in a later attempt, as if nothing had been."""
        needs("tools")
        before, waits, after = (
            CalledTool("add", {"a": 1, "b": 1}),
            CalledTool("interrupt", {"why": "?"}),
            CalledTool("add", {"a": 2, "b": 2}),
        )
        lab.model.script("waits", Step(calls=[[waits], [before, waits], [before, waits, after]][others]))
        run = lab.trial.prepare()
        async with asyncio.timeout(5):
            error = await lab.fail(await lab.open(model="waits", tools=[ADD, INTERRUPT]), run=run, stream=stream)
        assert error.code == ErrorCode.CANCELLED
        assert [name for name, _ in run.tool_calls].count("interrupt") == 1
        assert _output(await lab.run(await lab.open())) == "FINAL: tool said 4"
        asked = lab.requests(run)
        assert len(asked) == (1 + min(others, 1) if asked[0].conversation.in_text else 1)

    @proves("failures")
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    async def test_a_failed_tool_fails_the_run_with_its_own_code(
        self, lab: Lab, needs: Callable[[str], None], stream: bool
    ) -> None:
        needs("tools")
        run = lab.trial.prepare()
        error = await lab.fail(await lab.open(tools=[EXPLODE]), run=run, stream=stream)
        assert (error.code, error.data["code"], error.data["origin"]) == (ErrorCode.FAILED, "AF603", "tool")
        assert "the report is empty" in error.data["message"]
        assert len(run.tool_calls) == 1

    @proves("failures")
    @pytest.mark.parametrize("model", ["fail-401", "fail-429", "fail-500", "cut-stream"])
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
    async def test_a_model_that_fails_ends_the_run_with_an_error(self, lab: Lab, model: str, stream: bool) -> None:
        error = await lab.fail(await lab.open(model=model), stream=stream)
        assert error.code == ErrorCode.FAILED
        assert error.data["code"].startswith("AF")
        assert error.data["origin"] in ("framework", "model")
        assert error.data["message"]

    # ---- events, log, traces on the machine

    @proves("events")
    async def test_steps_and_messages_are_told_in_order(self, lab: Lab, first: TrialRun) -> None:
        started: dict[int, str] = {}
        finished: list[int] = []
        for kind, data in first.events:
            if kind == "step.started":
                assert data["step"] not in started
                started[data["step"]] = data["name"]
            elif kind == "step.finished":
                assert data["step"] in started
                assert data["step"] not in finished
                assert data["failed"] is False
                finished.append(data["step"])
            else:
                assert kind in ("message.added", "handoff.made"), "the host alone emits other kinds"
        assert sorted(started) == sorted(finished)
        assert all(started.values())
        assert len([name for name in started.values() if name == "model"]) == len(lab.requests(first))
        assert "add" in started.values() or not lab.tools

    @proves("events")
    async def test_the_answer_is_added_as_a_message(self, lab: Lab, first: TrialRun) -> None:
        added = [data for kind, data in first.events if kind == "message.added"]
        assert added[-1]["role"] == "assistant"
        assert added[-1]["content"] == lab.answer

    @proves("events")
    async def test_what_is_printed_belongs_to_the_run(self, first: TrialRun) -> None:
        """The observer prints when the framework's client connects."""
        assert any(line.startswith("connects to") for line in first.logs)

    @proves("confinement")
    async def test_nothing_is_written_outside_home_and_workspace(
        self, lab: Lab, release: Release, first: TrialRun, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        tests = str(tmp_path_factory.getbasetemp())  # where tools of other tests leave their marks
        own = ("/home/agent/", "/tmp/", str(first.workspace.parent), os.devnull, "/proc/self/", tests)
        code = lab.trial.worker.spec.adapter
        assert code is not None
        adapter = str(code.folder)
        assert [path for path in lab.observed("write") if path.startswith(adapter) or not path.startswith(own)] == []

    @proves("confinement")
    async def test_no_other_machine_is_spoken_to(self, lab: Lab, first: TrialRun) -> None:
        assert [place for place in lab.observed("connect") if "127.0.0.1" not in place] == []

    # ---- a user's own agent

    @proves("native")
    async def test_a_users_own_agent_runs_unchanged(self, lab: Lab, own: Own) -> None:
        run = lab.trial.prepare()
        await lab.run(await own.open(lab, run), own.input, run=run)
        assert lab.answer in json.dumps(_output(run))
        assert len(lab.requests(run)) > len(lab.calls)

    @proves("native")
    async def test_a_coroutine_function_may_make_a_users_own_agent(self, lab: Lab, own: Own) -> None:
        run = lab.trial.prepare()
        await lab.run(await own.open(lab, run, name="waits_for_agent"), own.input, run=run)
        assert lab.answer in json.dumps(_output(run))

    @proves("native")
    @pytest.mark.parametrize(("name", "told"), NO_AGENTS.items())
    async def test_an_entry_point_that_is_no_agent_is_the_users_slip(
        self, lab: Lab, own: Own, name: str, told: str
    ) -> None:
        run = lab.trial.prepare()
        with pytest.raises(RpcError) as caught:
            await lab.run(await own.open(lab, run, name=name), own.input, run=run)
        error = caught.value.data
        assert (error["code"], error["origin"]) == ("AF422", "user")
        assert f":{name}`" in error["message"]
        assert told in error["message"]
        assert "native.entrypoint" in error["hint"]

    @proves("tool-replay")
    async def test_a_users_own_tool_is_not_called_again_in_a_later_attempt(
        self, lab: Lab, own: Own, release: Release
    ) -> None:
        """The later attempt gets a result from the journal that the tool itself can't give."""
        capability = release.traits.capability("tool-replay")
        if capability.level == "absent":
            pytest.skip(f"tool-replay is absent: {capability.note}")
        first = lab.trial.prepare()
        agent = await own.open(lab, first)
        await lab.run(agent, own.input, run=first)
        assert [name for name, _ in first.own_tool_calls] == ["add"]
        (recorded,) = first.journal.values()
        recorded["value"] = _with_five(recorded["value"])
        again = await lab.run(agent, own.input, run=lab.trial.prepare_again(first))
        assert again.own_tool_calls == first.own_tool_calls
        assert "FINAL: tool said 5" in json.dumps(_output(again))

    # ---- the native program

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def native(cls, release: Release, python: Path) -> dict[str, list[RecordedRequest]]:
        """The native program's requests by mode."""
        if release.framework.distribution == "":
            pytest.skip("plain Python has no client of its own to compare with")
        program = release.framework.folder / release.sample

        async def recorded(*arguments: str) -> list[RecordedRequest]:
            async with ScriptedModel() as model:
                await run_native(python, program, model, [*arguments, "How much was it?"])
                return model.requests

        commands = {"plain": ["--mode", "plain"]}
        if release.traits.capability("streaming").level == "full":
            commands["stream"] = ["--mode", "stream"]
        if release.traits.capability("structured-output").level == "full":
            commands["structured"] = ["--json-output"]
        limit = asyncio.Semaphore(2)

        async def one(arguments: list[str]) -> list[RecordedRequest]:
            async with limit:
                return await recorded(*arguments)

        return dict(zip(commands, await asyncio.gather(*map(one, commands.values())), strict=True))

    @proves("fidelity")
    @pytest.mark.parametrize("mode", ["plain", "stream", "structured"])
    async def test_requests_are_those_of_the_native_program(
        self,
        lab: Lab,
        native: dict[str, list[RecordedRequest]],
        needs: Callable[[str], None],
        release: Release,
        mode: str,
    ) -> None:
        if mode != "plain":
            needs({"stream": "streaming", "structured": "structured-output"}[mode])
        output = SAMPLE_OUTPUT if mode == "structured" else None
        run = await lab.run(await lab.open(settings=SAMPLE_SETTINGS, output=output), stream=mode == "stream")
        differences = compare(native[mode], lab.requests(run))
        assert differing_paths(differences) == frozenset(release.traits.unlike_native), readable(differences)
        readme = (release.framework.folder / "README.md").read_text("utf-8")
        assert [path for path in release.traits.unlike_native if path not in readme] == []


def _with_five(value: Json) -> Json:
    """Return a recorded result with 5 where the sample's tool says 4."""
    if isinstance(value, dict):
        return {key: _with_five(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_five(each) for each in value]
    if isinstance(value, str):
        return re.sub(r"\b4\b", "5", value)
    return 5 if value == 4 and not isinstance(value, bool) else value


def _call(name: str, **arguments: Json) -> Step:
    return Step(calls=[CalledTool(name, arguments)])


def _message(role: str, content: str, **more: Json) -> dict[str, Json]:
    return {"role": role, "content": content, **more}


def _said(conversation: Conversation) -> list[dict[str, Json]]:
    return [m for m in conversation.messages if m["role"] not in ("system", "developer")]


def _output(run: TrialRun) -> Json:
    assert run.result is not None
    return run.result["output"]


def _text(message: dict[str, Json]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""
