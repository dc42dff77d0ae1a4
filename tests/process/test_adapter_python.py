"""The `python` adapter: the suite for portable agents, and functions as native agents."""

import pytest

from agentforge_conformance.adapter import AdapterSuite


@pytest.mark.framework("python")
class TestPython(AdapterSuite):
    reference = "python"
