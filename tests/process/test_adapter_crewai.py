"""The CrewAI adapter."""

import pytest

from agentforge_conformance.adapter import AdapterSuite


@pytest.mark.framework("crewai")
class TestCrewAI(AdapterSuite):
    reference = "crewai"
    unlike_native = frozenset({"headers.user-agent", "headers.x-stainless-async"})
