"""A conversation of three turns across three frameworks, and a run that another framework takes over half-way."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from agentforge.frameworks import Catalogue
from agentforge_conformance.lab import Lab, built_python, open_lab
from agentforge_conformance.scripted_model import CalledTool, Step

FRAMEWORKS = ("langchain", "crewai", "pydantic-ai")

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    *(pytest.mark.framework(name) for name in FRAMEWORKS),
]

TURNS = [
    ("What did meals cost?", CalledTool("total_for", {"category": "meals"}), "96.0", "Meals were {tool}."),
    ("And a hotel?", CalledTool("total_for", {"category": "hotel"}), "730.0", "The hotel was {tool}."),
    ("Both?", CalledTool("add", {"a": 96, "b": 730}), "826", "Together {tool}."),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def labs() -> AsyncIterator[dict[str, Lab]]:
    async with AsyncExitStack() as stack:
        found = {}
        for name in FRAMEWORKS:
            release = Catalogue.discover().resolve(name)
            found[name] = await stack.enter_async_context(open_lab(release, await built_python(release)))
        yield found


def told(lab: Lab, run: Any, request: int) -> list[tuple[str, str]]:
    """The conversation as it went to the model: the role and the text of each message."""
    messages = lab.requests(run)[request].json["messages"]
    return [(m["role"], text_of(m)) for m in messages if m["role"] not in ("system", "developer")]


def text_of(message: dict[str, Any]) -> str:
    if message.get("tool_calls"):
        return " ".join(call["function"]["name"] for call in message["tool_calls"])
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


@pytest.mark.parametrize("first", range(3), ids=FRAMEWORKS)
async def test_three_turns_across_three_frameworks_keep_their_context(labs: dict[str, Lab], first: int) -> None:
    thread: list[dict[str, Any]] = []
    expected: list[tuple[str, str]] = []
    for turn, (question, call, result, answer) in enumerate(TURNS):
        lab = labs[FRAMEWORKS[(first + turn) % 3]]
        lab.model.script("turn", Step(calls=[call]), Step(text=answer))
        run = await lab.run(await lab.open(model="turn"), question, messages=thread)
        assert run.tool_calls == [(call.name, call.arguments)]
        asked = told(lab, run, 0)
        assert asked[:-1] == expected, "all that was said before, by whatever framework"
        assert question in asked[-1][1]
        assert [role for role, _ in told(lab, run, 1)[len(asked) :]] == ["assistant", "tool"]
        assert run.result is not None
        added = run.result["messages"]
        expected += [("user", question), ("assistant", call.name), ("tool", result)]
        expected += [("assistant", answer.replace("{tool}", result))]
        assert [m["role"] for m in added] == ["assistant", "tool", "assistant"]
        assert run.result["output"] == expected[-1][1]
        thread += [{"role": "user", "content": question}, *added]


@pytest.mark.parametrize("onto", FRAMEWORKS)
@pytest.mark.parametrize("length", [2, 3], ids=["before the tool", "after the tool"])
async def test_a_run_is_taken_over_by_another_framework(labs: dict[str, Lab], onto: str, length: int) -> None:
    begun_by = labs[FRAMEWORKS[(FRAMEWORKS.index(onto) + 1) % 3]]
    question, call, result, answer = TURNS[0]
    begun_by.model.script("begun", Step(calls=[call]), Step(text="never heard of again"))
    begun = await begun_by.run(await begun_by.open(model="begun"), question)
    assert begun.result is not None
    thread = [{"role": "user", "content": question}, *begun.result["messages"]][:length]
    lab = labs[onto]
    lab.model.script("ended", Step(text=answer))
    run = await lab.run(await lab.open(model="ended"), None, messages=thread, continues=True)
    assert [name for name, _ in run.tool_calls] == ["total_for"] * (3 - length)
    asked = told(lab, run, 0)
    assert question in asked[0][1]
    assert asked[1:] == [("assistant", "total_for"), ("tool", result)]
    assert run.result is not None
    assert run.result["output"] == answer.replace("{tool}", result)
