"""The suite for the one release that `agentforge_conformance.try_release` is told. Collected by pytest."""

from pathlib import Path

import pytest
import pytest_asyncio

from agentforge.frameworks import Release
from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.try_release import PLUGIN

__all__ = ["TestRelease"]


class TestRelease(AdapterSuite):
    """Every test of the suite."""

    @pytest.fixture(scope="class")
    @classmethod
    def release(cls, pytestconfig: pytest.Config) -> Release:
        """The release under test."""
        release: Release = pytestconfig.pluginmanager.get_plugin(PLUGIN).release  # type: ignore[union-attr]
        return release

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def python(cls, pytestconfig: pytest.Config) -> Path:  # type: ignore[override]
        """The interpreter of its environment, which is built already."""
        python: Path = pytestconfig.pluginmanager.get_plugin(PLUGIN).python  # type: ignore[union-attr]
        return python
