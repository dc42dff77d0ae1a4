"""What a command says of a run that waits, and what it makes of an answer that is typed."""

from pathlib import Path
from typing import Any

import pytest

from agentforge.cli import arguments
from agentforge.cli.waiting import say_waiting, what_to_type
from agentforge.errors import UsageFault

pytestmark = pytest.mark.feature("AF-081")


def interrupt(kind: str, *answers: str, **more: Any) -> dict[str, Any]:
    return {"id": "i1", "kind": kind, "message": "why", "data": {}, "answers": [*answers], "schema": None, **more}


QUESTION = interrupt("question", "answer", "fail")
TOOL = interrupt("tool", "retry", "result", "fail")
APPROVAL = interrupt("approval", "approve", "reject", "fail")
NUMBER = {**QUESTION, "schema": {"type": "number"}}
CHOICE = {**QUESTION, "schema": {"enum": ["red", 7]}}


@pytest.mark.parametrize(
    ("waits", "typed"),
    [
        (QUESTION, "answer r1 TEXT | fail"),
        (NUMBER, "answer r1 JSON | fail"),
        ({**QUESTION, "schema": {"type": "string"}}, "answer r1 TEXT | fail"),
        ({**QUESTION, "data": {"options": ["yes", "not yet"]}}, "answer r1 yes | 'not yet' | fail"),
        (TOOL, "answer r1 retry | result JSON | fail"),
        (APPROVAL, "answer r1 approve | reject [REASON] | fail"),
        (interrupt("divergence", "continue", "fail"), "answer r1 continue | fail"),
        (interrupt("rollback"), "resume r1"),
    ],
)
def test_what_to_type_is_a_command(waits: dict[str, Any], typed: str) -> None:
    assert what_to_type("r1", waits) == f"agentforge runs {typed}"


def test_of_several_interrupts_each_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    say_waiting({"run_id": "r1", "interrupts": [TOOL, {**APPROVAL, "id": "i2", "message": "may it?"}]})
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "run r1 waits: why",
        "hint: agentforge runs answer r1 --interrupt i1 retry | result JSON | fail",
        "run r1 waits: may it?",
        "hint: agentforge runs answer r1 --interrupt i2 approve | reject [REASON] | fail",
    ]


CODE = "import os\n\tos.remove('a')  # \x1b[8mhidden\x1b[0m \u202egnp.exe\r"


def test_all_of_what_is_to_be_approved_is_shown_and_nothing_that_a_terminal_acts_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = {"name": "run_python", "arguments": {"code": CODE, "n": [1, "\x07"], "one": "line\x1b[2K"}}
    say_waiting({"run_id": "r1", "interrupts": [{**APPROVAL, "data": data}]})
    assert capsys.readouterr().err.splitlines() == [
        "run r1 waits: why",
        "  code:",
        "    import os",
        "    \tos.remove('a')  # \\x1b[8mhidden\\x1b[0m \\u202egnp.exe\\r",
        '  n: [1, "\\u0007"]',
        "  one: line\\x1b[2K",
        "hint: agentforge runs answer r1 approve | reject [REASON] | fail",
    ]


@pytest.mark.parametrize(
    ("waits", "words", "sent"),
    [
        (QUESTION, ("blue",), ("answer", "blue")),
        (QUESTION, ("42",), ("answer", "42")),
        (QUESTION, ("answer", "blue"), ("answer", "blue")),
        (QUESTION, ("answer",), ("answer", "answer")),
        (QUESTION, ("fail",), ("fail", None)),
        (QUESTION, ("answer", "fail"), ("answer", "fail")),
        ({**QUESTION, "data": {"options": ["pass", "fail"]}}, ("fail",), ("answer", "fail")),
        (NUMBER, ("42",), ("answer", 42)),
        (CHOICE, ("red",), ("answer", "red")),
        (CHOICE, ("7",), ("answer", 7)),
        (TOOL, ("retry",), ("retry", None)),
        (TOOL, ("result", '{"sum": 412.5}'), ("result", {"sum": 412.5})),
        (TOOL, ("result", "null"), ("result", None)),
        (APPROVAL, ("reject", "too much"), ("reject", "too much")),
        (APPROVAL, ("reject",), ("reject", None)),
        (TOOL, ("nonsense",), ("nonsense", None)),  # the host says what it takes
    ],
)
def test_what_is_typed_becomes_a_decision_and_a_value(
    waits: dict[str, Any], words: tuple[str, ...], sent: tuple[str, Any]
) -> None:
    assert arguments.answer(waits, words[0], words[1] if len(words) > 1 else None) == sent


@pytest.mark.parametrize(
    ("waits", "decision", "value"),
    [
        (NUMBER, "blue", None),
        (QUESTION, "two", "words"),
        (TOOL, "result", None),
        (TOOL, "result", "no json"),
        (TOOL, "retry", "now"),
        (APPROVAL, "approve", "gladly"),
    ],
)
def test_what_can_not_be_meant_is_refused(waits: dict[str, Any], decision: str, value: str | None) -> None:
    with pytest.raises(UsageFault):
        arguments.answer(waits, decision, value)


def test_the_interrupt_that_is_meant_is_found() -> None:
    second = {**APPROVAL, "id": "i2"}
    assert arguments.open_interrupt({"interrupts": []}, None) is None
    assert arguments.open_interrupt({"interrupts": [TOOL]}, None) is TOOL
    assert arguments.open_interrupt({"interrupts": [TOOL, second]}, "i2") is second
    for wanted in (None, "i3"):
        with pytest.raises(UsageFault) as raised:
            arguments.open_interrupt({"interrupts": [TOOL, second]}, wanted)
        assert "`i1` (tool), `i2` (approval)" in raised.value.hint


def test_a_file_with_an_effect_is_json(tmp_path: Path) -> None:
    file = tmp_path / "effect.json"
    file.write_text('{"sum": 1}')
    assert arguments.json_file(file) == {"sum": 1}
    for text in ("{", ""):
        file.write_text(text)
        with pytest.raises(UsageFault, match=r"effect\.json"):
            arguments.json_file(file)
    with pytest.raises(UsageFault, match="missing"):
        arguments.json_file(tmp_path / "missing.json")


EFFECT = {"effect": 3, "kind": "tool", "request": {}, "response": {"value": 7}, "name": "sum"}


@pytest.mark.parametrize(
    ("content", "at", "meant"),
    [
        (EFFECT, None, ("3", 7)),
        (EFFECT, "3", ("3", 7)),
        ({**EFFECT, "kind": "model", "response": {"choices": []}}, None, ("3", {"choices": []})),
        (1000, "half way", ("half way", 1000)),
        (None, "1", ("1", None)),
        ({"value": 1}, "1", ("1", {"value": 1})),
    ],
)
def test_an_edit_is_an_effect_as_it_is_shown_or_a_value(content: Any, at: str | None, meant: tuple[str, Any]) -> None:
    assert arguments.edited(content, at) == meant


@pytest.mark.parametrize(
    ("content", "at"), [(EFFECT, "4"), (7, None), ({**EFFECT, "response": {"error": {"message": "no"}}}, None)]
)
def test_an_edit_that_can_not_be_meant_is_refused(content: Any, at: str | None) -> None:
    with pytest.raises(UsageFault):
        arguments.edited(content, at)
