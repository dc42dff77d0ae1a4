"""Two releases of a framework that can't be installed together serve runs at the same time, in one host, fenced in."""

import asyncio
import re
from pathlib import Path

import aiohttp
import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from agentforge.frameworks import Catalogue
from agentforge_conformance.scripted_model import Step

from .project_world import PATIENCE_S, Project

EXAMPLE = Path(__file__).parents[2] / "examples" / "tools"
EACH = 3
"""Runs of each release."""
PAIRS = [
    pytest.param("langchain==0.1.20", "langchain@1", marks=[pytest.mark.framework("langchain==0.1.20"),
                                                            pytest.mark.framework("langchain")]),
    pytest.param("crewai==0.86.0", "crewai@1", marks=[pytest.mark.framework("crewai==0.86.0"),
                                                      pytest.mark.framework("crewai")]),
]  # fmt: skip


def locked(reference: str) -> dict[str, Version]:
    """Return the packages of a release's shipped lock with their versions."""
    release = Catalogue.discover().resolve(reference)
    assert release.lock_path is not None
    lines = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", release.lock_path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in lines}


@pytest.mark.feature("AF-002")
@pytest.mark.parametrize(("old", "new"), PAIRS)
async def test_conflicting_releases_serve_runs_at_the_same_time(project: Project, old: str, new: str) -> None:
    """No model request is answered before all runs have asked, and the workers of both were looked at."""
    ours, theirs = locked(old), locked(new)
    conflicts = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    assert {"openai", "pydantic-core"} <= conflicts, conflicts
    project.model.script("held", Step(gate=2 * EACH + 1))
    project.model.script("warm", Step(text="hello"))
    for reference in (old, new):  # their workers start one after the other: this machine may be small
        warm = await project.run(str(EXAMPLE), "hello", "--on", reference, variables={"AGENTFORGE_MODEL": "warm"})
        assert warm["status"] == "succeeded", warm["error"]
    project.variables["AGENTFORGE_MODEL"] = "held"
    before = len(project.model.requests)
    runs = [await project.detached(str(EXAMPLE), f"question {n}", "--on", on) for n in range(EACH) for on in (old, new)]
    async with asyncio.timeout(PATIENCE_S):
        await project.model.wait_for_requests(before + len(runs))
    busy = [worker for worker in await project.workers() if worker["runs"]]
    releases = {Catalogue.discover().resolve(reference).version for reference in (old, new)}
    assert {worker["environment"].split("-py")[0].rpartition("-")[2] for worker in busy} == releases
    assert sum(worker["runs"] for worker in busy) == len(runs)
    await asked(project)
    results = await asyncio.gather(*(project.ended(run) for run in runs))
    assert [each["status"] for each in results] == ["succeeded"] * len(runs), [each["error"] for each in results]
    assert [each["output"] for each in results] == ["FINAL: tool said 3.5"] * len(runs)
    assert [[call["result"] for call in each["tool_calls"]] for each in results] == [[3.5]] * len(runs)
    assert [each["release"] for each in results] == [results[0]["release"], results[1]["release"]] * EACH
    assert {each["release"] for each in results} == releases
    assert {each["sandbox"] for each in results} == {"standard"}


async def asked(project: Project) -> None:
    """Ask the model once ourselves: the last one that it waits for."""
    body = {"model": "held", "messages": [{"role": "user", "content": "Go on."}]}
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE_S):
        await (await session.post(f"{project.model.base_url}/chat/completions", json=body)).read()
