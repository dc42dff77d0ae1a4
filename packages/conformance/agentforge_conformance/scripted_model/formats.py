"""The OpenAI formats on the wire: chat completions (plain and streamed), responses, embeddings, models, errors."""

import base64
import hashlib
import json
import struct
from collections.abc import Iterator

from agentforge_conformance.scripted_model import react
from agentforge_conformance.scripted_model.deciding import Conversation, Decision, arguments_text, words
from agentforge_conformance.scripted_model.steps import Json

__all__ = [
    "chat_chunks",
    "chat_completion",
    "chat_conversation",
    "embeddings",
    "error",
    "models",
    "response",
    "response_conversation",
    "sse",
]

CREATED = 1767225600
"""2026-01-01: answers are the same on every day."""
_ARGUMENT_PIECES = 3


def chat_conversation(body: dict[str, Json]) -> Conversation:
    """Read a chat completion request. Raises ValueError if it is none."""
    messages = body["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("`messages` is no list of objects")
    tools = [t["function"] for t in body.get("tools") or () if t.get("type") == "function"]
    tools += body.get("functions") or []
    if not tools and react.is_spoken(messages):
        return Conversation(react.messages_of(messages), react.tools_of(messages), in_text=True)
    return Conversation(messages, tools, body.get("tool_choice"), _wanted_output(body.get("response_format")))


def chat_completion(body: dict[str, Json], answer: Decision, number: int) -> dict[str, Json]:
    """Return a plain chat completion."""
    message: dict[str, Json] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.calls:
        message["tool_calls"] = _tool_calls(answer, number)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(answer)}
    return {**_chat_top(body, number, "chat.completion"), "choices": [choice], "usage": _usage(body, answer)}


def chat_chunks(body: dict[str, Json], answer: Decision, number: int) -> Iterator[dict[str, Json]]:
    """Return the chunks of a streamed chat completion: text word by word, arguments in pieces."""
    usage_asked = bool((body.get("stream_options") or {}).get("include_usage"))
    top = _chat_top(body, number, "chat.completion.chunk")
    if usage_asked:
        top["usage"] = None

    def chunk(delta: dict[str, Json], finish_reason: str | None = None) -> dict[str, Json]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**top, "choices": [choice]}

    yield chunk({"role": "assistant", "content": "" if answer.text is not None else None, "refusal": None})
    for piece in _pieces(answer.text or ""):
        yield chunk({"content": piece})
    for index, call in enumerate(_tool_calls(answer, number)):
        function = call["function"]
        opened = {"index": index, **call, "function": {"name": function["name"], "arguments": ""}}
        yield chunk({"tool_calls": [opened]})
        for part in _split(function["arguments"]):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield chunk({}, _finish_reason(answer))
    if usage_asked:
        yield {**top, "choices": [], "usage": _usage(body, answer)}


def sse(value: Json) -> bytes:
    """Return a server-sent event."""
    return (
        b"data: "
        + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")
        + b"\n\n"
    )


def response_conversation(body: dict[str, Json]) -> Conversation:
    """Read a request of the responses API."""
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages: list[dict[str, Json]] = []
    for item in items:
        if item.get("type") == "function_call_output":
            messages.append({"role": "tool", "content": str(item.get("output"))})
        elif item.get("type") == "function_call":
            messages.append({"role": "assistant", "tool_calls": [{"function": {"name": item["name"]}}]})
        elif "role" in item:
            messages.append(item)
    tools = [t for t in body.get("tools") or () if t.get("type") == "function"]
    wanted = (body.get("text") or {}).get("format") or {}
    schema = wanted.get("schema") if wanted.get("type") == "json_schema" else None
    return Conversation(messages, tools, body.get("tool_choice"), schema)


def response(body: dict[str, Json], answer: Decision, number: int) -> dict[str, Json]:
    """Return a plain response of the responses API."""
    output: list[dict[str, Json]] = []
    if answer.text is not None:
        content = [{"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}]
        message = {"type": "message", "id": f"msg_{number:08}", "status": "completed", "role": "assistant"}
        output.append({**message, "content": content})
    for call in _tool_calls(answer, number):
        item = {"type": "function_call", "id": "fc" + call["id"][4:], "call_id": call["id"]}
        output.append({**item, "status": "completed", **call["function"]})
    spent, made = max(1, response_conversation(body).word_count), answer.word_count
    return {
        "id": f"resp_{number:08}",
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "model": body.get("model", "fake"),
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "usage": {
            "input_tokens": spent,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": spent + made,
        },
    }


def embeddings(body: dict[str, Json]) -> dict[str, Json]:
    """Return embeddings that depend on the text alone, as numbers or as base64 (what OpenAI's client asks for)."""
    given = body["input"]
    inputs = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given
    data = [
        {"object": "embedding", "index": index, "embedding": _embedding(one, body)} for index, one in enumerate(inputs)
    ]
    count = max(1, sum(words(one) if isinstance(one, str) else len(one) for one in inputs))
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": body.get("model", "fake"), "usage": usage}


def models(names: list[str]) -> dict[str, Json]:
    """Return the list of models."""
    data = [{"id": n, "object": "model", "created": CREATED, "owned_by": "scripted"} for n in names]
    return {"object": "list", "data": data}


def error(status: int, message: str) -> dict[str, Json]:
    """Return an error object."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": f"scripted_{status}"}}


def _chat_top(body: dict[str, Json], number: int, kind: str) -> dict[str, Json]:
    return {
        "id": f"chatcmpl-{number:08}",
        "object": kind,
        "created": CREATED,
        "model": body.get("model", "fake"),
        "service_tier": "default",
        "system_fingerprint": "fp_scripted",
    }


def _usage(body: dict[str, Json], answer: Decision) -> dict[str, Json]:
    spent, made = max(1, chat_conversation(body).word_count), answer.word_count
    return {"prompt_tokens": spent, "completion_tokens": made, "total_tokens": spent + made}


def _tool_calls(answer: Decision, number: int) -> list[dict[str, Json]]:
    return [
        {
            "id": call.id or f"call_{number:08}_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": arguments_text(call)},
        }
        for index, call in enumerate(answer.calls)
    ]


def _finish_reason(answer: Decision) -> str:
    return "tool_calls" if answer.calls else "stop"


def _pieces(text: str) -> list[str]:
    """Return the words, each with the space before it, so that they join to the text."""
    return [(" " if i else "") + word for i, word in enumerate(text.split(" "))] if text else []


def _split(text: str) -> list[str]:
    size = max(1, -(-len(text) // _ARGUMENT_PIECES))
    return [text[i : i + size] for i in range(0, len(text), size)]


def _embedding(one: Json, body: dict[str, Json]) -> Json:
    count = int(body.get("dimensions") or 32)
    digest = hashlib.shake_256(json.dumps(one).encode()).digest(count)
    numbers = [byte / 255 for byte in digest]
    if body.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"<{count}f", *numbers)).decode()
    return numbers


def _wanted_output(wanted: Json) -> Json:
    if not isinstance(wanted, dict):
        return None
    if wanted.get("type") == "json_schema":
        return (wanted.get("json_schema") or {}).get("schema") or True
    return True if wanted.get("type") == "json_object" else None
