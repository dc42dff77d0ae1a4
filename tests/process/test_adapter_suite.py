"""The adapter suite must be able to fail: an adapter with planted faults turns exactly their tests red."""

import asyncio
import re
import sys
from pathlib import Path

from agentforge.frameworks import Catalogue

MANIFEST = """
name = "faulty"
title = "Faulty"
summary = "The python adapter with planted faults."
distribution = ""
model_settings = ["temperature", "max_tokens", "top_p", "stop", "seed", "frequency_penalty", "presence_penalty"]
[capabilities]
streaming = {level = "full"}
tools = {level = "full"}
cancel = {level = "full"}
structured-output = {level = "full"}
concurrency = {level = "absent", note = "Not even tried."}
[[releases]]
versions = ">=3.8"
python = ">=3.8"
adapter = "faulty:FaultyAdapter"
tested = [{version = "3.11", as_of = 2026-11-15T00:00:00Z}]
"""

FAULTY = """
import asyncio, contextlib, dataclasses, os, uuid
from agentforge_worker.adapter import Message, Result, Start, ToolFailed
from . import adapter as sound


async def call_tool(call, ctx):
    try:
        return await sound_call(call, ctx)
    except ToolFailed as error:                                   # fault: a failed tool is told to the model
        return Message("tool", str(error), tool_call_id=call["id"])

sound_call, sound._call_tool = sound._call_tool, call_tool


class FaultyAdapter(sound.PythonAdapter):
    def build(self, spec, ctx):
        instructions = spec.instructions.replace("{{", "{")                             # fault: formats the text
        spec = dataclasses.replace(spec, instructions=instructions, goal=None)            # fault: no goal
        return sound.PythonAdapter.build(self, spec, ctx)

    async def run(self, agent, request, ctx):
        agent._request["user"] = str(uuid.uuid4())                                      # fault: never the same
        agent._request["seed"] = 1                                                      # fault: not what was set
        agent._request["stream"] = False                                                # fault: never streams
        with contextlib.suppress(OSError):                                              # the fence is in its way
            open(os.path.join(os.path.dirname(__file__), "left-behind"), "w").close()    # fault: leaves a file
        ctx.emit("step.started", {"step": 99, "name": "for ever"})                      # fault: never finished
        request = Start(request.input)                                                  # fault: forgets
        work = asyncio.ensure_future(sound.PythonAdapter.run(self, agent, request, ctx))
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:                                              # fault: can't be cancelled
                pass
        result = work.result()
        output = str(result.output) if agent.spec.output else result.output             # fault: text for JSON
        return Result(output, result.messages[:-1])                                     # fault: no answer in them
"""

TEST = """
from pathlib import Path
import pytest
import pytest_asyncio
from agentforge.frameworks import Catalogue
from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.lab import built_python

class TestFaulty(AdapterSuite):
    reference = "faulty"

    @pytest.fixture(scope="class")
    @classmethod
    def release(cls):
        return Catalogue.discover([Path(__file__).parent]).resolve(cls.reference)

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def python(cls):
        return await built_python(Catalogue.discover().resolve("python==3.11"))
"""

RED = {
    "test_instructions_and_question_reach_the_model_as_they_are",
    "test_role_goal_and_backstory_reach_the_model",
    "test_a_setting_reaches_the_wire_or_is_warned_of[seed]",
    "test_several_runs_of_an_agent_make_the_same_requests",
    "test_a_fresh_worker_makes_the_same_requests_byte_for_byte",
    "test_a_run_streams_its_model_requests_when_it_is_watched[True]",
    *(
        f"test_a_conversation_taken_over_goes_on_from_its_last_message[{way}-{end}]"
        for way in ("plain", "streamed")
        for end in ("question", "tool result", "later question")
    ),
    "test_calls_that_a_conversation_taken_over_ends_with_are_made_first",
    "test_the_messages_of_a_run_are_a_conversation_to_go_on_from",
    "test_an_earlier_conversation_is_known",
    "test_structured_output_is_the_output[alone]",
    "test_structured_output_is_the_output[after a tool]",
    "test_the_messages_of_a_run_tell_what_it_did",
    "test_a_cancelled_run_ends_within_two_seconds[model]",
    "test_a_cancelled_run_ends_within_two_seconds[stream]",
    "test_a_cancelled_run_ends_within_two_seconds[tool]",
    "test_a_failed_tool_fails_the_run_with_its_own_code[plain]",
    "test_a_failed_tool_fails_the_run_with_its_own_code[streamed]",
    "test_steps_and_messages_are_told_in_order",
    "test_nothing_is_written_outside_home_and_workspace",
}
SKIPPED = {
    "test_many_runs_at_once_keep_their_tokens_and_answers",
    "test_a_thread_goes_on",
    "test_a_users_own_agent_runs_unchanged",
    "test_a_coroutine_function_may_make_a_users_own_agent",
    *(
        f"test_an_entry_point_that_is_no_agent_is_the_users_slip[{slip}]"
        for slip in (
            "number-a value of type `int`",
            "Thing-the class `Thing`",
            "wants_more-function",
            "makes_a_number-a value of type `int`",
            "waits_for_a_number-a value of type `int`",
        )
    ),
    "test_a_users_own_tool_is_not_called_again_in_a_later_attempt",
    "test_requests_are_those_of_the_native_program[plain]",
    "test_requests_are_those_of_the_native_program[stream]",
    "test_requests_are_those_of_the_native_program[structured]",
}


async def test_each_planted_fault_turns_its_tests_red_and_no_others(tmp_path: Path) -> None:
    sound = Catalogue.discover().get("python").folder / "adapter.py"
    files = {
        "faulty/framework.toml": MANIFEST,
        "faulty/faulty.py": FAULTY,
        "faulty/adapter.py": sound.read_text("utf-8"),
        "test_faulty.py": TEST,
        "pytest.ini": "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    outcomes = await _outcomes(tmp_path)
    assert {name for name, outcome in outcomes.items() if outcome == "FAILED"} == RED
    assert {name for name, outcome in outcomes.items() if outcome == "SKIPPED"} == SKIPPED
    assert len([outcome for outcome in outcomes.values() if outcome == "PASSED"]) > 15


async def _outcomes(folder: Path) -> dict[str, str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "--tb=short",
        "--timeout=60",
        "-p",
        "no:randomly",
        "test_faulty.py",
    ]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    found = re.findall(r"::TestFaulty::(test_.+?) (PASSED|FAILED|SKIPPED|ERROR)", out.decode())
    assert found, out.decode()
    return dict(found)
