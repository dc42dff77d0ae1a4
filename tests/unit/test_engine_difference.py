"""Two JSON values told apart path by path, and the recorded request that a new one resembles most."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge.engine.difference import Request, aligned, changes, nearest, recorded_request
from agentforge.gateway.canonical import request_hash
from agentforge.store import Effect, RunId

scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, 1.0]) | st.text("ab \"'.", max_size=4)
names = st.sampled_from(["role", "type", "name", "content", "a b", "", '"', "ü"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=15
)
ABSENT = object()


def at(value: Any, path: str) -> Any:
    """Follow a path by Python's own rules, independently of how it was made."""
    for name, quoted, index in re.findall(r'\.([^\W\d]\w*)|\[("(?:[^"\\]|\\.)*")\]|\[(\d+)\]', path):
        if index:
            value = value[int(index)] if isinstance(value, list) and int(index) < len(value) else ABSENT
        else:
            value = value.get(json.loads(quoted) if quoted else name, ABSENT) if isinstance(value, dict) else ABSENT
        if value is ABSENT:
            break
    return value


def last_step(path: str) -> str:
    return re.findall(r'\.[^\W\d]\w*|\["(?:[^"\\]|\\.)*"\]|\[\d+\]', path)[-1]


def told(before: Any, after: Any, **options: Any) -> list[tuple[Any, ...]]:
    return [tuple(change.values()) for change in changes(before, after, **options)]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@given(values)
def test_a_value_does_not_differ_from_itself_however_its_keys_are_ordered(value: Any) -> None:
    turned = json.loads(json.dumps(value), object_pairs_hook=lambda pairs: dict(reversed(pairs)))

    assert changes(value, turned) == []


@given(values, values)
def test_values_with_other_hashes_differ_and_values_with_one_hash_do_not(before: Any, after: Any) -> None:
    assert bool(changes(before, after)) == (request_hash("", before) != request_hash("", after))


@given(values, values)
def test_every_path_leads_to_what_is_told_of_it(before: Any, after: Any) -> None:
    for change in changes(before, after, limit=1000):
        if change["kind"] == "removed":
            assert isinstance(
                at(after, change["path"][: change["path"].rindex(last_step(change["path"]))]), dict | list
            )
        else:
            assert at(after, change["path"]) == change["after"]


@given(values, values, st.integers(0, 5))
def test_the_number_of_changes_is_bounded_and_the_first_ones_stay(before: Any, after: Any, limit: int) -> None:
    assert changes(before, after, limit) == changes(before, after, limit=1000)[:limit]


def test_an_object_is_compared_key_by_key() -> None:
    before = {"temperature": 0, "seed": 7, "stream": {"include_usage": True}}
    after = {"temperature": 0.5, "stream": {"include_usage": True}, "stop": ["x"]}

    assert told(before, after) == [
        ("$.temperature", "changed", 0, 0.5),
        ("$.stop", "added", None, ["x"]),
        ("$.seed", "removed", 7, None),
    ]


def test_numbers_that_are_equal_in_python_but_not_on_the_wire_differ() -> None:
    assert told([1, 1], [1.0, True]) == [("$[0]", "changed", 1, 1.0), ("$[1]", "changed", 1, True)]
    assert told({"x": None}, {}) == [("$.x", "removed", None, None)]


def test_names_that_are_no_identifiers_are_quoted_in_paths() -> None:
    assert told({"a b": {'"': 1}}, {"a b": {'"': 2}})[0][0] == '$["a b"]["\\""]'


def test_a_message_put_in_between_is_one_change() -> None:
    before = [message("system", "s"), message("user", "u"), message("assistant", "a")]
    after = [before[0], message("user", "more"), *before[1:]]

    assert told(before, after) == [("$[1]", "added", None, message("user", "more"))]
    assert told(after, before) == [("$[1]", "removed", message("user", "more"), None)]


def test_a_message_that_was_changed_while_another_was_put_in_is_paired_by_its_role() -> None:
    before = [message("system", "be brief"), message("user", "u")]
    after = [message("developer", "new"), message("system", "be clear"), message("user", "u")]

    assert told(before, after) == [
        ("$[0]", "added", None, message("developer", "new")),
        ("$[1].content", "changed", "be brief", "be clear"),
    ]


def test_equal_messages_are_paired_before_those_of_one_role() -> None:
    one, two, three = message("user", "1"), message("user", "2"), message("user", "3")

    assert told([["x"], one, two, ["y"]], [["z"], two, three, ["w"]]) == [
        ("$[0][0]", "changed", "x", "z"),
        ("$[1]", "removed", one, None),
        ("$[2]", "added", None, three),
        ("$[3][0]", "changed", "y", "w"),
    ]


def test_tools_are_paired_by_their_names() -> None:
    def tool(name: str, description: str) -> dict[str, Any]:
        return {"type": "function", "function": {"name": name, "description": description}}

    before = {"tools": [tool("add", "old"), tool("find", "finds")]}
    after = {"tools": [tool("get", "gets"), tool("add", "new"), tool("find", "finds")]}

    assert [change[:2] for change in told(before, after)] == [
        ("$.tools[0]", "added"),
        ("$.tools[1].function.description", "changed"),
    ]


def test_lists_too_long_to_align_are_compared_by_index() -> None:
    before = [[n] for n in range(1000)]
    after = [[n + 1] for n in range(1000)]

    assert told(before, after, limit=2) == [("$[0][0]", "changed", 0, 1), ("$[1][0]", "changed", 1, 2)]
    assert len(changes(before, after, limit=5000)) == 1000


def test_of_a_long_text_the_place_that_differs_is_shown_in_both_at_once() -> None:
    before = "a" * 5000 + "old" + "b" * 5000
    after = "a" * 5000 + "newer" + "b" * 5000

    (change,) = changes({"content": before}, {"content": after})

    assert change["before"] == "…" + "a" * 60 + "old" + "b" * 137 + "…"
    assert change["after"] == "…" + "a" * 60 + "newer" + "b" * 135 + "…"


def test_a_text_that_goes_on_after_the_others_end_shows_where() -> None:
    (change,) = changes("a" * 500, "a" * 500 + "more")

    assert (change["before"], change["after"]) == ("…" + "a" * 60, "…" + "a" * 60 + "more")


def test_a_large_value_is_shown_as_the_beginning_of_its_json() -> None:
    (change,) = changes({}, {"data": {"rows": list(range(10_000))}})

    assert change["after"].startswith('{"rows":[0,1,2')
    assert len(change["after"]) == 1001


def test_what_is_nested_deeply_is_compared_as_a_whole() -> None:
    def nest(depth: int, value: object) -> object:
        for _ in range(depth):
            value = [value]
        return value

    (change,) = changes(nest(200, 1), nest(200, 2))
    assert change["path"] == "$" + "[0]" * 50
    assert changes(nest(200, 1), nest(200, 1)) == []
    assert len(changes(nest(100_000, 1), nest(100_000, 2))) == 1


def test_half_a_character_in_a_text_is_no_obstacle() -> None:
    assert told(["\ud800"], [{"x": "\ud800"}]) == [("$[0]", "changed", "\ud800", {"x": "\ud800"})]
    assert nearest(Request("tool", "f", ["\ud800"]), [Request("tool", "f", [["\ud800"]])]) == 0


# ---- nearest


def chat(*contents: str, **more: Any) -> Request:
    return Request("model", "/v1/chat/completions", {"messages": [message("user", c) for c in contents], **more})


def tool(name: str, **arguments: Any) -> Request:
    return Request("tool", name, {"name": name, "arguments": arguments})


def test_nothing_is_nearest_of_nothing() -> None:
    assert nearest(chat("x"), []) is None


def test_the_same_kind_and_name_come_before_every_likeness() -> None:
    asked = tool("total_for", category="travel")

    assert nearest(asked, [chat("x"), tool("sum_for", category="travel"), tool("total_for", x=1, y=2)]) == 2
    assert nearest(asked, [chat("x"), tool("sum_for", category="travel")]) == 1
    assert nearest(asked, [chat("x")]) == 0


def test_fewer_changes_are_nearer_then_shorter_ones_then_earlier_ones() -> None:
    asked = chat("first", "second", temperature=0)

    assert nearest(asked, [chat("first"), chat("first", "second", temperature=1)]) == 1
    assert nearest(asked, [chat("first", "others", temperature=0), chat("first", "seconds", temperature=0)]) == 1
    assert (
        nearest(asked, [chat("first!", "second!", temperature=0), chat("first", "quite another", temperature=0)]) == 1
    )
    assert nearest(asked, [chat("x", "second", temperature=0), chat("y", "second", temperature=0)]) == 0


@given(st.lists(values, min_size=1, max_size=6), st.data())
def test_a_request_that_was_recorded_is_nearest_to_itself(recorded: list[Any], data: st.DataObject) -> None:
    asked = data.draw(st.sampled_from(recorded))

    found = nearest(Request("tool", "f", asked), [Request("tool", "f", each) for each in recorded])

    assert found is not None
    assert request_hash("", recorded[found]) == request_hash("", asked)


def test_requests_without_end_cost_little() -> None:
    long = [[f"{n}" for n in range(1000)] for _ in range(50)]
    other = [[f"{n}!" for n in range(1000)] for _ in range(50)]

    assert nearest(Request("tool", "f", other), [Request("tool", "f", long)] * 5000) == 0


@pytest.mark.parametrize(
    ("kind", "data", "path"),
    [
        ("model", {"messages": []}, "/v1/chat/completions"),
        ("model", {"input": "x"}, "/v1/embeddings"),
        ("tool", {"name": "total_for", "arguments": {}}, "total_for"),
        ("tool", {"name": "total_for", "arguments": {"x": 1}, "idempotent": True}, "total_for"),
        ("value", {"kind": "now"}, ""),
        ("answer", None, ""),
    ],
)
def test_a_recorded_effect_says_what_it_asked_for(kind: Any, data: Any, path: str) -> None:
    effect = Effect(
        run_id=RunId("r"), position=0, attempt=1, kind=kind, request_hash="h", occurrence=0,
        request=json.dumps(data).encode(), response=b"null", status=200, started_at=0, duration_ms=0,
    )  # fmt: skip

    asked = {"name": data["name"], "arguments": data["arguments"]} if kind == "tool" else data
    assert recorded_request(effect) == Request(kind, path, asked)


@given(st.lists(values, max_size=6), st.lists(values, max_size=6))
def test_aligned_lists_have_every_item_once_and_in_order(before: list[Any], after: list[Any]) -> None:
    pairs = list(aligned(before, after))

    assert [old for old, _ in pairs if old is not None] == list(range(len(before)))
    assert [new for _, new in pairs if new is not None] == list(range(len(after)))
