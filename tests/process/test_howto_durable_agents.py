"""`docs/howto/write-durable-agents.md`: its functions do what the page says, and the same again in another attempt."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agentforge.frameworks import Catalogue
from agentforge_conformance.lab import Lab, built_python, open_lab
from agentforge_worker.wire import ErrorCode, Method, RpcError

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.framework("python")]

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "write-durable-agents.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
ASKS = "from page_send import send\n\ndef asks(input, ctx):\n    return send(input)\n"
"""Calls the page's tool as a framework would: in a thread."""

AGENTS: dict[str, tuple[Any, list[str]]] = {
    "lottery": ("", ["value.take", "value.take"]),
    "order": (2, []),
    "refund": (30, ["question.ask", "question.ask"]),
    "report": ("", ["checkpoint.save"]),
    "review": ("A claim.", ["run.call", "run.call", "run.call"]),
    "lucky": ("", []),
    "asks": ("Hi", ["question.ask"]),
}
"""The input of each function of the page, and what it asks the host for."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab() -> AsyncIterator[Lab]:
    release = Catalogue.discover().resolve("python")
    async with open_lab(release, await built_python(release)) as lab:
        yield lab


@pytest.fixture(scope="module")
def folder(lab: Lab) -> Path:
    """The page's blocks as modules, each under the names of its functions."""
    folder = lab.place()
    for block in BLOCKS:
        for name in re.findall(r"^(?:async )?def (\w+)\(", block, re.MULTILINE):
            (folder / f"page_{name}.py").write_text(block)
    (folder / "page_asks.py").write_text(ASKS)
    return folder


async def test_every_agent_of_the_page_is_tried() -> None:
    shown = {name for block in BLOCKS for name in re.findall(r"^async def (\w+)\(input, ctx\)", block, re.MULTILINE)}
    assert shown == set(AGENTS) - {"asks"}


@pytest.mark.parametrize("name", AGENTS)
async def test_an_agent_of_the_page_does_the_same_in_every_attempt(lab: Lab, folder: Path, name: str) -> None:
    lab.trial.answers.update({"Refund 30 EUR?": "yes", "Why?": "late", "Send 'Hi'?": "no"})
    agent = await lab.open_native(folder, f"page_{name}:{name}")
    text, asked = AGENTS[name]
    first = await lab.run(agent, text)
    again = await lab.run(agent, text, run=lab.trial.prepare_again(first))
    assert first.result is not None
    assert again.result is not None
    assert again.result["output"] == first.result["output"]
    for run in (first, again):
        assert [method for method, _ in run.asked] == asked


async def test_what_the_agents_of_the_page_say(lab: Lab, folder: Path) -> None:
    lab.trial.answers.update({"Refund 30 EUR?": "yes", "Why?": "late", "Send 'Hi'?": "no"})
    said = {}
    for name, (text, _) in AGENTS.items():
        run = await lab.run(await lab.open_native(folder, f"page_{name}:{name}"), text)
        assert run.result is not None
        said[name] = run.result["output"]
    assert said["lottery"]["day"] == "2023-11-14"
    assert len(set(said["lottery"]["numbers"])) == 6
    assert said["order"]["receipt"].startswith("paid under run-")
    assert said["refund"] == "refunded: late"
    assert said["report"] == "travel: 412.5"
    assert said["review"] == ["A claim.", "A claim."]
    assert said["lucky"] in range(1, 7)
    assert said["asks"] == "no"


async def test_an_agent_of_the_page_waits_for_its_human(lab: Lab, folder: Path) -> None:
    lab.trial.answers.clear()
    agent = await lab.open_native(folder, "page_refund:refund")
    run = lab.trial.prepare()
    with pytest.raises(RpcError) as caught:
        await lab.run(agent, 30, run=run)
    assert caught.value.code == ErrorCode.CANCELLED
    ((method, question),) = run.asked
    assert (method, question["options"], question["timeout_s"]) == (Method.QUESTION_ASK, ["yes", "no"], 3600)
    assert (question["default"], question["has_default"]) == ("no", True)
