"""What the model answers: the default script, or what a step says, for one conversation."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentforge_conformance.scripted_model import react
from agentforge_conformance.scripted_model.schema import example
from agentforge_conformance.scripted_model.steps import CalledTool, Json, Step

__all__ = ["Conversation", "Decision", "decide", "words"]

_LAST_USER_TEXT = 200
_RESULT_ROLES = ("tool", "function")


@dataclass(frozen=True)
class Conversation:
    """A request without its wire format."""

    messages: Sequence[dict[str, Json]]
    """Chat messages: role, content, tool_calls."""
    tools: Sequence[dict[str, Json]] = ()
    """Functions: name, parameters."""
    tool_choice: Json = None
    output: Json = None
    """The JSON Schema that the answer must fit; True for any JSON object."""
    in_text: bool = False
    """Whether tool calls and answers are lines of text (see `react`): one call in each answer."""

    @property
    def answers(self) -> int:
        """How many messages of the model it holds."""
        return sum(m.get("role") == "assistant" for m in self.messages)

    @property
    def user_text(self) -> str:
        """The last user message as text."""
        return self._last("user") or ""

    @property
    def tool_result(self) -> str | None:
        """The last tool result as text, or None if there is none."""
        return self._last(*_RESULT_ROLES)

    @property
    def tool_results(self) -> list[str]:
        """All tool results as text, in the order of the messages."""
        return [text_of(m.get("content")) for m in self.messages if m.get("role") in _RESULT_ROLES]

    @property
    def called(self) -> set[str]:
        """The names of the tools that were called in it."""
        calls = [call for m in self.messages for call in m.get("tool_calls") or ()]
        names = {call["function"]["name"] for call in calls if "function" in call}
        return names | {m["function_call"]["name"] for m in self.messages if m.get("function_call")}

    @property
    def word_count(self) -> int:
        """The words of all its texts: what usage counts."""
        return sum(words(text_of(m.get("content"))) for m in self.messages)

    def _last(self, *roles: str) -> str | None:
        found = (text_of(m.get("content")) for m in reversed(self.messages) if m.get("role") in roles)
        return next(found, None)


@dataclass(frozen=True)
class Decision:
    """An answer without its wire format."""

    text: str | None = None
    calls: Sequence[CalledTool] = field(default_factory=tuple)

    @property
    def word_count(self) -> int:
        """The words of text and arguments, at least 1."""
        return max(1, words(self.text or "") + sum(words(arguments_text(call)) for call in self.calls))


def decide(step: Step, conversation: Conversation) -> Decision:
    """Return the answer that a step gives to a conversation."""
    answer = _decided(step, conversation)
    return _spoken(answer) if conversation.in_text else answer


def _decided(step: Step, conversation: Conversation) -> Decision:
    if step.structured:
        return Decision(_structured(conversation))
    if step.value is not None:
        return Decision(json.dumps(step.value))
    if step.text is not None or step.calls:
        return Decision(step.text and _with_echo(step.text, conversation), tuple(step.calls))
    return _default(conversation, step.echo)


def _spoken(answer: Decision) -> Decision:
    """Return an answer as the text form of tool calls has it."""
    if not answer.calls:
        return Decision(react.final_answer(answer.text or ""))
    call = answer.calls[0]
    return Decision(react.tool_call(call.name, arguments_text(call), answer.text or ""))


def arguments_text(call: CalledTool) -> str:
    """Return the arguments as they go over the wire."""
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)


def text_of(content: Json) -> str:
    """Return the text of a message's content: a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return ""


def words(text: str) -> int:
    """Return how many words a text has."""
    return len(text.split())


def _default(conversation: Conversation, echo: bool) -> Decision:
    if (tool := _tool_to_call(conversation)) is not None:
        arguments = example(tool.get("parameters") or {"type": "object"})
        return Decision(None, (CalledTool(tool["name"], arguments),))
    if conversation.output is not None:
        return Decision(_structured(conversation))
    return Decision(_final(conversation, echo))


def _tool_to_call(conversation: Conversation) -> dict[str, Json] | None:
    """Return the first tool while there is no tool result; after that one only where the request demands a call."""
    tools, choice = conversation.tools, conversation.tool_choice
    if not tools or choice == "none":
        return None
    if isinstance(choice, dict):
        wanted = (choice.get("function") or choice).get("name")
        return next((tool for tool in tools if tool["name"] == wanted), tools[0])
    if conversation.tool_result is None:
        return tools[0]
    if choice in ("required", "any"):
        return next((tool for tool in tools if tool["name"] not in conversation.called), tools[-1])
    return None


def _final(conversation: Conversation, echo: bool) -> str:
    user = conversation.user_text[-_LAST_USER_TEXT:]
    if conversation.tool_result is None:
        return f"FINAL: {user}"
    said = f"FINAL: tool said {conversation.tool_result}"
    return f"{said} | user said {user}" if echo else said


def _structured(conversation: Conversation) -> str:
    final = _final(conversation, echo=False)
    if not isinstance(conversation.output, dict):
        return json.dumps({"answer": final})
    return json.dumps(example(conversation.output, final))


def _with_echo(text: str, conversation: Conversation) -> str:
    for placeholder, said in (
        ("{tool}", conversation.tool_result or ""),
        ("{tools}", " ".join(conversation.tool_results)),
        ("{user}", conversation.user_text),
    ):
        text = text.replace(placeholder, said)
    return text
