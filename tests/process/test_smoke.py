"""The scripted scenarios of updates: each fault that is planted in an adapter fails its own scenario and no other."""

import shutil
import textwrap
from pathlib import Path

import pytest

from agentforge.engine.adapters import AdapterStore
from agentforge.environments import Environment, EnvironmentRequest, Environments
from agentforge.frameworks import Catalogue, Release
from agentforge.lifecycle.smoke import SCENARIOS, smoke

PYTHON = Path(__file__).parents[2] / "packages/adapters/agentforge_adapters/python"
BODIES = {
    "tool-rounds": """
        def __init__(self, spec):
            said = spec.instructions.replace("{branch}", "Bern")
            Loop.__init__(self, dataclasses.replace(spec, instructions=said))
    """,
    "settings": """
        async def _ask(self, messages, ctx):
            self._request["top_p"] = 1.0
            return await Loop._ask(self, messages, ctx)
    """,
    "arguments": """
        async def _call_tools(self, answer, ctx):
            for call in answer.tool_calls:
                if "labels" in call["arguments"]:
                    call["arguments"]["labels"] = call["arguments"]["labels"][:1]
            return await Loop._call_tools(self, answer, ctx)
    """,
    "parallel-calls": """
        async def _call_tools(self, answer, ctx):
            told = await Loop._call_tools(self, answer, ctx)
            return told[:1]
    """,
    "streaming": """
        async def _ask(self, messages, ctx):
            self._request["stream"] = False
            return await Loop._ask(self, messages, ctx)
    """,
    "history": """
        async def run(self, request, ctx):
            return await Loop.run(self, dataclasses.replace(request, messages=[]), ctx)
    """,
    "structured-output": """
        def _output(self, text):
            return text
    """,
}
ADAPTER = """
import dataclasses
from .adapter import Loop, PythonAdapter

class Faulty(Loop):
{body}

class FaultyAdapter(PythonAdapter):
    def build(self, spec, ctx):
        return Faulty(spec)
"""


@pytest.fixture
async def environment(home: Path) -> Environment:
    """Plain Python, of which each adapter of this module makes a framework."""
    environments = Environments(home)
    release = Catalogue.discover(has_interpreter=environments.interpreters.exists).resolve("python")
    return await environments.ensure(EnvironmentRequest.for_release(release, await environments.lock(release)))


def release_of(folder: Path, adapter: str, code: str = "") -> Release:
    shutil.copytree(PYTHON, folder, ignore=shutil.ignore_patterns("__pycache__"))
    manifest = (folder / "framework.toml").read_text()
    manifest = manifest.replace('name = "python"', 'name = "faulty"').replace("adapter:PythonAdapter", adapter)
    (folder / "framework.toml").write_text(manifest)
    if code:
        (folder / adapter.partition(":")[0]).with_suffix(".py").write_text(code)
    return Catalogue.discover([folder]).resolve("faulty")


async def test_a_sound_adapter_passes_them_all(environment: Environment, tmp_path: Path) -> None:
    release = release_of(tmp_path / "sound", "adapter:PythonAdapter")
    found = [each async for each in smoke(environment, release, AdapterStore(tmp_path / "adapters"), "standard")]
    assert [(each.scenario, each.state, each.message) for each in found] == [
        (each.name, "passed", "") for each in SCENARIOS
    ]


@pytest.mark.feature("AF-012")
@pytest.mark.parametrize("scenario", [each.name for each in SCENARIOS])
async def test_each_scenario_can_fail(environment: Environment, tmp_path: Path, scenario: str) -> None:
    body = textwrap.indent(textwrap.dedent(BODIES[scenario]), "    ")
    text = ADAPTER.format(body=body)
    release = release_of(tmp_path / "faulty", "faulty:FaultyAdapter", text)
    found = [each async for each in smoke(environment, release, AdapterStore(tmp_path / "adapters"), "standard")]
    failed = {each.scenario: each.message for each in found if each.state == "failed"}
    assert list(failed) == [scenario], failed
    assert failed[scenario]


async def test_what_the_manifest_does_not_call_full_is_left_out_and_a_worker_that_can_not_start_is_told(
    environment: Environment, tmp_path: Path
) -> None:
    folder = tmp_path / "faulty"
    release_of(folder, "nowhere:FaultyAdapter", "raise ImportError('no such thing')\n")
    manifest = (folder / "framework.toml").read_text()
    (folder / "framework.toml").write_text(
        manifest.replace('[capabilities.threads]\nlevel = "full"', '[capabilities.threads]\nlevel = "todo"')
    )
    release = Catalogue.discover([folder]).resolve("faulty")
    store = AdapterStore(tmp_path / "adapters")
    (found,) = [each async for each in smoke(environment, release, store, "standard")]
    assert (found.scenario, found.state) == ("start", "failed")
    assert "no such thing" in found.message
    (folder / "nowhere.py").write_text("from .adapter import PythonAdapter as FaultyAdapter\n")
    release = Catalogue.discover([folder]).resolve("faulty")
    states = {each.scenario: each async for each in smoke(environment, release, store, "standard")}
    assert (states["history"].state, states["history"].message) == ("skipped", "`threads` is todo")
    assert states["tool-rounds"].state == "passed"
