"""What a worker may say: each method's parameters and answers, and how much of them."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge.workers import schemas
from agentforge.workers.schemas import check_answer, check_failure, check_message, read_message
from agentforge_worker.runtime import bounds
from agentforge_worker.wire import ADAPTER_EVENTS, LOG_STREAMS, ErrorCode, Method, RpcError

RUN = {"run_id": "r1", "attempt": 1}
GOOD: dict[str, dict[str, Any]] = {
    Method.TOOL_CALL: {**RUN, "name": "pay", "arguments": {"n": 1}},
    Method.EFFECT_OPEN: {**RUN, "name": "pay", "arguments": {}, "idempotent": True},
    Method.EFFECT_CLOSE: {**RUN, "effect": "abc-0", "error": {"code": "AF603", "message": "x", "details": {}}},
    Method.VALUE_TAKE: {**RUN, "kind": "now"},
    Method.CHECKPOINT_SAVE: {**RUN, "name": "half way"},
    Method.QUESTION_ASK: {**RUN, "question": "?", "options": [1], "schema": {}, "timeout_s": 1, "default": None},
    Method.RUN_CALL: {**RUN, "agent": {"name": "x"}, "input": 1, "on": None, "model": "m", "timeout_s": None},
    Method.EVENT_EMIT: {**RUN, "kind": "step.started", "data": {"step": 1}},
    Method.LOG_WRITE: {"run_id": None, "attempt": None, "stream": "stdout", "text": "x"},
    Method.RUN_WARN: {**RUN, "message": "x"},
    Method.HEARTBEAT: {"rss_mib": 12.5},
    Method.REQUEST_CANCEL: {"id": 7},
}
BAD: list[tuple[str, dict[str, Any]]] = [
    (Method.TOOL_CALL, {"name": None}),
    (Method.TOOL_CALL, {"name": ""}),
    (Method.TOOL_CALL, {"name": "n" * 201}),
    (Method.TOOL_CALL, {"arguments": []}),
    (Method.TOOL_CALL, {"run_id": 5}),
    (Method.TOOL_CALL, {"run_id": "r" * 101}),
    (Method.TOOL_CALL, {"attempt": 0}),
    (Method.TOOL_CALL, {"attempt": "1"}),
    (Method.TOOL_CALL, {"attempt": True}),
    (Method.TOOL_CALL, {"attempt": None}),
    (Method.EFFECT_OPEN, {"idempotent": "yes"}),
    (Method.EFFECT_CLOSE, {"effect": None}),
    (Method.EFFECT_CLOSE, {"error": "text"}),
    (Method.EFFECT_CLOSE, {"error": {"message": "m" * 100_001}}),
    (Method.EFFECT_CLOSE, {"error": {"details": [1]}}),
    (Method.VALUE_TAKE, {"kind": "secret"}),
    (Method.CHECKPOINT_SAVE, {"name": 5}),
    (Method.QUESTION_ASK, {"question": None}),
    (Method.QUESTION_ASK, {"question": "q" * 100_001}),
    (Method.QUESTION_ASK, {"options": [0] * 1001}),
    (Method.QUESTION_ASK, {"timeout_s": 0}),
    (Method.QUESTION_ASK, {"timeout_s": -1}),
    (Method.QUESTION_ASK, {"timeout_s": 1e12}),
    (Method.QUESTION_ASK, {"schema": True}),
    (Method.RUN_CALL, {"agent": None}),
    (Method.RUN_CALL, {"agent": "a" * 1001}),
    (Method.RUN_CALL, {"on": ["langchain"]}),
    (Method.RUN_CALL, {"model": {}}),
    (Method.RUN_CALL, {"timeout_s": "long"}),
    (Method.EVENT_EMIT, {"kind": "run.finished"}),
    (Method.EVENT_EMIT, {"kind": "attempt.started"}),
    (Method.EVENT_EMIT, {"kind": "model.responded"}),
    (Method.EVENT_EMIT, {"kind": "tool.returned"}),
    (Method.EVENT_EMIT, {"kind": "message.delta"}),
    (Method.EVENT_EMIT, {"kind": "interrupt.answered"}),
    (Method.EVENT_EMIT, {"kind": "log.written"}),
    (Method.EVENT_EMIT, {"kind": "made.up"}),
    (Method.EVENT_EMIT, {"data": "text"}),
    (Method.LOG_WRITE, {"stream": "warning"}),
    (Method.LOG_WRITE, {"stream": "environment"}),
    (Method.LOG_WRITE, {"text": None}),
    (Method.LOG_WRITE, {"text": "x" * (bounds.MAX_LINE + 1)}),
    (Method.RUN_WARN, {"message": 5}),
    (Method.RUN_WARN, {"message": "x" * (bounds.MAX_LINE + 1)}),
    (Method.HEARTBEAT, {"rss_mib": -1}),
    (Method.HEARTBEAT, {"rss_mib": "much"}),
    (Method.REQUEST_CANCEL, {"id": None}),
]


@pytest.mark.parametrize("method", GOOD)
def test_what_a_method_allows_passes(method: str) -> None:
    check_message(method, GOOD[method])
    check_message(method, {**GOOD[method], "a_later_minor": "adds this"})


@pytest.mark.parametrize(("method", "wrong"), BAD, ids=lambda value: str(value)[:40])
def test_what_a_method_does_not_allow_is_refused(method: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\$"):
        check_message(method, {**GOOD[method], **wrong})


@pytest.mark.parametrize("method", GOOD)
def test_no_method_does_without_its_parameters(method: str) -> None:
    with pytest.raises(ValueError):
        check_message(method, {})


def test_every_message_of_a_worker_has_a_schema() -> None:
    assert set(schemas._MESSAGES) == set(GOOD)


@pytest.mark.parametrize("kind", ADAPTER_EVENTS)
def test_both_sides_agree_on_what_adapters_emit(kind: str) -> None:
    check_message(Method.EVENT_EMIT, {**RUN, "kind": kind, "data": {}})
    bounds.check_kind(kind)


@pytest.mark.parametrize("stream", LOG_STREAMS)
def test_both_sides_agree_on_the_streams(stream: str) -> None:
    check_message(Method.LOG_WRITE, {**RUN, "stream": stream, "text": ""})


def test_what_nobody_serves_is_not_looked_at() -> None:
    check_message("a.later.minor", {"anything": [1, {}]})


HELLO = {"protocol_version": "1.1", "capabilities": {"concurrent": True}, "probe": {"version": "1", "details": {}}}


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (Method.INITIALIZE, HELLO),
        (Method.AGENT_OPEN, {"card": {}, "warnings": ["x"]}),
        (Method.RUN_START, {"output": None, "messages": [], "metrics": {"cpu_ms": 1}, "state": None}),
        (Method.TOOLS_OPEN, {"tools": [{"name": "t", "description": "", "parameters": {}}]}),
        (Method.TOOL_INVOKE, {"value": None}),
        (Method.PING, {}),
        (Method.SHUTDOWN, {}),
    ],
)
def test_an_answer_that_keeps_its_promise_passes(method: str, answer: Any) -> None:
    check_answer(method, answer)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (Method.INITIALIZE, {**HELLO, "capabilities": []}),
        (Method.INITIALIZE, {**HELLO, "capabilities": {"concurrent": "yes"}}),
        (Method.INITIALIZE, {**HELLO, "probe": {"version": 1}}),
        (Method.AGENT_OPEN, []),
        (Method.AGENT_OPEN, {"card": {}, "warnings": "text"}),
        (Method.AGENT_OPEN, {"card": {}, "warnings": [1]}),
        (Method.AGENT_OPEN, {"card": {}, "warnings": ["x"] * 101}),
        (Method.RUN_START, None),
        (Method.RUN_START, {"messages": {}}),
        (Method.RUN_START, {"messages": [{"role": "root"}]}),
        (Method.RUN_START, {"messages": [{"role": "user", "content": 5}]}),
        (Method.RUN_START, {"metrics": {"cpu_ms": "much"}}),
        (Method.TOOLS_OPEN, {"tools": [{}]}),
        (Method.TOOLS_OPEN, {"tools": [{"name": 5, "description": "", "parameters": {}}]}),
        (Method.TOOL_INVOKE, {}),
        (Method.TOOL_INVOKE, 5),
        (Method.PING, []),
    ],
)
def test_an_answer_that_does_not_is_refused(method: str, answer: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        check_answer(method, answer)


@pytest.mark.parametrize(
    "data",
    [
        None,
        "text",
        {},
        {"code": "AF9000", "message": "x"},
        {"code": "AF90\u0663", "message": "x"},
        {"code": "AF900\n", "message": "x"},
        {"code": "AF422", "message": 5},
        {"code": "AF422", "message": "m" * 100_001},
        {"code": "AF422", "message": "x", "origin": "god"},
        {"code": "AF422", "message": "x", "details": "text"},
    ],
)
def test_a_failure_without_a_proper_error_object_is_refused(data: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        check_failure(RpcError(ErrorCode.FAILED, "x", data))


def test_other_errors_need_no_error_object() -> None:
    check_failure(RpcError(ErrorCode.CANCELLED, "x"))
    check_failure(RpcError(ErrorCode.FAILED, "x", {"code": "AF422", "message": "x"}))


# ---- size


def test_nesting_ends_at_the_same_depth_however_it_is_made() -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")):
        levels = len([each for each in opening if each in "[{"])
        inside = schemas.MAX_DEPTH // levels
        read_message((opening * inside + "1" + closing * inside).encode())
        with pytest.raises(ValueError, match="deep"):
            read_message((opening * (inside + 1) + "1" + closing * (inside + 1)).encode())


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_beyond_any_parser_is_refused_too(opening: str) -> None:
    with pytest.raises(ValueError):
        read_message(opening.encode() * 1_000_000)


def test_a_message_of_nothing_but_lists_is_refused_before_it_is_read() -> None:
    with pytest.raises(ValueError, match="lists and objects"):
        read_message(b"[" + b"[]," * schemas.MAX_CONTAINERS + b"1]")


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists))
def test_whatever_json_says_is_read_as_it_was_written(value: Any) -> None:
    text = json.dumps(value)
    if "\\ud" not in text:  # half of a pair of surrogates is no text
        assert read_message(text.encode()) == value


@given(st.binary(max_size=200))
def test_bytes_are_read_or_refused_and_nothing_else(data: bytes) -> None:
    try:
        read_message(data)
    except ValueError:
        pass


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_any_value_in_any_place_is_taken_or_refused_and_nothing_else(method: str, data: st.DataObject) -> None:
    params = dict(GOOD[method])
    params[data.draw(st.sampled_from(sorted(params)))] = data.draw(values)
    try:
        check_message(method, params)
    except ValueError:
        pass


@pytest.mark.parametrize("item", [b"1", b'"a"', b"null"])
def test_a_message_of_too_many_values_is_refused_before_it_is_made(item: bytes) -> None:
    with pytest.raises(ValueError, match="over 1000000 values"):
        read_message(b"[" + (item + b",") * (schemas.MAX_VALUES + 1) + item + b"]")


def test_commas_in_texts_are_no_values() -> None:
    text = 'a,"b",\\,' * 400_000
    assert read_message(json.dumps([text]).encode()) == [text]
