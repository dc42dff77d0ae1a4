"""Which framework an agent runs on: what its file names, what the command names, and never another one than its own."""

import os
from pathlib import Path
from typing import Any

import pytest

from agentforge.config import AgentDefinition, load_agent_value
from agentforge.engine.preparing import reference_of
from agentforge.errors.runs import AutoUnavailable, NativeElsewhere

PORTABLE = {"name": "mine", "instructions": "Answer."}
NATIVE = {"name": "mine", "native": {"framework": "pydantic-ai@2", "entrypoint": "agents:agent"}}


def agent(folder: Path, **said: Any) -> AgentDefinition:
    (folder / "agents.py").touch()
    return load_agent_value(said, os.fspath(folder))


def test_a_portable_agent_runs_where_the_command_says(tmp_path: Path) -> None:
    portable = agent(tmp_path, **PORTABLE, framework="haystack")
    assert [reference_of(portable, on) for on in (None, "langchain@1")] == ["haystack", "langchain@1"]
    with pytest.raises(AutoUnavailable):
        reference_of(agent(tmp_path, **PORTABLE), None)


def test_a_native_agent_runs_on_every_release_of_its_own_framework(tmp_path: Path) -> None:
    native = agent(tmp_path, **NATIVE)
    given = (None, "pydantic-ai", "pydantic-ai@2", "pydantic-ai==2.68.0")
    assert [reference_of(native, on) for on in given] == ["pydantic-ai@2", *given[1:]]


@pytest.mark.parametrize("on", ["langchain", "langchain@1", "pydantic==2.68.0"])
def test_a_native_agent_is_refused_on_another_framework(tmp_path: Path, on: str) -> None:
    with pytest.raises(NativeElsewhere) as caught:
        reference_of(agent(tmp_path, **NATIVE), on)
    for said in ("`mine`", "`agents:agent`", "`pydantic-ai`", f"`{on}`"):
        assert said in caught.value.message
    assert "`--on pydantic-ai==VERSION`" in caught.value.hint
