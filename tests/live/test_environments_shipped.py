"""A shipped lock against the real package index."""

import asyncio
import json
from pathlib import Path

import pytest

from agentforge.environments import EnvironmentRequest, Environments
from agentforge.frameworks import Catalogue

_ASK = """
import importlib.metadata as m, json
print(json.dumps({d.name.lower().replace("_", "-").replace(".", "-"): d.version for d in m.distributions()}))
"""


@pytest.mark.feature("AF-003")
async def test_the_shipped_langchain_lock_installs_whole_with_its_hashes(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    release = Catalogue.discover().resolve("langchain@1")
    lock = await environments.lock(release)
    environment = await environments.ensure(EnvironmentRequest.for_release(release, lock))
    process = await asyncio.create_subprocess_exec(
        environment.python, "-I", "-c", _ASK, stdout=asyncio.subprocess.PIPE, env={}
    )
    out, _ = await process.communicate()
    markers = environments.interpreters.find(release.python).markers
    assert json.loads(out) == {package.name: package.version for package in lock.packages_for(markers)}
    assert json.loads(out)["langchain"] == release.version
