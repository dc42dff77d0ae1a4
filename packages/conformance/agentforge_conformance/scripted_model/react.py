"""The text form of tool calls (ReAct), as agents speak it that send no `tools`: read into messages, and answered in.

Known by its prompt, which tells the model to write `Thought:`, `Action:`, `Action Input:` and `Final Answer:`. What was
called and observed so far stands in assistant messages, or behind the task in the user's own message.
"""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from agentforge_conformance.scripted_model.steps import Json

__all__ = ["final_answer", "is_spoken", "messages_of", "tool_call", "tools_of"]

_PROMPT = re.compile(r"^Thought:.*^Final Answer:", re.MULTILINE | re.DOTALL)
_NAMES = re.compile(r"one (?:name )?of \[(.*?)\]")
_TASK = re.compile(r"^(?:Begin!\s*)?(?:Current Task|Question): (.*)", re.MULTILINE | re.DOTALL)
_TASK_ENDS = re.compile(r"\n\s*This is the expect|\n\s*Begin!|\n\s*(?:Thought|Action|Final Answer):|\s*\Z")
_BEGUN = re.compile(r"Begin!.*?^Thought:", re.MULTILINE | re.DOTALL)
_TURN = re.compile(
    r"(?:Thought:(?P<thought>(?:(?!Action:).)*?))?\s*"
    r"Action:[ \t]*(?P<name>[^\n]*?)[ \t]*\nAction Input:[ \t]*(?P<input>.*?)\s*\n"
    r"Observation:[ \t]?(?P<told>.*?)(?=\n+(?:Thought|Action|Final Answer):|\Z)",
    re.DOTALL,
)
_REMINDER = re.compile(r"\n\nYou ONLY have access to .*?\nFinal Answer: [^\n]*(?:\n|\Z)", re.DOTALL)
"""CrewAI repeats its instructions behind every third observation."""
_FINAL = re.compile(r"Final Answer:\s*(.*)", re.DOTALL)
_TYPES = {"int": "integer", "float": "number", "bool": "boolean", "str": "string", "list": "array", "dict": "object"}


def is_spoken(messages: Sequence[dict[str, Json]]) -> bool:
    """Whether a request without `tools` asks for this form."""
    return any(m.get("role") != "assistant" and _PROMPT.search(_text(m)) for m in messages)


def messages_of(messages: Sequence[dict[str, Json]]) -> list[dict[str, Json]]:
    """Return a conversation in text as chat messages with tool calls."""
    plain: list[dict[str, Json]] = []
    for message in messages:
        text = _text(message)
        if message.get("role") == "assistant":
            plain += _turns(text, len(plain))
        elif message.get("role") == "user" and (found := _TASK.search(text)):
            end = _TASK_ENDS.search(found[1])
            rest = found[1][end.start() :] if end else ""
            plain.append({"role": "user", "content": found[1][: len(found[1]) - len(rest)].strip()})
            begun = _BEGUN.search(rest)
            plain += _turns(rest[begun.end() :] if begun else rest, len(plain))
        else:
            plain.append({**message, "content": text})
    return plain


def tools_of(messages: Sequence[dict[str, Json]]) -> list[dict[str, Json]]:
    """Return the tools that the prompt names, with what it tells of their arguments as JSON Schemas."""
    prompt = "\n".join(_text(m) for m in messages if m.get("role") != "assistant")
    found = _NAMES.search(prompt)
    names = [name.strip() for name in found[1].split(",")] if found else []
    return [{"name": name, "parameters": _parameters(name, prompt)} for name in names if name]


def tool_call(name: str, arguments: str, thought: str) -> str:
    """Return a tool call as text."""
    return f"Thought: {thought or 'I have to use a tool'}\nAction: {name}\nAction Input: {arguments}"


def final_answer(text: str) -> str:
    """Return an answer as text."""
    return f"Thought: I now know the final answer\nFinal Answer: {text}"


def _text(message: dict[str, Json]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _turns(text: str, number: int) -> Iterator[dict[str, Json]]:
    """Yield what the model has said in a text, and what it was told: `number` is that of the first message."""
    text, end = _REMINDER.sub("\n", text), 0
    for count, turn in enumerate(_TURN.finditer(text)):
        end = turn.end()
        call_id = f"text-{number}-{count}"
        call = {"name": turn["name"], "arguments": turn["input"]}
        calls = [{"id": call_id, "type": "function", "function": call}]
        yield {"role": "assistant", "content": (turn["thought"] or "").strip(), "tool_calls": calls}
        yield {"role": "tool", "content": turn["told"].strip(), "tool_call_id": call_id}
    rest = text[end:]
    if found := _FINAL.search(rest):
        yield {"role": "assistant", "content": found[1].strip()}
    elif not end and rest.strip():
        yield {"role": "assistant", "content": rest.strip()}


def _parameters(name: str, prompt: str) -> dict[str, Json]:
    """Return a tool's arguments from its description: a dict of types, a JSON Schema, or a Python signature."""
    if found := re.search(rf"^Tool Name: {re.escape(name)}\s*Tool Arguments: (\{{.*\}})\s*$", prompt, re.MULTILINE):
        arguments = ast.literal_eval(found[1])
        return _object({key: _schema(str(value.get("type", ""))) for key, value in arguments.items()})
    described = re.search(rf"^{re.escape(name)}: (.*)$", prompt, re.MULTILINE)
    line = described[1] if described else ""
    if (at := line.find("{")) >= 0:
        try:
            schema: Any = json.JSONDecoder().raw_decode(line[at:])[0]
        except ValueError:
            schema = {}
        if "properties" in schema:
            return dict(schema)
    if found := re.match(rf"{re.escape(name)}\((.*?)\)(?: ->| - |$)", line):
        parts = re.findall(r"(\w+): ((?:[^,\[]|\[[^\]]*\])+)", found[1])
        return _object({key: _schema(kind.partition(" = ")[0].strip()) for key, kind in parts})
    return {"type": "string"}


def _object(properties: dict[str, Json]) -> dict[str, Json]:
    return {"type": "object", "properties": properties, "required": [*properties]}


def _schema(kind: str) -> dict[str, Json]:
    """Return the schema of a type as Python writes it: `int`, `Literal['a', 'b']`, `Literal[a, b]`."""
    if kind.startswith("Literal["):
        return {"enum": [part.strip().strip("'\"") for part in kind[len("Literal[") : -1].split(",")]}
    return {"type": _TYPES.get(kind.partition("[")[0].lower(), "string")}
