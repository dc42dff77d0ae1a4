"""The text of an answer that comes over several attempts is shown once."""

from typing import Any

import pytest

from agentforge.api.result import RunEvent
from agentforge.cli.progress import Progress
from agentforge.cli.showing import TextShown

pytestmark = pytest.mark.feature("AF-081")


def shown(capsys: pytest.CaptureFixture[str], *said: str) -> str:
    """Return what is printed of deltas, `!` for a new attempt and `.` for a recorded answer."""
    kinds = {"!": "attempt.started", ".": "model.responded"}
    text = TextShown(stream=True)
    text.progress = Progress()
    for seq, each in enumerate(said, 1):
        kind = kinds.get(each, "message.delta")
        text.event(RunEvent(seq, kind, "", {"text": each} if kind == "message.delta" else {}))
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        (["!", "ab", "cd", "."], "abcd"),
        (["!", "ab", "!", "ab", "cd", "."], "abcd"),
        (["!", "abc", "!", "ab", "cd", "."], "abcd"),
        (["!", "abc", "!", "a", "!", "abcd", "."], "abcd"),
        (["!", "abc", "!", "abcde", "!", "abcdef", "."], "abcdef"),
        (["!", "abc", "!", "a", "x", "y", "."], "abc\naxy"),
        (["!", "ab", ".", "!", "ab", "."], "abab"),
        (["!", "ab", "!", ".", "cd"], "abcd"),
    ],
)
def test_what_a_new_attempt_says_again_is_not_shown_again(
    capsys: pytest.CaptureFixture[str], said: list[str], printed: str
) -> None:
    assert shown(capsys, *said) == printed


def test_a_run_that_waits_is_told_on_stderr_with_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    waits: dict[str, Any] = {"id": "i1", "kind": "tool", "message": "`pay` was in flight", "answers": ["retry", "fail"]}
    TextShown().end([{"run_id": "r1", "status": "waiting", "error": None, "interrupts": [waits]}])
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "run r1 waits: `pay` was in flight\nhint: agentforge runs answer r1 retry | fail\n"
