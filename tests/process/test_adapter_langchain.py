"""The LangChain adapter."""

import pytest

from agentforge_conformance.adapter import AdapterSuite


@pytest.mark.framework("langchain")
class TestLangChain(AdapterSuite):
    reference = "langchain"
