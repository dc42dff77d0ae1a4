"""The text form of tool calls: what the scripted model reads out of prompts, and how it answers."""

from typing import Any

import pytest

from agentforge_conformance.scripted_model import CalledTool, Script, Step
from agentforge_conformance.scripted_model.deciding import decide
from agentforge_conformance.scripted_model.formats import chat_conversation

FORMAT = """
Use the following format:

Thought: you should always think about what to do
Action: the action to take, only one name of [add, total_for], just the name, exactly as it's written.
Action Input: the input to the action
Observation: the result of the action

Once all necessary information is gathered:

Thought: I now know the final answer
Final Answer: the final answer to the original input question
"""
TOOLS = {
    "types": """Tool Name: add
Tool Arguments: {'a': {'description': None, 'type': 'int'}, 'b': {'description': None, 'type': 'int'}}
Tool Description: Add.
Tool Name: total_for
Tool Arguments: {'category': {'description': None, 'type': 'Literal[travel, meals]'}}
Tool Description: Sum.""",
    "signatures": """add: add(a: int, b: int = 3) - Add.
total_for: total_for(category: Literal['travel', 'meals']) - Sum.""",
    "schemas": """add: Add. As JSON: {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
total_for: Sum. As JSON: {"properties": {"category": {"enum": ["travel", "meals"]}}}""",
}
TASK = "\nCurrent Task: How much was it?\n\nThis is the expect criteria: all.\n\nBegin! It matters!\n\nThought:"
TURN = 'Thought: add up\nAction: add\nAction Input: {"a": 1}\nObservation: 4'
REMINDER = "\n\nYou ONLY have access to the following tools:\n" + FORMAT


def asked(*messages: tuple[str, str], **more: Any) -> Any:
    return chat_conversation({"messages": [{"role": role, "content": text} for role, text in messages], **more})


@pytest.mark.parametrize("kind", sorted(TOOLS))
def test_tools_and_their_arguments_are_read_from_the_prompt(kind: str) -> None:
    conversation = asked(("system", TOOLS[kind] + FORMAT), ("user", TASK))
    assert conversation.in_text
    add, total_for = conversation.tools
    assert {name: schema["type"] for name, schema in add["parameters"]["properties"].items()} == {
        "a": "integer",
        "b": "integer",
    }
    assert total_for["parameters"]["properties"]["category"]["enum"] == ["travel", "meals"]
    assert decide(Step(), conversation).text == (
        'Thought: I have to use a tool\nAction: add\nAction Input: {"a": 2, "b": 2}'
    )


@pytest.mark.parametrize(
    "messages",
    [
        [("system", FORMAT), ("user", TASK), ("assistant", TURN)],
        [("system", FORMAT), ("user", TASK), ("assistant", TURN + REMINDER)],
        [("user", FORMAT + TASK + "\n" + TURN + "\nThought:")],
        [("user", FORMAT + "Begin! It matters!\n\nCurrent Task: How much was it?\n" + TURN + "\nThought: ")],
    ],
    ids=["messages", "with a reminder", "one message", "one message that ends with the task"],
)
def test_what_was_said_and_done_is_read_as_messages(messages: list[tuple[str, str]]) -> None:
    conversation = asked(*messages)
    user, called, told = [m for m in conversation.messages if m["role"] != "system"]
    assert user == {"role": "user", "content": "How much was it?"}
    (call,) = called["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert told == {"role": "tool", "content": "4", "tool_call_id": call["id"]}
    assert conversation.answers == 1
    assert decide(Step(text="It was {tool}."), conversation).text == (
        "Thought: I now know the final answer\nFinal Answer: It was 4."
    )


def test_a_final_answer_is_read_as_an_answer() -> None:
    conversation = asked(("system", FORMAT), ("assistant", "Thought: so\nFinal Answer: 42"), ("user", TASK))
    assert conversation.messages[1] == {"role": "assistant", "content": "42"}


def test_a_request_with_tools_and_a_plain_one_are_not_in_text() -> None:
    function = {"type": "function", "function": {"name": "add", "parameters": {}}}
    assert not asked(("system", FORMAT), ("user", TASK), tools=[function]).in_text
    assert not asked(("system", "Be brief."), ("user", "Say: Final Answer: 4")).in_text


def test_a_step_with_several_calls_is_several_steps_in_text() -> None:
    calls = [CalledTool("add"), CalledTool("total_for")]
    script = Script([Step(calls=calls), Step(text="end")]).one_call_each()
    assert [list(step.calls) for step in script.steps] == [[calls[0]], [calls[1]], []]
    assert script.steps[-1].text == "end"
