import json

import pytest

from agentforge.gateway.embedded.failures import RequestRefused
from agentforge.gateway.embedded.translation import translate

TOTAL = {
    "type": "function",
    "function": {
        "name": "total_for",
        "description": "Add up the expenses of one category.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"category": {"type": "string", "enum": ["travel", "software"]}},
            "required": ["category"],
        },
    },
}
FINAL = {
    "type": "function",
    "function": {
        "name": "final_result",
        "parameters": {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
    },
}
SYSTEM = {"role": "system", "content": "You answer questions about the expense report."}
QUESTION = {"role": "user", "content": "How much was travel?"}


def call_of(name, arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


CALL = call_of("total_for", {"category": "travel"})
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "412.5"}


def plan(*messages, first_step="tool", **request):
    return translate({"messages": list(messages), **request}, first_step)


def text_of(made):
    return "\n".join(message["content"] for message in made.messages)


def test_a_question_with_a_tool_becomes_a_call_of_it():
    made = plan(SYSTEM, QUESTION, tools=[TOTAL])
    assert (made.kind, made.tool) == ("call", "total_for")
    assert made.schema["properties"]["category"]["enum"] == ["travel", "software"]
    assert made.schema["additionalProperties"] is False
    assert made.messages[-1] == {"role": "user", "content": "How much was travel?"}
    assert made.messages[0]["content"].startswith(SYSTEM["content"])


def test_the_allowed_values_are_left_to_the_grammar():
    made = plan(QUESTION, tools=[TOTAL])
    assert "software" not in text_of(made)
    assert "category" in text_of(made)


def test_an_argument_that_is_called_like_a_word_of_json_schema_stays_in_the_prompt():
    parameters = {"type": "object", "properties": {"title": {"type": "string", "enum": ["a"]}, "default": {}}}
    made = plan(QUESTION, tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}])
    assert '"title": {"type": "string"}' in text_of(made)
    assert '"default": {}' in text_of(made)


def test_after_the_result_comes_an_answer_that_has_to_state_the_number():
    made = plan(SYSTEM, QUESTION, CALL, RESULT, tools=[TOTAL])
    assert (made.kind, made.schema) == ("text", None)
    assert 'total_for(category="travel") returned 412.5' in text_of(made)
    assert '"412.5"' in made.grammar


@pytest.mark.parametrize("content", ['"; root ::= "x', "a long report", "1e5", "412.5 EUR", "1" * 16])
def test_only_a_plain_number_is_put_into_the_grammar(content):
    made = plan(QUESTION, CALL, {**RESULT, "content": content}, tools=[TOTAL])
    assert made.grammar == ""
    assert content in text_of(made)


def test_a_prompt_that_a_framework_adds_after_a_result_asks_nothing_new():
    added = {"role": "user", "content": "Analyze the tool result. If requirements are met, give the Final Answer."}
    made = plan(SYSTEM, QUESTION, CALL, RESULT, added, tools=[TOTAL])
    assert made.kind == "text"
    assert "How much was travel?" in text_of(made)


def test_the_next_question_of_a_conversation_gets_its_own_call():
    answered = {"role": "assistant", "content": "It was 412.5."}
    made = plan(SYSTEM, QUESTION, CALL, RESULT, answered, {"role": "user", "content": "And software?"}, tools=[TOTAL])
    assert made.kind == "call"
    assert made.messages[-1]["content"] == "And software?"


@pytest.mark.parametrize(
    ("choice", "first_step", "kind"),
    [
        ("auto", "tool", "call"),
        ("auto", "answer", "text"),
        (None, "tool", "call"),
        ("none", "tool", "text"),
        ("required", "answer", "call"),
        ({"type": "function", "function": {"name": "total_for"}}, "answer", "call"),
    ],
)
def test_tool_choice_decides_and_the_setting_fills_in(choice, first_step, kind):
    assert plan(QUESTION, tools=[TOTAL], tool_choice=choice, first_step=first_step).kind == kind


def test_a_required_tool_after_a_result_is_one_that_has_not_answered_yet():
    made = plan(QUESTION, CALL, RESULT, tools=[TOTAL, FINAL], tool_choice="required")
    assert (made.kind, made.tool) == ("call", "final_result")
    assert "returned 412.5" in text_of(made)


def test_a_named_tool_is_called_even_if_it_has_answered():
    choice = {"type": "function", "function": {"name": "total_for"}}
    assert plan(QUESTION, CALL, RESULT, tools=[TOTAL, FINAL], tool_choice=choice).tool == "total_for"


def test_of_several_tools_one_is_chosen_by_schema():
    made = plan(QUESTION, tools=[TOTAL, FINAL])
    assert made.kind == "choice"
    names = [choice["properties"]["name"] for choice in made.schema["anyOf"]]
    assert names == [{"const": "total_for"}, {"const": "final_result"}]


def test_definitions_of_several_tools_are_kept_apart():
    def tool(name, values):
        parameters = {
            "type": "object",
            "properties": {"kind": {"$ref": "#/$defs/Kind"}},
            "$defs": {"Kind": {"enum": values}},
        }
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    schema = plan(QUESTION, tools=[tool("a", ["x"]), tool("b", ["y"])]).schema
    assert schema["$defs"] == {"tool0_Kind": {"enum": ["x"]}, "tool1_Kind": {"enum": ["y"]}}
    references = [each["properties"]["arguments"]["properties"]["kind"]["$ref"] for each in schema["anyOf"]]
    assert references == ["#/$defs/tool0_Kind", "#/$defs/tool1_Kind"]


def test_sampling_is_greedy_unless_asked():
    assert plan(QUESTION).sampling == {"temperature": 0}
    asked = plan(QUESTION, temperature=0.7, top_p=0.9, seed=7, stop=["END"], max_tokens=30)
    assert asked.sampling == {"temperature": 0.7, "top_p": 0.9, "seed": 7, "stop": ["END"]}
    assert asked.max_tokens == 30
    assert plan(QUESTION, max_completion_tokens=5, max_tokens=30).max_tokens == 5


def test_stop_words_do_not_cut_a_call():
    assert "stop" not in plan(QUESTION, tools=[TOTAL], stop=["Observation"]).sampling


def test_a_response_format_constrains_the_answer_but_not_the_call_before_it():
    schema = {"type": "object", "properties": {"total": {"type": "number"}}}
    form = {"type": "json_schema", "json_schema": {"name": "o", "schema": schema}}
    assert plan(QUESTION, tools=[TOTAL], response_format=form).kind == "call"
    answer = plan(QUESTION, CALL, RESULT, tools=[TOTAL], response_format=form)
    assert (answer.kind, answer.schema, answer.grammar) == ("text", schema, "")
    assert plan(QUESTION, response_format={"type": "text"}).schema is None


def test_text_comes_in_parts_and_roles_are_those_of_the_template():
    parts = {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "there"}]}
    made = plan({"role": "developer", "content": "Be kind."}, parts)
    assert made.messages == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello\nthere"},
    ]


@pytest.mark.parametrize(
    ("request_body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [QUESTION], "n": 2}, "n"),
        ({"messages": [QUESTION], "tools": [{"type": "function"}]}, "tools"),
        ({"messages": [QUESTION], "tool_choice": "required"}, "tool_choice"),
        ({"messages": [QUESTION], "tool_choice": "maybe"}, "tool_choice"),
        ({"messages": [QUESTION], "tools": [TOTAL], "tool_choice": {"function": {"name": "x"}}}, "tool_choice"),
        ({"messages": [QUESTION], "response_format": {"type": "xml"}}, "response_format"),
        ({"messages": [QUESTION], "max_tokens": 0}, "max_tokens"),
    ],
)
def test_a_request_that_cannot_be_met_says_which_part(request_body, param):
    with pytest.raises(RequestRefused) as caught:
        translate(request_body)
    assert caught.value.status == 400
    assert caught.value.body()["error"]["param"] == param
