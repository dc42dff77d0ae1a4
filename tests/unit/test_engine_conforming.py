"""Values against schemas that a worker may have made: bounded in time, and nothing is fetched or opened for them."""

import time
from pathlib import Path
from typing import Any

import pytest

from agentforge.engine.conforming import mismatch_of_output, mismatch_of_untrusted
from agentforge.engine.interrupts import Interrupt, fitting
from agentforge.engine.output import checked_output
from agentforge.errors.runs import AnswerUnfit, OutputMismatch

LAUGHS: dict[str, Any] = {
    "$defs": {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 10} for n in range(9)} | {"l9": {"type": "string"}},
    "$ref": "#/$defs/l0",
}


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"type": "string", "pattern": "^a+$"}, "aaa", True),
        ({"type": "string", "pattern": "^a+$"}, "b", False),
        ({"type": "array", "uniqueItems": True}, [1, 2, 1], False),
        ({"$defs": {"n": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/n"}}}, {"x": 1}, True),
        ({"$defs": {"n": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/n"}}}, {"x": "1"}, False),
        ({}, "x" * 1_000_000, True),
    ],
)
async def test_values_fit_or_do_not(schema: Any, value: Any, fits: bool) -> None:
    assert (await mismatch_of_untrusted(schema, value) is None) is fits
    assert (await mismatch_of_output(schema, value) is None) is fits


async def test_what_does_not_fit_is_told_by_its_place() -> None:
    schema = {"properties": {"x": {"type": "integer", "pattern": "unused"}}}
    for check in (mismatch_of_untrusted, mismatch_of_output):
        found = await check(schema, {"x": "text" * 10_000})
        assert found is not None
        assert found.path == "$.x"
        assert len(found.message) <= 2000


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        ({"type": "string", "pattern": "^(a+)+$"}, "a" * 60 + "!", "too long"),
        (LAUGHS, "x" * 10, "too long"),
        ({"$ref": "#"}, {}, "without end"),
        ({"type": 5}, {}, "not valid under any"),
        ({"pattern": "("}, "x", "regex"),
    ],
    ids=["a-regex-without-end", "references-that-multiply", "a-circle", "no-schema", "no-regex"],
)
async def test_a_schema_that_can_not_be_used_is_told_of(schema: Any, value: Any, words: str) -> None:
    begun = time.monotonic()
    found = await mismatch_of_untrusted(schema, value)
    assert found is not None
    assert words in found.wrong
    assert time.monotonic() - begun < 25


async def test_no_reference_of_a_schema_is_opened(tmp_path: Path) -> None:
    elsewhere = tmp_path / "schema.json"
    elsewhere.write_text('{"type": "integer"}')
    for reference in (elsewhere.as_uri(), "file:///etc/passwd", "http://127.0.0.1:9/schema"):
        found = await mismatch_of_untrusted({"$ref": reference}, "x")
        assert found is not None
        assert "leads nowhere" in found.wrong


async def test_an_answer_to_a_question_with_a_wrong_schema_is_refused_with_the_reason() -> None:
    question = Interrupt("question", "?", schema={"$ref": "file:///etc/passwd"})
    with pytest.raises(AnswerUnfit, match="schema is wrong"):
        await fitting(question, "answer", "x")
    with pytest.raises(AnswerUnfit, match="does not match"):
        await fitting(Interrupt("question", "?", schema={"type": "integer"}), "answer", "x")
    assert await fitting(Interrupt("question", "?", schema={"type": "integer"}), "answer", 5) == 5


@pytest.mark.parametrize("output", ["[" * 500 + "]" * 500, '{"a":' * 100_000, "NaN", '{"a": Infinity}'])
async def test_an_answer_that_can_not_be_kept_is_no_json(output: str) -> None:
    with pytest.raises(OutputMismatch, match="not JSON"):
        await checked_output(output, {"type": "object"})


async def test_an_answer_in_a_schema_that_refers_to_itself_is_checked_to_its_depth() -> None:
    schema = {"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"}
    tree: list[Any] = []
    for _ in range(100):
        tree = [tree]
    try:
        assert await checked_output(tree, schema) == tree
    except OutputMismatch:  # it is too deep for the checker, and that is no RecursionError
        pass
