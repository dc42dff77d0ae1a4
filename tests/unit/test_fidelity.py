import json

from agentforge_conformance.fidelity import compare, differing_paths, readable
from agentforge_conformance.scripted_model import RecordedRequest


def request(body: object, **headers: str) -> RecordedRequest:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return RecordedRequest("POST", "/v1/chat/completions", named, json.dumps(body).encode(), 0.0, "peer")


def test_requests_that_differ_only_in_where_and_who_are_equal() -> None:
    left = request({"a": 1, "b": 2}, Host="one", Authorization="Bearer x", Content_Length="9", X_Kept="1")
    right = request({"b": 2, "a": 1}, host="two", authorization="Bearer y", traceparent="00-1", x_kept="1")
    assert compare([left], [right]) == []


def test_ids_of_tool_calls_are_equal_when_they_come_in_the_same_order() -> None:
    def conversation(first: int) -> RecordedRequest:
        ids = [f"call_{first:08}_0", f"call_{first:08}_1"]
        return request({"calls": ids, "results": [ids[1], ids[0]]})

    assert compare([conversation(1)], [conversation(7)]) == []


def test_results_that_went_to_another_call_are_a_difference() -> None:
    left = request({"calls": ["call_00000001_0", "call_00000001_1"], "result": "call_00000001_0"})
    right = request({"calls": ["call_00000001_0", "call_00000001_1"], "result": "call_00000001_1"})
    assert differing_paths(compare([left], [right])) == {"body.result"}


def test_every_kind_of_difference_is_named_by_its_path() -> None:
    left = request({"n": 1, "list": [{"x": "a"}, {"x": "b"}], "gone": None}, x_gone="1")
    right = request({"n": 1.0, "list": [{"x": "a"}, {"x": "c"}, 3], "new": {}})
    paths = differing_paths(compare([left], [right]))
    assert paths == {"headers.x-gone", "body.n", "body.list[].x", "body.list[]", "body.gone", "body.new"}


def test_a_missing_request_is_a_difference() -> None:
    differences = compare([request({}), request({})], [request({})])
    assert differing_paths(differences) == {"requests"}
    assert readable(differences) == "request 0: requests\n  native:  2\n  adapter: 1"


def test_a_difference_is_shown_with_both_values_and_cut_when_long() -> None:
    text = readable(compare([request({"text": "a" * 999})], [request({})]))
    assert text.startswith('request 1: body.text\n  native:  "aaa')
    assert "  adapter: (absent)" in text
    assert len(text) < 500
