"""The tools example on every tested release: the model calls the tool, the agent answers with what it said."""

from pathlib import Path

import pytest

from agentforge.frameworks import Catalogue, Release

from .project_world import Project

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLE = Path(__file__).parents[2] / "examples" / "tools"
QUESTION = "What do two pens cost?"
FIXED = {"langchain==1.4.7", "langchain==0.1.20", "crewai==0.86.0", "haystack==3.4.0"}
"""The part that `make test` runs; suites of the other newest releases are in `make test` too."""


def releases(*, tools: bool) -> list[object]:
    """Return the tested releases that have tools, or have none; those that no fixed part has are for the matrix."""
    catalogue = Catalogue.discover()
    found = [release for name in catalogue.names() for release in catalogue.releases(name) if release.distribution]
    return [_param(each) for each in found if (each.traits.capability("tools").level != "absent") is tools]


def _param(release: Release) -> object:
    if release.traits.capability("tools").level == "absent":
        return pytest.param(release.reference, id=release.reference)  # nothing is built for it
    marks = [pytest.mark.framework(release.reference)]
    if release.reference not in FIXED:
        marks.append(pytest.mark.matrix)
    return pytest.param(release.reference, marks=marks, id=release.reference)


@pytest.mark.feature("AF-002")
@pytest.mark.parametrize("reference", releases(tools=True))
async def test_the_tools_example_calls_its_tool_and_answers(shared_project: Project, reference: str) -> None:
    asked = len(shared_project.model.requests)
    result = await shared_project.run(str(EXAMPLE), QUESTION, "--on", reference, patience_s=300)
    assert result["status"] == "succeeded", result["error"]
    assert f"{result['framework']}=={result['release']}" == reference
    assert result["tool_calls"] == [{"name": "price_of", "arguments": {"article": "pen", "count": 2}, "result": 3.5}]
    assert result["output"] == "FINAL: tool said 3.5"
    requests = shared_project.model.requests[asked:]
    assert len(requests) >= 2
    assert QUESTION in requests[0].body.decode()
    assert "3.5" in requests[1].body.decode()


@pytest.mark.parametrize("reference", releases(tools=False))
async def test_a_release_without_tools_says_so_before_anything_starts(own_project: Project, reference: str) -> None:
    """In words of its manifest, with a release of the framework that has them."""
    name = reference.partition("==")[0]
    done = await own_project.command("run", str(EXAMPLE), QUESTION, "--on", reference)
    assert done.code == 1
    assert "error[AF211]" in done.err
    assert "The agent `shop` has tools" in done.err
    assert "no agent that calls tools" in done.err
    assert f"Take a release that can: `{name}==" in done.err
    result = await own_project.run(str(EXAMPLE), QUESTION, "--on", reference)
    assert (result["status"], result["error"]["code"]) == ("failed", "AF211")
    assert own_project.model.requests == []
    assert await own_project.workers() == []
