"""Agent versions and threads: what a run executes is fixed when it starts; a thread goes on where it was."""

import asyncio

import pytest

from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import Project

TOOLS = '''
def price(item: str) -> int:
    """Return a price."""
    return {price}
'''


@pytest.mark.feature("AF-074")
async def test_editing_a_tool_changes_the_version_and_a_run_that_has_started_keeps_its_code(project: Project) -> None:
    project.with_tools("shop", TOOLS.format(price=1), "price")
    call = Step(calls=[CalledTool("price", {"item": "pen"})])
    held = Step(calls=[CalledTool("price", {"item": "ink"})], barrier=2)
    project.model.script("twice", call, held, Step(text="{tool}"), per="conversation")
    first = await project.detached("shop", "x", "--model", "openai:script:twice")
    async with asyncio.timeout(60):
        await project.model.wait_for_requests(2)  # the first tool call is over, the second one is held back
    project.with_tools("shop", TOOLS.format(price=2), "price")
    second = await project.run("shop", "x", "--model", "openai:script:twice")  # lets the first one go on
    ended = await project.ended(first)
    assert [each["result"] for each in ended["tool_calls"]] == [1, 1]
    assert [each["result"] for each in second["tool_calls"]] == [2, 2]
    assert second["agent_version"] != ended["agent_version"]


async def test_the_same_content_is_the_same_version_wherever_it_is(project: Project) -> None:
    tools = TOOLS.format(price=1)
    first = await project.run(project.with_tools("shop", tools, "price"))
    again = await project.run("shop", "something else")
    project.write("elsewhere/shop/tools.py", tools)
    project.write("elsewhere/shop/agent.yaml", (project.root / "shop/agent.yaml").read_text())
    moved = await project.run("elsewhere/shop")
    assert first["agent_version"] == again["agent_version"] == moved["agent_version"]
    edited = await project.run(project.agent("shop", instructions="Answer well.", tools=[{"python": "tools.py:price"}]))
    assert edited["agent_version"] != first["agent_version"]


@pytest.mark.feature("AF-077")
@pytest.mark.framework("langchain")
async def test_a_thread_goes_on_with_what_was_said_on_any_framework(project: Project) -> None:
    agent = project.agent()
    assert (await project.run(agent, "my name is Ada", "--thread", "t"))["thread"] == "t"
    await project.run(agent, "what is my name?", "--thread", "t", "--on", "langchain")
    await project.run(agent, "and again?", "--thread", "t")
    await project.run(agent, "hello", "--thread", "other")
    said = [
        [(message["role"], message["content"]) for message in request.json["messages"] if message["role"] != "system"]
        for request in project.model.requests
    ]
    one = [("user", "my name is Ada"), ("assistant", "FINAL: my name is Ada")]
    two = [("user", "what is my name?"), ("assistant", "FINAL: what is my name?")]
    assert said[0] == one[:1]
    assert said[1] == [*one, two[0]]
    assert said[2] == [*one, *two, ("user", "and again?")]
    assert said[3] == [("user", "hello")]


async def test_a_failed_run_leaves_its_thread_as_it_was(project: Project) -> None:
    agent = project.agent()
    failed = await project.run(agent, "lost", "--thread", "t", "--model", "openai:fail-401")
    assert failed["status"] == "failed"
    await project.run(agent, "kept", "--thread", "t")
    texts = [message["content"] for message in project.model.requests[-1].json["messages"]]
    assert "lost" not in texts
    assert "kept" in texts


async def test_a_thread_without_a_usable_name_is_refused(project: Project) -> None:
    result = await project.run(project.agent(), "x", "--thread", "a\nb")
    assert result["error"]["code"] == "AF707"
