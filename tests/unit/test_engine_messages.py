"""The neutral conversation, read out of journals that the frameworks themselves have left."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentforge.engine.messages import conversation
from agentforge.gateway import ModelResponse, request_hash
from agentforge.store import Effect, RunId

JOURNALS = Path(__file__).parents[1] / "data" / "journals"
RECORDED = ("langchain", "crewai", "pydantic-ai", "python")
TOTALS = {"travel": "844.98", "hotels": "1439.6", "hardware": "1337.0"}


def journal(framework: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((JOURNALS / f"{framework}.json").read_text())
    read["effects"] = [
        made(**{**each, "request": each["request"].encode(), "response": each["response"].encode()})
        for each in read["effects"]
    ]
    return read


def made(**fields: Any) -> Effect:
    given = {"run_id": RunId("r"), "attempt": 1, "occurrence": 0, "status": 200, "started_at": 0, "duration_ms": 0}
    return Effect(**{**given, **fields})


def model(position: int, messages: Sequence[Any], answer: dict[str, Any], **fields: Any) -> Effect:
    body = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", **answer}}]}).encode()
    request = json.dumps({"model": "m", "messages": messages}).encode()
    return made(
        position=position, kind="model", request_hash="", request=request, response=ModelResponse(body).to_record(),
        **fields,
    )  # fmt: skip


def tool(position: int, name: str, arguments: Any, response: Any, **fields: Any) -> Effect:
    asked = {"name": name, "arguments": arguments}
    return made(
        position=position, kind="tool", request_hash=request_hash("tool", asked),
        request=json.dumps(asked).encode(), response=json.dumps(response).encode(), **fields,
    )  # fmt: skip


def call(id: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def neutral_call(id: str, category: str) -> dict[str, Any]:
    return {"id": id, "name": "total_for", "arguments": {"category": category}}


def result(id: str, category: str) -> dict[str, Any]:
    return {"role": "tool", "content": TOTALS[category], "tool_call_id": id}


TRAVEL, HOTELS = neutral_call("call_00000002_0", "travel"), neutral_call("call_00000002_1", "hotels")
HARDWARE = neutral_call("call_00000003_0", "hardware")
USER = {"role": "user", "content": "hi"}


def both(text: str) -> list[dict[str, Any]]:
    return [
        {"role": "assistant", "content": text, "tool_calls": [TRAVEL, HOTELS]},
        result("call_00000002_0", "travel"),
        result("call_00000002_1", "hotels"),
    ]


@pytest.mark.parametrize("framework", RECORDED)
def test_every_checkpoint_of_a_recorded_run_is_the_same_conversation_on_every_framework(framework: str) -> None:
    recorded = journal(framework)
    begin = [*recorded["thread"], {"role": "user", "content": recorded["input"]}]
    # CrewAI drops the words beside tool calls from what it sends next.
    later = both("" if framework == "crewai" else "Let me see.")
    third = {"role": "assistant", "content": "", "tool_calls": [HARDWARE]}
    expected = {
        -1: begin,
        0: begin,
        1: [*begin, {"role": "assistant", "content": "Let me see.", "tool_calls": [TRAVEL]}, both("")[1]],
        2: [*begin, *both("Let me see.")],
        3: [*begin, *later],
        4: [*begin, *later, third, result("call_00000003_0", "hardware")],
        5: [
            *begin, *later, third, result("call_00000003_0", "hardware"),
            {"role": "assistant", "content": "Hardware was 1337.0 euros."},
        ],
    }  # fmt: skip

    for at, messages in expected.items():
        assert conversation(recorded["effects"], at, earlier=recorded["thread"], input=recorded["input"]) == messages


@pytest.mark.parametrize("framework", RECORDED)
def test_the_whole_conversation_is_what_the_adapter_itself_added_to_the_thread(framework: str) -> None:
    recorded = journal(framework)
    added = [{"content": "", **message} for message in recorded["added"]]

    whole = conversation(recorded["effects"], 5, earlier=recorded["thread"], input=recorded["input"])

    assert [{"content": "", **message} for message in whole[3:]] == added


def test_without_the_input_the_messages_are_as_the_framework_sent_them() -> None:
    recorded = journal("crewai")

    whole = conversation(recorded["effects"], 5)

    assert [message["role"] for message in whole[:3]] == ["user", "assistant", "user"]
    assert whole[2]["content"].startswith("\nCurrent Task: How much were travel, hotels and hardware?")


def test_an_input_that_is_no_text_is_its_json() -> None:
    effects = [
        model(0, [{"role": "system", "content": "s"}, {"role": "user", "content": "Task: {...}"}], {"content": "ok"})
    ]

    assert conversation(effects, 0, input={"Jahr": "ä"}) == [
        {"role": "user", "content": '{"Jahr": "ä"}'},
        {"role": "assistant", "content": "ok"},
    ]


def test_the_input_is_found_behind_a_thread_that_says_the_same() -> None:
    thread = [USER, {"role": "assistant", "content": "hello"}]
    effects = [model(0, [*thread, {"role": "user", "content": "Task: hi"}], {"content": "again?"})]

    assert conversation(effects, 0, earlier=thread, input="hi") == [
        *thread, USER, {"role": "assistant", "content": "again?"},
    ]  # fmt: skip


def test_a_framework_that_shortened_the_thread_loses_none_of_it() -> None:
    thread = [USER, {"role": "assistant", "content": "a"}, USER, {"role": "assistant", "content": "b"}]
    effects = [model(0, [{"role": "user", "content": "Now: go"}], {"content": "gone"})]

    assert conversation(effects, 0, earlier=thread, input="go") == [
        *thread, {"role": "user", "content": "go"}, {"role": "assistant", "content": "gone"},
    ]  # fmt: skip


def test_effects_that_were_left_behind_are_no_part_of_it() -> None:
    effects = [
        model(0, [USER], {"content": "first"}, voided=True),
        model(1, [USER], {"content": "second"}),
    ]

    assert conversation(effects, 1) == [USER, {"role": "assistant", "content": "second"}]
    assert conversation(effects, 0) == []


def test_of_several_identical_calls_each_gets_a_result_of_its_own() -> None:
    calls = [call("a", "roll", {}), call("b", "roll", {}), call("c", "roll", {})]
    effects = [
        model(0, [USER], {"content": None, "tool_calls": calls}),
        tool(1, "roll", {}, {"value": 4}),
        tool(2, "roll", {}, {"value": 6}),
    ]

    told = conversation(effects, 2)

    assert [each["id"] for each in told[1]["tool_calls"]] == ["a", "b"]
    assert told[2:] == [
        {"role": "tool", "content": "4", "tool_call_id": "a"},
        {"role": "tool", "content": "6", "tool_call_id": "b"},
    ]


def test_results_go_by_their_arguments_and_then_by_their_name() -> None:
    calls = [call("a", "total", {"year": "2025"}), call("b", "total", {"year": 2026}), call("c", "other", {})]
    effects = [
        model(0, [USER], {"tool_calls": calls}),
        tool(1, "other", {"default": 1}, {"value": "text"}),
        tool(2, "total", {"year": 2026}, {"value": {"sum": 26}}),
        tool(3, "total", {"year": 2025}, {"value": 25}),
    ]

    assert [(each["tool_call_id"], each["content"]) for each in conversation(effects, 9)[2:]] == [
        ("a", "25"), ("b", '{"sum": 26}'), ("c", "text"),
    ]  # fmt: skip


@pytest.mark.parametrize("error", ["no such year", {"code": "AF603", "message": "no such year"}])
def test_a_tool_that_failed_tells_its_error(error: Any) -> None:
    effects = [
        model(0, [USER], {"tool_calls": [call("a", "total", {})]}),
        tool(1, "total", {}, {"error": error}, status=500),
    ]

    assert conversation(effects, 1)[-1]["content"] == "Error: no such year"


def test_a_call_that_is_no_tools_is_asked_for_again() -> None:
    effects = [model(0, [USER], {"content": "here:", "tool_calls": [call("a", "final_answer", {"total": 3})]})]

    assert conversation(effects, 0) == [USER]


def test_calls_written_as_text_stay_text() -> None:
    react = {"content": "Thought: I should add.\nAction: add"}
    effects = [model(0, [USER], react), tool(1, "add", {"a": 1}, {"value": 3})]

    assert conversation(effects, 1) == [
        USER, {"role": "assistant", **react}, {"role": "user", "content": "Observation: 3"},
    ]  # fmt: skip


def test_the_first_form_of_function_calls_is_understood() -> None:
    system = {"role": "system", "content": "s"}
    asked = [
        system,
        system,
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 1}'}},
        {"role": "function", "name": "add", "content": "3"},
    ]
    effects = [
        model(0, asked, {"function_call": {"name": "add", "arguments": '{"a": 2}'}}),
        tool(1, "add", {"a": 2}, {"value": 4}),
    ]

    told = conversation(effects, 1)

    assert [each["tool_calls"][0]["arguments"] for each in told if "tool_calls" in each] == [{"a": 1}, {"a": 2}]
    assert [(each["content"], each["tool_call_id"]) for each in told if each["role"] == "tool"] == [
        ("3", told[1]["tool_calls"][0]["id"]), ("4", told[3]["tool_calls"][0]["id"]),
    ]  # fmt: skip
    assert told[1]["tool_calls"][0]["id"] != told[3]["tool_calls"][0]["id"]


def test_parts_of_a_message_are_its_text_and_the_names_of_what_is_none() -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": "data:..."}}, "this?"]

    (user, _) = conversation([model(0, [{"role": "user", "content": parts}], {"content": "A cat."})], 0)

    assert user == {"role": "user", "content": "What is\n[image_url]\nthis?"}


def test_arguments_that_are_no_json_stay_as_the_model_wrote_them() -> None:
    broken = {"id": "a", "type": "function", "function": {"name": "add", "arguments": "{a: 1"}}
    asked = [USER, {"role": "assistant", "content": None, "tool_calls": [broken]},
             {"role": "tool", "tool_call_id": "a", "content": "not JSON"}]  # fmt: skip

    told = conversation([model(0, asked, {"content": "sorry"})], 0)

    assert told[1]["tool_calls"] == [{"id": "a", "name": "add", "arguments": "{a: 1"}]


def test_embeddings_are_no_conversation() -> None:
    embedding = made(position=1, kind="model", request_hash="", request=b'{"input": "x"}', response=b"{}")
    effects = [model(0, [USER], {"content": "hello"}), embedding]

    assert conversation(effects, 1)[-1] == {"role": "assistant", "content": "hello"}
    assert conversation([embedding], 1, earlier=[USER], input="x") == [USER, {"role": "user", "content": "x"}]
