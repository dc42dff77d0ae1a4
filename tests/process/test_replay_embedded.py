"""A run on the embedded model, executed again from its journal alone."""

import shutil
from pathlib import Path

import pytest

from .project_world import EXAMPLE, Project, open_project

pytestmark = [pytest.mark.timeout(300), pytest.mark.feature("AF-081"), pytest.mark.framework("langchain")]


@pytest.fixture
async def project(tmp_path: Path):
    async with open_project(tmp_path / "project") as opened:
        opened.variables.clear()
        shutil.copytree(EXAMPLE, opened.root / "expenses", dirs_exist_ok=True)
        yield opened


async def test_a_run_on_the_embedded_model_is_the_same_again_and_an_edited_one_is_not(project: Project) -> None:
    done = await project.command(
        "run", "expenses", "How much was travel?", "--on", "langchain", "--model", "local", "--json", patience_s=200
    )
    assert done.code == 0, done
    run = done.result
    again = (await project.command("runs", "replay", run["run_id"], "--json")).result
    assert (again["same"], again["output_same"], again["divergence"]) == (True, True, None), again
    assert again["replayed"] == again["effects"] == 3
    agent = project.root / "expenses" / "agent.yaml"
    text = agent.read_text()
    assert "Use the tools" in text
    agent.write_text(text.replace("Use the tools", "Use your tools"))
    edited = await project.command("runs", "replay", run["run_id"], "--agent", "expenses", "--json")
    assert edited.code == 1
    divergence = edited.result["divergence"]
    assert (edited.result["same"], divergence["effect"], divergence["kind"]) == (False, 0, "model")
    (change,) = divergence["diff"]
    assert change["path"] == "$.messages[0].content"
    assert "Use your tools" in change["after"]
    listed = (await project.command("runs", "list", "--json")).objects
    assert [each["run_id"] for each in listed] == [run["run_id"]]
