"""Agent files and agentforge.toml that nobody would write: read, or refused with a code, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentforge.config import AgentFile, ProjectConfig, load_agent, load_agent_value, load_project
from agentforge.errors import AgentForgeError

AGENT = """name: expenses
instructions: |
  Answer.
model: default
settings: {temperature: 0.5, max_tokens: 100}
output: &schema {type: object, properties: {total: {type: number}}}
limits: {steps: 5, time_s: 60, memory_mib: 512}
framework: [langchain, crewai@1]
network: ["api.example.com:443"]
permissions: {read: [data], network: ["a.example:1"], secrets: [KEY], code: ask}
sandbox: strict
files: ["*.py"]
"""
PROJECT = """
[models.default]
provider = "openai"
model = "gpt-5-mini"
api_key = "${env:OPENAI_API_KEY}"
[sandbox]
level = "standard"
reads = ["/opt/data"]
[limits]
memory_mib = 512
[limits.frameworks.crewai]
processes = 10
[queue]
max_queued = 5
"""
INTO = st.sampled_from(
    [*"&*!|>%@`'\"[]{},:#-?\t\0\x85\u2028\ufeff", "<<: ", "? ", "---\n", "...\n", "!!python/object:os.system "]
)
quietly = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)


def read_agent(folder: Path, text: str | bytes) -> None:
    """Read an agent file; raises whatever is not an error with a code."""
    file = folder / "agent.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    refused(lambda: load_agent(file))


def read_project(folder: Path, text: str | bytes) -> None:
    (folder / "agentforge.toml").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    refused(lambda: load_project(folder, {}))


def refused(load: Any) -> None:
    wrong = None
    try:
        load()
    except AgentForgeError as error:
        wrong = error
    if wrong is not None:
        assert wrong.code.startswith("AF1"), wrong
        assert 0 < len(wrong.message) < 20_000


def spoiled(text: str) -> st.SearchStrategy[str]:
    """A text with a few things in it changed."""
    change = st.tuples(st.integers(0, len(text)), st.integers(0, 12), INTO | st.text(max_size=3))

    def made(changes: list[tuple[int, int, str]]) -> str:
        result = text
        for place, left_out, put_in in changes:
            result = result[:place] + put_in + result[place + left_out :]
        return result

    return st.lists(change, min_size=1, max_size=5).map(made)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


def keys_of(model: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Any values under the keys that a file has."""
    return st.dictionaries(st.sampled_from(sorted(model.model_fields)) | st.text(max_size=5), values, max_size=5)


@quietly
@given(st.binary(max_size=300))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    read_agent(tmp_path, data)
    read_project(tmp_path, data)


@quietly
@given(spoiled(AGENT))
def test_an_agent_file_that_is_nearly_right(tmp_path: Path, text: str) -> None:
    read_agent(tmp_path, text)


@quietly
@given(spoiled(PROJECT))
def test_a_project_file_that_is_nearly_right(tmp_path: Path, text: str) -> None:
    read_project(tmp_path, text)


@quietly
@given(keys_of(AgentFile))
def test_an_agent_with_any_values(tmp_path: Path, agent: dict[str, Any]) -> None:
    agent = {"name": "a", "instructions": "b", **agent}
    read_agent(tmp_path, json.dumps(agent))
    refused(lambda: load_agent_value(agent, tmp_path))


toml_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)
tables = st.dictionaries(st.text(max_size=8), toml_values, max_size=3)
sections = st.sampled_from(sorted(ProjectConfig.model_fields)) | st.text(max_size=5)


@quietly
@given(
    st.dictionaries(sections, toml_values | st.dictionaries(st.text(max_size=8), toml_values, max_size=3), max_size=4)
)
def test_a_project_with_any_values(tmp_path: Path, config: dict[str, Any]) -> None:
    try:
        text = tomli_w.dumps(config)
    except (ValueError, TypeError, UnicodeEncodeError):
        return
    read_project(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{" * 10_000,
        "a: " * 10_000,
        "- " * 50_000,
        "? " * 5000,
        "a: &a [*a, *a]\n",
        "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 1}]\n" for n in range(12)),
        "".join(
            f"l{n}: &l{n}\n  <<: [{', '.join([f'*l{n - 1}'] * 9)}]\n" if n else "l0: &l0 {a: 1}\n" for n in range(12)
        ),
        "name: !!python/object/apply:os.system [true]\n",
        "name: " + "9" * 10_000 + "\n",
        "name: 1e" + "9" * 400 + "\n",
        "name: 2026-99-99\n",
        "name: " + ":".join(["59"] * 3000) + "\n",
        "name: 0x" + "f" * 100_000 + "\n",
        "\x00name: a",
        "name: a\n" * 2000,
        "%YAML 9.9\n---\nname: a\n",
        "---\nname: a\n---\nname: b\n",
        "name: \ud800\n",
        "x" * 2_000_000,
    ],
    ids=lambda text: text[:12].replace("\n", " "),
)
def test_an_agent_file_that_means_harm_is_refused_soon(tmp_path: Path, text: str) -> None:
    read_agent(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "{a = " * 10_000,
        "[" + ".".join(["a"] * 20_000) + "]\n",
        "a = " + "9" * 10_000,
        "a = 1e" + "9" * 400,
        "a = 9999-99-99",
        'a = """' + "x" * 2_000_000,
        "".join(f"[a{n}]\n" for n in range(20_000)),
        "a.b = 1\na.b.c = 2",
        "\x00",
    ],
    ids=lambda text: text[:12].replace("\n", " "),
)
def test_a_project_file_that_means_harm_is_refused_soon(tmp_path: Path, text: str) -> None:
    read_project(tmp_path, text)


@pytest.mark.parametrize("text", ['"[key]" = {}\n', "[durability]\n['[key]']\n"])
def test_a_key_that_pydantic_has_a_use_for_is_unknown_all_the_same(tmp_path: Path, text: str) -> None:
    (tmp_path / "agentforge.toml").write_text(text)
    with pytest.raises(AgentForgeError, match=r"`\[key\]` is not a known key"):
        load_project(tmp_path, {})


def test_half_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AgentForgeError):
        load_agent_value({"name": "x", "instructions": "y", "requirements": ["\ud800"]}, tmp_path)
