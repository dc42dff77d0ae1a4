"""What a worker keeps to by itself: what its users and frameworks make is refused or cut before the host sees it."""

from typing import Any

import msgspec
import pytest

from agentforge.workers import schemas
from agentforge.workers.schemas import check_failure, check_message
from agentforge_worker.adapter import EffectFailed, Message, StepLimitReached, ToolFailed
from agentforge_worker.runtime import bounds
from agentforge_worker.runtime.failures import translate
from agentforge_worker.runtime.raised import described
from agentforge_worker.runtime.toolbox import _failure
from agentforge_worker.wire import Method

LONG = "x" * 300_000
RUN = {"run_id": "r1", "attempt": 1}


@pytest.mark.parametrize(
    "raised",
    [
        ValueError(LONG),
        EffectFailed("no code", LONG, LONG, "nowhere"),
        EffectFailed("AF701", "text"),
        ToolFailed("AF\u0661\u0662\u0663", LONG),
        StepLimitReached(3),
        Exception(),
    ],
    ids=repr,
)
def test_whatever_is_raised_becomes_an_error_that_the_host_takes(raised: Exception) -> None:
    raised.args = raised.args[:1]
    check_failure(translate(raised))
    check_message(Method.EFFECT_CLOSE, {**RUN, "effect": "e", "error": described(raised)})


def test_an_error_of_the_hosts_own_keeps_its_code() -> None:
    info = translate(EffectFailed("AF701", "text", "hint", "host")).data
    assert (info["code"], info["message"], info["hint"], info["origin"]) == ("AF701", "text", "hint", "host")


def test_a_tools_failure_is_cut() -> None:
    check_failure(_failure("AF603", LONG))


@pytest.mark.parametrize("name", ["", "n" * 201, None, 5])
def test_a_name_that_the_host_would_refuse_is_refused_here(name: Any) -> None:
    with pytest.raises(ValueError, match="1 to 200 characters"):
        bounds.check_name("a checkpoint", name)


@pytest.mark.parametrize("kind", ["run.finished", "tool.called", "made.up", ""])
def test_an_event_that_is_not_an_adapters_is_refused_here(kind: str) -> None:
    with pytest.raises(ValueError, match="adapters emit"):
        bounds.check_kind(kind)


@pytest.mark.parametrize(
    ("question", "options", "timeout_s"),
    [(None, None, None), (LONG, None, None), ("?", [0] * 1001, None), ("?", None, 0), ("?", None, float("nan"))],
)
def test_a_question_that_the_host_would_refuse_is_refused_here(question: Any, options: Any, timeout_s: Any) -> None:
    with pytest.raises(ValueError):
        bounds.check_question(question, options, timeout_s)


@pytest.mark.parametrize(
    ("agent", "on", "model", "timeout_s"),
    [
        (None, None, None, None),
        ("", None, None, None),
        ("a", "", None, None),
        ("a", None, 5, None),
        ({}, None, None, -1),
    ],
)
def test_a_child_that_the_host_would_refuse_is_refused_here(agent: Any, on: Any, model: Any, timeout_s: Any) -> None:
    with pytest.raises(ValueError):
        bounds.check_child(agent, on, model, timeout_s)


@pytest.mark.parametrize(
    "message",
    [Message("root", "x"), Message("user", None), Message("user", "x", ["no mapping"])],  # type: ignore[arg-type,list-item]
)
def test_a_message_that_is_none_is_the_adapters_mistake(message: Message) -> None:
    with pytest.raises(TypeError):
        bounds.check_messages([message])


def test_the_bounds_are_those_of_the_host() -> None:
    check_message(Method.LOG_WRITE, {**RUN, "stream": "stdout", "text": "x" * bounds.MAX_LINE})
    check_message(Method.CHECKPOINT_SAVE, {**RUN, "name": "n" * bounds.MAX_NAME})
    check_message(Method.RUN_CALL, {**RUN, "agent": "a" * bounds.MAX_PATH, "timeout_s": bounds.MAX_WAIT_S})
    question = {"question": "q" * bounds.MAX_TEXT, "options": [0] * bounds.MAX_OPTIONS}
    check_message(Method.QUESTION_ASK, {**RUN, **question})
    msgspec.convert({"code": "AF422", "message": "m" * bounds.MAX_TEXT}, schemas.Failure)
