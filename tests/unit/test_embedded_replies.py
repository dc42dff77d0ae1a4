import json

from agentforge.gateway.embedded.replies import Call, Reply, Usage, read_call
from agentforge.gateway.embedded.translation import Plan

REPLY = Reply("chatcmpl-1", 100, "local")


def test_the_arguments_of_a_call_are_compact_json():
    call = read_call(Plan("call", [], "total_for"), '{\n  "category": "travel"\n}', "c1")
    assert call == Call("c1", "total_for", '{"category": "travel"}')


def test_a_choice_names_its_tool():
    text = '{"name": "b", "arguments": {"x": 1}}'
    assert read_call(Plan("choice", []), text, "c1") == Call("c1", "b", '{"x": 1}')


def test_arguments_that_a_limit_cut_stay_as_they_are():
    assert read_call(Plan("call", [], "f"), '{"cat', "c1") == Call("c1", "f", '{"cat')
    assert read_call(Plan("choice", []), '{"na', "c1") is None


def test_a_whole_answer_has_all_that_clients_read():
    body = REPLY.whole({"content": "Hello"}, "stop", Usage(3, 2))
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "Hello"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_the_deltas_of_a_call_add_up_to_it():
    first, second = REPLY.call_chunks(Call("c1", "f", '{"x": 1}'))
    opened = first["choices"][0]["delta"]["tool_calls"][0]
    assert (opened["index"], opened["id"], opened["function"]["name"]) == (0, "c1", "f")
    continued = second["choices"][0]["delta"]["tool_calls"][0]
    arguments = opened["function"]["arguments"] + continued["function"]["arguments"]
    assert json.loads(arguments) == {"x": 1}
    assert first["id"] == second["id"] == "chatcmpl-1"
