import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentforge.gateway
from agentforge.errors import models as errors
from agentforge.gateway import ModelFailure, ModelResponse, Secret, Upstream, Usage, failure_error, request_hash
from agentforge.gateway.assembly import ChatAssembly, events_of
from agentforge.gateway.canonical import decode, encode, with_model
from agentforge.gateway.failures import rejected, where
from agentforge.gateway.sse import SseParser
from agentforge.gateway.types import FailureKind
from agentforge.gateway.usage import usage_in

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.text(min_size=1, max_size=8)


@st.composite
def completions(draw: st.DrawFn) -> dict[str, Any]:
    choices = []
    for index in range(draw(st.integers(1, 3))):
        message: dict[str, Any] = {"role": "assistant", "content": draw(st.none() | st.text())}
        calls = [
            {"id": f"call_{n}", "type": "function", "function": {"name": draw(NAMES), "arguments": draw(st.text())}}
            for n in range(draw(st.integers(0, 3)))
        ]
        if calls:
            message["tool_calls"] = calls
        finish_reason = "tool_calls" if calls else "stop"
        choices.append({"index": index, "message": message, "finish_reason": finish_reason})
    usage = draw(st.none() | st.just({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}))
    top = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    return top if usage is None else {**top, "usage": usage}


@given(completions())
def test_an_answer_that_becomes_a_stream_and_is_assembled_again_is_the_same(answer: dict[str, Any]) -> None:
    parser, assembly = SseParser(), ChatAssembly()
    events = parser.feed(b"".join(events_of(answer, include_usage="usage" in answer)))
    said = [event.data for event in events if event.data is not None]
    assert said.pop() == b"[DONE]"
    for data in said:
        assembly.add(decode(data))
    assert assembly.finished
    assert assembly.response() == answer


def assembled(*deltas: dict[str, Any]) -> dict[str, Any]:
    assembly = ChatAssembly()
    for delta in deltas:
        assembly.add({"id": "1", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    message: dict[str, Any] = assembly.response()["choices"][0]["message"]
    return message


def test_arguments_in_pieces_and_reasoning_text_are_joined() -> None:
    message = assembled(
        {"role": "assistant", "reasoning_content": "let "},
        {"role": "assistant", "reasoning_content": "me see"},
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ": 1}"}}]},
    )
    assert message["reasoning_content"] == "let me see"
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    ]


def test_calls_that_a_server_numbers_all_alike_are_told_apart_by_their_id() -> None:
    one = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = assembled({"tool_calls": [one]}, {"tool_calls": [{**one, "id": "b"}]})
    assert [call["id"] for call in message["tool_calls"]] == ["a", "b"]


@pytest.mark.parametrize("chunk", [{"choices": 3}, {"choices": [1]}, {"choices": [{"delta": "x"}]}])
def test_what_is_no_chunk_is_refused(chunk: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is no"):
        ChatAssembly().add(chunk)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(JSON)
def test_the_hash_of_a_request_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    assert request_hash("/v1/x", shuffled(value)) == request_hash("/v1/x", value)


def test_the_hash_of_a_request_is_fixed_for_ever() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "é 🙂"}], "temperature": 0.0, "n": 1}
    expected = "7dcebbdd5a930ac8045a4f567523a9e470ebd95bdd3004f5a96c75492fa89544"
    assert request_hash("/v1/chat/completions", body) == expected


@pytest.mark.parametrize(
    ("one", "other"), [({"a": 1}, {"a": 1.0}), ({"a": [1, 2]}, {"a": [2, 1]}), ({"a": None}, {}), ({"a": ""}, {"a": 0})]
)
def test_requests_that_differ_hash_differently(one: Any, other: Any) -> None:
    assert request_hash("/v1/x", one) != request_hash("/v1/x", other)
    assert request_hash("/v1/x", one) != request_hash("/v1/y", one)


@given(JSON)
def test_json_survives_reading_and_writing(value: Any) -> None:
    assert decode(encode(value)) == value


def test_half_a_surrogate_pair_is_taken_as_real_clients_send_it() -> None:
    halves = decode(b'["\\ud83d", "\\ude42"]')
    assert json.loads(encode("".join(halves))) == "🙂"
    assert request_hash("/p", halves)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"NaN", b"\xff", b"[" * 100_000, b'{"a": Infinity}', '{"a": 1}'.encode("utf-16")]
)
def test_what_is_no_json_raises_valueerror(text: bytes) -> None:
    with pytest.raises(ValueError):
        decode(text)


def test_another_model_leaves_every_other_value_its_bytes() -> None:
    body = b'{"model": "default", "messages": [ {"content":"\\u00e9 \\"model\\": \\"default\\"", "n": 1.50} ], "x":1e2}'
    changed = with_model(body, decode(body), "gpt-x")
    assert decode(changed) == {**decode(body), "model": "gpt-x"}
    assert b'[ {"content":"\\u00e9 \\"model\\": \\"default\\"", "n": 1.50} ]' in changed
    assert b'"x":1e2' in changed


def test_a_secret_hides_in_every_text_form_and_is_not_pickled() -> None:
    secret = Secret("sk-very-secret")
    upstream = Upstream("default", "openai", "https://x/v1", "m", secret)
    assert "very" not in f"{secret} {secret!r} {upstream} {[secret]!r}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert copy.copy(upstream).api_key == secret
    assert secret.redact("key sk-very-secret!") == "key [redacted]!"
    assert Secret("none").redact("none of it") == "none of it"


@given(JSON, st.none() | st.text())
def test_a_response_survives_the_journal(value: Any, stream: str | None) -> None:
    raw = None if stream is None else stream.encode()
    response = ModelResponse(encode({"v": value}), raw, {"x-request-id": "r"}, Usage(1, 2, 3, 4))
    assert ModelResponse.from_record(response.to_record()) == response


def test_a_response_with_half_a_surrogate_pair_survives_the_journal() -> None:
    body = b'{ "x":  "\\ud83d" , "y": 1e400}'
    assert ModelResponse.from_record(ModelResponse(body).to_record()).body == body


@pytest.mark.parametrize(
    ("data", "usage"),
    [
        ({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, Usage(1, 2)),
        ({"usage": {"prompt_tokens": 5, "total_tokens": 5}}, Usage(5, 0)),
        (
            {"usage": {"input_tokens": 1, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}},
            Usage(1, 2, 1),
        ),
        (
            {
                "usage": {
                    "prompt_tokens": 1,
                    "completion_tokens": 9,
                    "completion_tokens_details": {"reasoning_tokens": 7},
                }
            },
            Usage(1, 9, 0, 7),
        ),
        ({"usage": None}, None),
        ({}, None),
    ],
)
def test_usage_is_read_in_either_format(data: dict[str, Any], usage: Usage | None) -> None:
    assert usage_in(data) == usage


def test_an_address_in_a_message_shows_no_credentials() -> None:
    upstream = Upstream("a", "openai", "https://me:pass@host:1/v1?key=abc", "m")
    assert where(upstream) == "`a` (`m` at `https://host:1/v1`)"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    failure = rejected(Upstream("a", "openai", "http://h/v1", "m"), 429, headers, b"{}").failure
    assert failure.retry_after_s == seconds


KINDS: dict[FailureKind, type[errors.ModelError]] = {
    "auth_refused": errors.ModelAuthRefused,
    "rate_limited": errors.ModelRateLimited,
    "bad_request": errors.ModelRequestRejected,
    "upstream_error": errors.ModelUpstreamFailed,
    "unreachable": errors.ModelUnreachable,
    "silent": errors.ModelSilent,
    "broken_stream": errors.ModelStreamBroken,
    "unknown_model": errors.UnknownModel,
    "refused": errors.ModelCallRefused,
    "malformed": errors.ModelRequestMalformed,
    "aborted": errors.ModelCallAborted,
    "internal": errors.ModelError,
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_failure_becomes_an_error_of_its_own_class_with_a_hint(kind: FailureKind) -> None:
    failure = ModelFailure(kind, "AF999", 500, "the facts", 500, 2.0, {"body": "said"})
    error = failure_error(failure)
    assert type(error) is KINDS[kind]
    info = error.info()
    assert (info.message, info.origin, bool(info.hint)) == ("the facts", "model", True)
    assert info.details["upstream_status"] == 500
    assert info.details["retry_after_s"] == 2.0


def test_the_public_names_are_these() -> None:
    assert sorted(agentforge.gateway.__all__) == [
        "CallObserver",
        "Connection",
        "ConnectionObserver",
        "Door",
        "DoorLimits",
        "EmbeddedModel",
        "EndReason",
        "FailureKind",
        "Gate",
        "GateLimits",
        "Gateway",
        "Grant",
        "ModelCall",
        "ModelFailure",
        "ModelResponse",
        "REDACTED",
        "Refused",
        "SHORTEST_REDACTED",
        "Secret",
        "TOKEN_PREFIX",
        "Timeouts",
        "Upstream",
        "UpstreamKind",
        "Usage",
        "failure_error",
        "most_connections",
        "request_hash",
    ]
    assert all(hasattr(agentforge.gateway, name) for name in agentforge.gateway.__all__)
