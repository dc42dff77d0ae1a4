"""The conversation of a run in the neutral form, read out of its journal: another framework goes on from it.

Who calls it: a fork onto another framework. What a model was sent is the one record of the conversation that every
framework leaves, so it is taken from there, in the form of the OpenAI chat API. A framework that writes tool calls as
text (ReAct) has its conversation taken as that text.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentforge.gateway import ModelResponse, request_hash
from agentforge.gateway.canonical import Json, decode
from agentforge.store import Effect, JsonObject

__all__ = ["conversation"]

_OWN = frozenset({"system", "developer"})
"""Roles of what a framework writes for itself: the next one writes its own."""


def conversation(
    effects: Sequence[Effect], at: int, *, earlier: Sequence[JsonObject] = (), input: Json = None
) -> list[JsonObject]:
    """Return the neutral messages of a portable run at checkpoint `at`.

    They are the messages of the last model call up to there, its answer, and the results of the tools that it called.
    An answer's tool calls without a result yet are left out, and an answer that nothing is left of, too: the next
    framework asks the model again there. So the last message is a user's or a tool's, or the run's answer.

    `earlier` is what the run began with (the messages of its thread) and `input` its input: frameworks that wrap them
    in words of their own have those removed. With `input` None both are taken as the framework sent them. Before the
    first model call there is nothing but `earlier` and the input.
    """
    journal = [effect for effect in effects if effect.position <= at and not effect.voided]
    calls = [effect for effect in journal if effect.kind == "model" and _asked(effect)]
    if not calls:
        return [*earlier, *_given(input)]
    last = max(calls, key=lambda effect: effect.position)
    messages = list(_neutral(_asked(last)))
    if input is not None:
        messages = _with_own_words(messages, earlier, input)
    results = [effect for effect in journal if effect.kind == "tool" and effect.position > last.position]
    return [*messages, *_answered(last, results)]


def _asked(effect: Effect) -> list[JsonObject]:
    body = decode(effect.request)
    messages = body.get("messages") if isinstance(body, dict) else None
    return [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []


def _given(input: Json) -> list[JsonObject]:
    if input is None:
        return []
    return [{"role": "user", "content": _text(input)}]


def _with_own_words(messages: list[JsonObject], earlier: Sequence[JsonObject], input: Json) -> list[JsonObject]:
    """Return the messages with the run's beginning as it was given: the thread so far and the input."""
    thread = [message for message in earlier if message["role"] not in _OWN]
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    begin = next((index for index in users if index >= len(thread)), users[-1] if users else -1)
    return [*thread, *_given(input), *messages[begin + 1 :]]


# ---- from the wire


def _neutral(messages: Sequence[JsonObject]) -> Iterator[JsonObject]:
    """Yield what is part of the conversation."""
    called = ""
    for number, message in enumerate(messages):
        role = message.get("role")
        if role in _OWN:
            continue
        content = _content(message.get("content"))
        if role == "assistant":
            neutral = _assistant(content, _calls(message, number))
            called = neutral["tool_calls"][-1]["id"] if "tool_calls" in neutral else ""
            yield neutral
        elif role in ("tool", "function"):  # `function` is the API's first form: it has no ids
            yield {"role": "tool", "content": content, "tool_call_id": str(message.get("tool_call_id") or called)}
        else:
            yield {"role": "user", "content": content}


def _assistant(content: str, calls: list[JsonObject]) -> JsonObject:
    return {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})


def _calls(message: Mapping[str, Any], number: int) -> list[JsonObject]:
    """Return the tool calls of an assistant's message, the `number`-th of the conversation."""
    calls = [dict(each) for each in message.get("tool_calls") or () if isinstance(each, dict)]
    if function := message.get("function_call"):
        calls = [{"function": function}]
    return [
        {
            "id": str(call.get("id") or f"call-{number}-{place}"),
            "name": str((call.get("function") or {}).get("name")),
            "arguments": _arguments((call.get("function") or {}).get("arguments")),
        }
        for place, call in enumerate(calls)
    ]


def _arguments(text: Json) -> Json:
    try:
        return decode(text.encode(errors="surrogatepass")) if text else {}
    except (ValueError, AttributeError):  # the model's own mistake stays what it is
        return text


def _content(content: Json) -> str:
    """Return a message's content as text; of what is no text, only its kind."""
    if isinstance(content, list):
        return "\n".join(_part(part) for part in content)
    return "" if content is None else _text(content)


def _part(part: Json) -> str:
    if isinstance(part, dict):
        return str(part["text"]) if "text" in part else f"[{part.get('type')}]"
    return _text(part)


# ---- the last answer


def _answered(effect: Effect, results: Sequence[Effect]) -> list[JsonObject]:
    """Return the answer with the tool calls that have results, and the results in the order of the calls."""
    choices = ModelResponse.from_record(effect.response).data.get("choices") or [{}]
    answer = choices[0].get("message") or {}
    content, calls = _content(answer.get("content")), _calls(answer, len(_asked(effect)))
    matched, rest = _matched(calls, results)
    told = [{"role": "tool", "content": _result(matched[call["id"]]), "tool_call_id": call["id"]}
            for call in calls if call["id"] in matched]  # fmt: skip
    if calls and not told:
        return []
    if not calls and rest:  # tools called in words: their results are told in words
        return [
            _assistant(content, []),
            {"role": "user", "content": "\n".join(f"Observation: {_result(e)}" for e in rest)},
        ]
    return [_assistant(content, [call for call in calls if call["id"] in matched]), *told]


def _matched(calls: Sequence[JsonObject], results: Sequence[Effect]) -> tuple[dict[str, Effect], list[Effect]]:
    """Return the results by the id of their call, and those that belong to none.

    A call's own name and arguments come first; what is left goes by the name alone, because frameworks fill in
    defaults and convert types before they call.
    """
    matched: dict[str, Effect] = {}
    rest = list(results)
    for same in (_same_call, _same_name):
        for call in calls:
            found = next((each for each in rest if same(call, each)), None) if call["id"] not in matched else None
            if found is not None:
                matched[call["id"]] = found
                rest.remove(found)
    return matched, rest


def _same_call(call: JsonObject, effect: Effect) -> bool:
    return effect.request_hash == request_hash("tool", {"name": call["name"], "arguments": call["arguments"]})


def _same_name(call: JsonObject, effect: Effect) -> bool:
    return bool(decode(effect.request).get("name") == call["name"])


def _result(effect: Effect) -> str:
    """Return what a tool's effect tells the model."""
    response = decode(effect.response)
    if "error" not in response:
        return _text(response.get("value"))
    error = response["error"]
    return f"Error: {error['message'] if isinstance(error, dict) else error}"


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
