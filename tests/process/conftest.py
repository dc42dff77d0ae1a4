"""What tests with real processes share: the environments of this machine, and a project for each test."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from agentforge_conformance.capabilities import capability_of

from .project_world import Project, open_project
from .worker_world import pythons, runs

_REPOSITORY = Path(__file__).parents[2]
_BUILD_TIMEOUT_S = 600


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the suite of adapters; give time to those that need an environment: the first one builds it."""
    for item in items:
        if capability_of(getattr(item, "function", None)):
            item.add_marker(pytest.mark.conformance)
        if item.get_closest_marker("framework") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_BUILD_TIMEOUT_S))


@pytest.fixture(scope="session", autouse=True)
def home() -> Iterator[Path]:
    """The folder of built environments, kept between test runs: `$AGENTFORGE_TEST_HOME`, else in the repository.

    Nothing else of the caller's settings reaches a test.
    """
    folder = Path(os.environ.get("AGENTFORGE_TEST_HOME") or _REPOSITORY / ".agentforge-test").resolve()
    runtime = tempfile.mkdtemp(prefix="af-", dir="/tmp")  # short: sockets are below it
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AGENTFORGE_", "OPENAI_")):
                patch.delenv(name)
        patch.setenv("AGENTFORGE_HOME", str(folder))
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        patch.setenv("NO_COLOR", "1")
        patch.setenv("AGENTFORGE_HEALTH_INTERVAL_S", "0")  # no probe beside a test that does not ask for one
        yield folder
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture(autouse=True)
def frameworks(request: pytest.FixtureRequest, home: Path) -> None:
    """The environments of the frameworks that a test is marked with: built before its own clock starts."""
    for marker in request.node.iter_markers("framework"):
        build(marker.args[0], home)


@functools.cache
def build(reference: str, home: Path) -> None:
    """Build the environment of a framework where it is missing. Fixtures of a wider scope than a test's ask for it."""
    command = [Path(sys.executable).with_name("agentforge"), "env", "build", reference]
    variables = {**os.environ, "AGENTFORGE_HOME": str(home), "AGENTFORGE_HOST": "inline"}
    with tempfile.TemporaryDirectory() as project:
        subprocess.run(command, cwd=project, env=variables, check=True, timeout=_BUILD_TIMEOUT_S)


@pytest_asyncio.fixture
async def project(tmp_path: Path) -> AsyncIterator[Project]:
    """A project of the test's own."""
    async with open_project(tmp_path / "project") as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def own_project(tmp_path: Path) -> AsyncIterator[Project]:
    """A project of the test's own, in a module whose tests share a loop."""
    async with open_project(tmp_path / "project") as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_project(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Project]:
    """A project, its host and its workers for the tests of one module, which must leave them working."""
    async with open_project(tmp_path_factory.mktemp("shared") / "project") as opened:
        yield opened


@pytest.fixture(params=pythons(), ids=lambda path: path.parent.parent.name)
def python(request: pytest.FixtureRequest) -> Path:
    """Every Python that a worker may run in, one after the other."""
    if not runs(request.param):
        pytest.skip("this Python was built without ssl or sqlite3")
    return Path(request.param)
