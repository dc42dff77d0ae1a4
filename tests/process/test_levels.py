"""Levels of the sandbox as a user meets them: who asks, who demands, what is in force, what is refused."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentforge import AgentForgeError, Forge
from agentforge.sandbox import probe

from .project_world import Project

LOOKS = """
import os

def agent(input, ctx):
    here = ctx.workspace
    with open(os.path.join(here, "mine"), "w") as file:
        file.write("x")
    return {"home": os.environ["HOME"], "here": here, "finds": os.path.exists(input)}
"""


@pytest.mark.feature("AF-146")
@pytest.mark.parametrize("level", ["standard", "strict", "none"])
async def test_the_level_that_was_in_force_stands_in_the_result_and_its_events(project: Project, level: str) -> None:
    project.write("agentforge.toml", f'[sandbox]\nlevel = "{level}"\n')
    agent = project.native("looking", LOOKS)
    result = await project.run(agent, "x")
    assert (result["error"], result["sandbox"]) == (None, level)
    assert (result["output"]["home"] == "/home/agent") == (level != "none")
    events = (await project.command("runs", "events", result["run_id"], "--json")).objects
    said = {each["kind"]: each["data"].get("sandbox") for each in events}
    assert (said["run.started"], said["attempt.started"]) == (level, level)


async def test_strict_runs_share_nothing(project: Project) -> None:
    strict = project.native("looking", LOOKS)
    project.write("agentforge.toml", '[sandbox]\nlevel = "strict"\n')
    first = (await project.run(strict, "x"))["output"]
    assert Path(first["here"], "mine").read_text() == "x"
    assert not (await project.run(strict, first["here"]))["output"]["finds"]
    assert await project.workers() == [], "a worker ends with its one run"
    project.write("agentforge.toml", '[sandbox]\nlevel = "standard"\n')
    assert (await project.run(strict, first["here"]))["output"]["finds"], "else the test can't fail"
    assert len(await project.workers()) == 1


@pytest.mark.feature("AF-146")
async def test_an_agent_does_not_get_less_than_its_project_demands(project: Project) -> None:
    project.write("agentforge.toml", '[sandbox]\nminimum = "standard"\n')
    agent = project.agent("weak", sandbox="none")
    refused = await project.command("run", agent, "x")
    assert refused.code == 1
    assert "AF441" in refused.err
    assert "hint:" in refused.err
    assert (await project.run(project.agent("strong", sandbox="strict"), "x"))["sandbox"] == "strict"


@pytest.mark.feature("AF-146")
async def test_nothing_gets_less_than_the_policy_of_the_machine_demands(project: Project, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[sandbox]\nminimum = "standard"\n')
    project.variables["AGENTFORGE_POLICY"] = str(policy)
    project.variables["AGENTFORGE_SANDBOX_LEVEL"] = "none"
    refused = await project.command("run", project.agent(), "x")
    assert refused.code == 1
    assert "AF441" in refused.err
    assert str(policy) in refused.err
    project.variables["AGENTFORGE_SANDBOX_LEVEL"] = "standard"
    assert (await project.run(project.agent(), "x"))["sandbox"] == "standard"


async def test_a_policy_that_is_named_and_missing_is_an_error(project: Project, tmp_path: Path) -> None:
    project.variables["AGENTFORGE_POLICY"] = str(tmp_path / "nowhere.toml")
    refused = await project.command("run", project.agent(), "x")
    assert refused.code != 0
    assert "nowhere.toml" in refused.err
    assert "Traceback" not in refused.err


@pytest.fixture
def no_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(probe, "_programs", list)
    probe._found.cache_clear()
    yield
    probe._found.cache_clear()


@pytest.mark.feature("AF-146")
@pytest.mark.usefixtures("no_sandbox")
async def test_without_a_sandbox_runs_are_refused_unless_the_project_does_without(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    for name, value in {**project.variables, "AGENTFORGE_HOST": "inline"}.items():
        monkeypatch.setenv(name, value)
    agent = project.agent()
    async with Forge() as forge:
        with pytest.raises(AgentForgeError) as caught:
            await forge.run(agent, "x")
    assert caught.value.code == "AF440"
    assert 'level = "none"' in caught.value.hint
    project.write("agentforge.toml", '[sandbox]\nlevel = "none"\n')
    async with Forge() as forge:
        result = await forge.run(agent, "x")
    assert (result.status, result.sandbox) == ("succeeded", "none")
    assert not os.environ.get("AGENTFORGE_POLICY")
