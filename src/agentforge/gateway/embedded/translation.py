"""Turn a chat request into what a 135M model can do with it. Pure functions.

Such a model never calls a tool by itself and, offered "tool or answer", never takes the tool. So the step is decided
here (`_step`), and the model fills it in: a *call* is output forced to the tool's JSON Schema, an *answer* is text, for
which the tools' results are put into words.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agentforge.gateway.embedded.conversation import Message, ToolResult, Turn, current_turn, plain_messages
from agentforge.gateway.embedded.failures import RequestRefused
from agentforge.gateway.embedded.schemas import call_schema, choice_schema, shown
from agentforge.gateway.embedded.settings import FirstStep

__all__ = ["Plan", "Tool", "translate"]

Json = Any

_SAMPLING = ("top_p", "top_k", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias")
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_INSTRUCTIONS_CHARS = 1500
_RESULT_CHARS = 2000
"""Prompts are read at some 100 tokens a second: what a model this small can't use anyway is not worth the seconds."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the request offers it."""

    name: str
    description: str
    parameters: Json

    def shown(self) -> str:
        """Return the lines of the prompt that describe it."""
        return f"Tool: {self.name}: {self.description}\nArguments schema: {json.dumps(shown(self.parameters))}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask the engine for, and how to read what it writes."""

    kind: Literal["text", "call", "choice"]
    """`text`: the answer itself. `call`: arguments of `tool`. `choice`: `{"name": ..., "arguments": ...}`."""
    messages: list[Message]
    tool: str = ""
    schema: Json | None = None
    grammar: str = ""
    """In llama.cpp's notation; takes the place of a schema."""
    sampling: dict[str, Json] = field(default_factory=dict)
    max_tokens: int | None = None


def translate(request: dict[str, Json], first_step: FirstStep = "tool") -> Plan:
    """Return the plan for a body of `/v1/chat/completions`. Raises RequestRefused."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestRefused(400, "`messages` has to be a list with at least one message", param="messages")
    if request.get("n") not in (None, 1):
        raise RequestRefused(400, "the embedded model gives one choice per request: leave `n` out", param="n")
    turn = current_turn(messages)
    tools = _step(request, turn, first_step)
    sampling, max_tokens = _sampling(request), _max_tokens(request)
    if tools:
        sampling.pop("stop", None)  # a stop word inside the arguments would cut them
        return _call_plan(turn, tools, sampling, max_tokens)
    schema = _answer_schema(request)
    return Plan(
        "text",
        _answer_messages(messages, turn, schema),
        schema=schema,
        grammar="" if schema is not None else _value_grammar(turn),
        sampling=sampling,
        max_tokens=max_tokens,
    )


def _step(request: dict[str, Json], turn: Turn, first_step: FirstStep) -> list[Tool]:
    """Return the tools of which one has to be called now; none for an answer in text."""
    tools = _tools(request)
    choice = request.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        return [_named(tools, choice)]
    if choice not in ("auto", "none", "required"):
        raise RequestRefused(400, f"`tool_choice` `{choice}` is not known", param="tool_choice")
    if choice == "required":
        if not tools:
            raise RequestRefused(400, "`tool_choice` asks for a tool and `tools` has none", param="tool_choice")
        # Output tools ("final_result") are required after the tools that do the work: the model can't tell them apart.
        answered = {result.name for result in turn.results}
        return [tool for tool in tools if tool.name not in answered] or tools
    if choice == "none" or turn.results or first_step == "answer":
        return []
    return tools


def _tools(request: dict[str, Json]) -> list[Tool]:
    offered = request.get("tools") or []
    if not isinstance(offered, list):
        raise RequestRefused(400, "`tools` has to be a list", param="tools")
    return [_tool(entry) for entry in offered]


def _tool(entry: Json) -> Tool:
    function = entry.get("function") if isinstance(entry, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RequestRefused(400, "each of `tools` needs a `function` with a `name`", param="tools")
    return Tool(function["name"], str(function.get("description") or ""), function.get("parameters") or {})


def _named(tools: Sequence[Tool], choice: dict[str, Json]) -> Tool:
    name = (choice.get("function") or {}).get("name")
    for tool in tools:
        if tool.name == name:
            return tool
    raise RequestRefused(400, f"`tool_choice` names `{name}`, which is not among `tools`", param="tool_choice")


def _call_plan(turn: Turn, tools: Sequence[Tool], sampling: dict[str, Json], max_tokens: int | None) -> Plan:
    question = "\n\n".join([turn.question, *map(_known, turn.results)])
    listed = "\n".join(tool.shown() for tool in tools)
    if len(tools) == 1:
        order = "You call a tool. Reply with its arguments as JSON only."
        schema = call_schema(tools[0].parameters)
    else:
        order = "You call one of these tools. Reply with its name and arguments as JSON only."
        schema = choice_schema([(tool.name, tool.parameters) for tool in tools])
    messages = _prompt(_instructions(turn, f"{order}\n{listed}"), question)
    name = tools[0].name if len(tools) == 1 else ""
    return Plan("call" if name else "choice", messages, name, schema, sampling=sampling, max_tokens=max_tokens)


def _answer_messages(messages: Sequence[Json], turn: Turn, schema: Json | None) -> list[Message]:
    form = f"Reply as JSON only. Schema: {json.dumps(shown(schema))}" if schema is not None else ""
    if turn.results:
        order = form or "Answer in one short sentence with this value."
        return _prompt(_instructions(turn, ""), "\n\n".join([turn.question, *map(_known, turn.results), order]))
    plain = plain_messages(messages)
    return [{"role": "system", "content": form}, *plain] if form else plain


def _value_grammar(turn: Turn) -> str:
    """Return the grammar of an answer to a single number: text, the number as the tool gave it, text.

    Left alone, the model drops a digit now and then: in one of 36 answers that were measured with this prompt.
    """
    if len(turn.results) != 1 or not _NUMBER.fullmatch(value := turn.results[0].content.strip()):
        return ""
    return f'root ::= ([^0-9\\n]{{0,80}} [ $"])? "{value}" [^0-9\\n]{{0,60}}'


def _instructions(turn: Turn, order: str) -> str:
    return "\n\n".join(part for part in (_cut(turn.instructions, _INSTRUCTIONS_CHARS), order) if part)


def _prompt(system: str, question: str) -> list[Message]:
    asked = {"role": "user", "content": question.strip()}
    return [{"role": "system", "content": system}, asked] if system else [asked]


def _known(result: ToolResult) -> str:
    return f"The tool {result.name}({_arguments(result.arguments)}) returned {_cut(result.content, _RESULT_CHARS)}."


def _arguments(text: str) -> str:
    try:
        arguments = json.loads(text)
    except ValueError:
        return text
    if not isinstance(arguments, dict):
        return text
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} [...]"


def _answer_schema(request: dict[str, Json]) -> Json | None:
    form = request.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    schema = (form.get("json_schema") or {}).get("schema") if kind == "json_schema" else None
    if not isinstance(schema, dict):
        raise RequestRefused(400, "`response_format` is not one that the embedded model knows", param="response_format")
    return schema


def _sampling(request: dict[str, Json]) -> dict[str, Json]:
    given = {key: request[key] for key in _SAMPLING if request.get(key) is not None}
    temperature = request.get("temperature")
    return {"temperature": 0 if temperature is None else temperature, **given}


def _max_tokens(request: dict[str, Json]) -> int | None:
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise RequestRefused(400, "`max_tokens` has to be a positive number", param="max_tokens")
    return limit
