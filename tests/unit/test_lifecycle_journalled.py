"""A recorded run's journal, served by position: what is the same, what differs, and what differs without harm."""

from typing import Any

import msgspec
import pytest

from agentforge.engine.record import Outcome, tool_request
from agentforge.gateway import ModelResponse, request_hash
from agentforge.gateway.canonical import encode
from agentforge.lifecycle.journalled import Journalled
from agentforge.lifecycle.updating import excuse
from agentforge.store import Effect, EffectKind, RunId

PATH = "/v1/chat/completions"


class Journal:
    """Writes effects as the engine does; each takes a second, one after the other unless told otherwise."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.now = 100.0

    def _add(self, kind: EffectKind, hashed: str, request: bytes, response: bytes, at: float | None) -> None:
        started = self.now if at is None else at
        position = len(self.effects)
        self.effects.append(
            Effect(
                run_id=RunId("r"), position=position, attempt=1, kind=kind, request_hash=hashed, occurrence=0,
                request=request, response=response, status=200, started_at=started, duration_ms=1000.0,
            )
        )  # fmt: skip
        self.now = max(self.now, started + 1.5)

    def model(self, text: str, answer: str, path: str = PATH) -> "Journal":
        body = asked(text) if path == PATH else {"model": "m", "input": text}
        response = ModelResponse(encode({"choices": [{"message": {"content": answer}}]})).to_record()
        self._add("model", request_hash(path, body), encode(body), response, None)
        return self

    def tool(
        self, name: str, value: Any = None, at: float | None = None, since: int | None = None, **given: Any
    ) -> Any:
        hashed = request_hash("tool", {"name": name, "arguments": given})
        response = msgspec.json.encode(Outcome(value, since=since))
        self._add("tool", hashed, tool_request(name, given, False), response, at)
        return self

    def other(self, kind: EffectKind, request: dict[str, Any], response: dict[str, Any]) -> "Journal":
        self._add(kind, "x", encode(request), encode(response), None)
        return self

    def served(self, *varies: str) -> Journalled:
        return Journalled(self.effects, varies)


def asked(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def said(response: ModelResponse | None) -> str | None:
    return None if response is None else response.data["choices"][0]["message"]["content"]


def kinds(journalled: Journalled) -> list[str]:
    return [each.kind for each in journalled.differences]


def test_a_run_that_repeats_itself_has_no_differences() -> None:
    served = Journal().model("a", "1").tool("look", 7, n=1).model("b", "2").served()
    assert said(served.model(PATH, asked("a"))) == "1"
    outcome = served.tool("look", {"n": 1})
    assert outcome is not None
    assert outcome.value == 7
    assert said(served.model(PATH, asked("b"))) == "2"
    served.finish("2", "2")
    assert (served.differences, served.fatal, served.recorded) == ([], None, (2, 1))


def test_requests_in_other_words_get_the_answers_by_position_and_are_listed_without_harm() -> None:
    served = Journal().model("a", "1").model("b", "2").served()
    assert [said(served.model(PATH, asked(text, user="new"))) for text in ("a", "b")] == ["1", "2"]
    served.finish("2", "2")
    assert kinds(served) == ["model_request", "model_request"]
    assert [each["path"] for each in served.differences[0].changes] == ["$.user"]
    assert served.fatal is None


def test_parallel_requests_get_their_own_answers_whichever_comes_first() -> None:
    served = Journal().model("a", "1").model("b", "2").served()
    assert [said(served.model(PATH, asked(text))) for text in ("b", "a")] == ["2", "1"]
    assert served.differences == []


def test_what_varies_by_the_manifest_is_no_difference() -> None:
    served = Journal().model("a", "1").served("$.messages[0].content")
    assert said(served.model(PATH, asked("something else"))) == "1"
    assert served.differences == []


def test_embeddings_are_not_answered_with_chat_completions() -> None:
    served = Journal().model("a", "1").served()
    assert served.model("/v1/embeddings", {"model": "m", "input": "a"}) is None
    assert kinds(served) == ["extra_model_call"]


def test_one_model_call_more_is_fatal_and_one_less_is_not() -> None:
    served = Journal().model("a", "1").served()
    served.model(PATH, asked("a"))
    assert served.model(PATH, asked("sum up")) is None
    assert served.fatal is not None
    assert "made 1 model call only" in served.fatal.message
    less = Journal().model("a", "1").model("b", "2").served()
    less.model(PATH, asked("a"))
    less.finish("1", "1")
    assert (kinds(less), less.fatal) == (["missing_model_call"], None)


@pytest.mark.parametrize(
    ("name", "arguments", "paths"),
    [
        ("book", {"n": 1}, ["$.arguments.note"]),
        ("book", {"n": 1.0, "note": "x"}, ["$.arguments.n"]),
        ("look", {"n": 1, "note": "x"}, ["$.name"]),
    ],
)
def test_another_call_says_what_was_expected_and_found(name: str, arguments: dict[str, Any], paths: list[str]) -> None:
    served = Journal().tool("book", n=1, note="x").served()
    assert served.tool(name, arguments) is None
    difference = served.fatal
    assert difference is not None
    assert (difference.kind, difference.effect) == ("tool_call", 0)
    assert difference.expected == {"name": "book", "arguments": {"n": 1, "note": "x"}}
    assert difference.found == {"name": name, "arguments": arguments}
    assert [each["path"] for each in difference.changes] == paths
    assert difference.message.startswith("tool call 1: expected `book(n=1, note='x')`, found `")


def test_of_calls_at_once_another_call_is_compared_with_the_nearest_whichever_was_first() -> None:
    at_once = Journal().tool("book", at=10, n=3).tool("book", at=10.5, n=1, note="x")
    served = at_once.tool("book", at=20, n=1, note="y").served()
    assert served.tool("book", {"n": 1}) is None
    assert served.fatal is not None
    assert served.fatal.effect == 1, "the third had not begun before these ended"
    assert [each["path"] for each in served.fatal.changes] == ["$.arguments.note"]


def test_what_is_asked_for_after_a_run_went_another_way_says_nothing_more() -> None:
    served = Journal().tool("book", n=1).tool("book", n=2).model("a", "1").served()
    assert served.tool("book", {"n": 7}) is None
    assert served.tool("book", {"n": 2}) is None, "it was under way already"
    assert served.model(PATH, asked("a")) is None
    served.finish("x", "y")
    assert kinds(served) == ["tool_call"]


def test_calls_one_after_the_other_keep_their_order_and_those_at_once_need_not() -> None:
    served = Journal().tool("a").tool("b").served()
    assert served.tool("b", {}) is None
    assert kinds(served) == ["tool_order"]
    at_once = Journal().tool("a", at=100.0).tool("b", at=100.2).served()
    assert at_once.tool("b", {}) is not None
    assert at_once.tool("a", {}) is not None
    assert at_once.differences == []


def test_calls_too_many_and_too_few_are_fatal() -> None:
    served = Journal().tool("a").served()
    served.tool("a", {})
    assert served.tool("a", {}) is None
    assert kinds(served) == ["extra_tool_call"]
    few = Journal().tool("a").tool("b", n=2).served()
    few.tool("a", {})
    few.finish("x", "x")
    assert few.fatal is not None
    assert (few.fatal.kind, few.fatal.message) == ("missing_tool_call", "`b(n=2)` was not called")


def test_what_an_own_tool_did_inside_is_not_asked_for_again() -> None:
    journal = Journal().model("a", "1").model("inside", "2").tool("own", 5, since=1).model("b", "3")
    served = journal.served()
    served.model(PATH, asked("a"))
    outcome = served.tool("own", {})
    assert outcome is not None
    assert said(served.model(PATH, asked("b"))) == "3"
    served.finish("x", "x")
    assert served.differences == []


@pytest.mark.parametrize(
    ("recorded", "output", "same"),
    [("a", "a", True), ("a", "b", False), ({"n": 1}, {"n": 1.0}, False), ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True)],
)
def test_the_output_has_to_be_the_same(recorded: Any, output: Any, same: bool) -> None:
    served = Journal().served()
    served.finish(recorded, output)
    assert (served.fatal is None) is same


def test_other_effects_answer_to_equal_requests_and_questions_to_their_words() -> None:
    journal = Journal().other("value", {"kind": "now"}, {"value": 5.0})
    journal.other("answer", {"kind": "approval", "message": "may I?"}, {"decision": "approve", "value": None})
    journal.other("answer", {"kind": "question", "message": "why?"}, {"decision": "answer", "value": 42})
    served = journal.served()
    assert served.other("value", {"kind": "random"}) is None
    assert served.other("value", {"kind": "now"}) == {"value": 5.0}
    assert served.other("value", {"kind": "now"}) is None
    assert served.other("answer", {"question": "may I?"}) is None, "an approval is the host's own"
    assert served.other("answer", {"question": "why?"})["value"] == 42


def test_a_candidate_is_excused_only_by_what_the_present_environment_does_no_better() -> None:
    def went(calls: list[str], output: str, *, timed_out: bool = False) -> Journalled:
        served = Journal().tool("a").tool("b").served()
        for name in calls:
            if served.tool(name, {}) is None:
                return served
        served.fail("slow", timed_out=True) if timed_out else served.finish("x", output)
        return served

    dice = went(["a", "b"], "another")
    assert excuse(dice, went(["a", "b"], "yet another")) is not None
    assert excuse(dice, went(["a", "b"], "x")) is None
    assert excuse(went(["a", "c"], ""), went(["a", "b"], "another")) is None, "it went wrong earlier"
    assert excuse(dice, went(["a", "c"], "")) is not None
    assert excuse(dice, went(["a", "b"], "", timed_out=True)) is None
