from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agentforge.config import load_agent, load_agent_value, reading, snapshot
from agentforge.config.yaml_source import parse_yaml
from agentforge.errors.config import ConfigError, FileMissingError

FULL = """\
name: expenses
description: Answers questions about an expense report.
instructions: You answer questions about the expense report. Use the tools.
role: Accountant
goal: right totals
backstory: long experience
model: default
settings: {temperature: 0, max_tokens: 300, top_p: 1, stop: [], seed: 7}
tools:
  - python: tools.py:total_for
    idempotent: true
    approval: never
    timeout_s: 20
output: {type: object, properties: {total: {type: number}}, required: [total]}
limits: {steps: 12, time_s: 120, tokens: 20000, cost_usd: 0.05}
framework: langchain
requirements: []
network: []
sandbox: standard
"""
TOOLS = 'def total_for(category: str) -> float:\n    """Sum."""\n    return 1.0\n'
SMALL = "name: a\ninstructions: b\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "agent.yaml").write_text(FULL)
    return tmp_path


def loaded(folder: Path, text: str):
    (folder / "agent.yaml").write_text(text)
    return load_agent(folder / "agent.yaml")


def fault_of(act) -> ConfigError | None:
    """The error of ours that something raises; any other is a failure of the test."""
    try:
        act()
    except ConfigError as error:
        return error
    return None


def test_the_agent_file_of_the_contract_is_read(folder):
    agent = load_agent(folder / "agent.yaml")
    assert agent.name == "expenses"
    assert agent.path == folder / "agent.yaml"
    assert agent.base_dir == folder
    assert not agent.is_native
    assert agent.frameworks == ("langchain",)
    assert agent.settings == {"temperature": 0, "max_tokens": 300, "top_p": 1, "seed": 7}
    (tool,) = agent.tools
    assert (tool.file, tool.function, tool.known_as) == ("tools.py", "total_for", "total_for")
    assert (tool.idempotent, tool.approval, tool.timeout_s, tool.on_error) == (True, "never", 20, "fail")
    assert agent.file.output is not None
    assert agent.file.limits.cost_usd == 0.05
    assert agent.place("tools", 0, "python") == f"{folder / 'agent.yaml'}:10:13"


def test_what_is_not_said_has_its_default(folder):
    agent = loaded(folder, SMALL)
    assert agent.file.model == "default"
    assert agent.frameworks == ("auto",)
    assert agent.settings == {}
    assert (agent.tools, agent.file.sandbox, agent.file.files) == ((), None, None)
    agent = loaded(folder, SMALL + "tools: [{python: tools.py:total_for}]\n")
    assert (agent.tools[0].timeout_s, agent.tools[0].idempotent, agent.tools[0].on_error) == (60, False, "fail")


@pytest.mark.feature("AF-148")
def test_a_tool_may_be_code_that_the_model_writes(folder):
    agent = loaded(folder, SMALL + "tools: [{code: python}, {code: python, name: sandbox, on_error: fail}]\n")
    first, second = agent.tools
    assert (first.code, first.known_as, first.timeout_s, first.idempotent) == ("python", "run_python", 60, False)
    assert (first.on_error, second.on_error, second.known_as) == ("tell", "fail", "sandbox")
    assert (first.file, first.function, agent.functions) == ("", "", ())
    again = load_agent_value(agent.spec(), folder)
    assert again.spec() == agent.spec()
    assert again.tools == agent.tools


def test_an_agent_whose_tools_are_all_code_is_its_file_alone(folder):
    (folder / "other.txt").write_text("not the agent's")
    assert set(snapshot(loaded(folder, SMALL + "tools: [{code: python}]\n")).files) == {"agent.yaml"}
    mixed = loaded(folder, SMALL + "tools: [{code: python}, {python: tools.py:total_for}]\n")
    assert set(snapshot(mixed).files) == {"agent.yaml", "tools.py", "other.txt"}


def test_one_text_may_stand_for_a_list(folder):
    agent = loaded(folder, SMALL + "framework: [langchain@0.3, crewai==0.86.0]\nsettings: {stop: END}\n")
    assert agent.frameworks == ("langchain@0.3", "crewai==0.86.0")
    assert agent.settings == {"stop": ["END"]}


def test_a_native_agent_names_its_own_code(folder):
    text = "name: crew\nnative: {framework: crewai@1, entrypoint: my.crew:make, tools_idempotent: true}\n"
    agent = loaded(folder, text)
    assert agent.is_native
    assert agent.frameworks == ("crewai@1",)
    assert agent.file.native is not None
    assert agent.file.native.tools_idempotent


def test_a_folder_means_its_agent_file(folder):
    assert load_agent(folder) == load_agent(folder / "agent.yaml")
    (folder / "agent.yaml").rename(folder / "agent.yml")
    assert load_agent(str(folder)).name == "expenses"


def test_an_agent_may_be_given_as_a_value(folder):
    agent = load_agent_value(yaml.safe_load(FULL), folder)
    assert agent.path is None
    assert agent.file == load_agent(folder / "agent.yaml").file
    with pytest.raises(ConfigError) as caught:
        load_agent_value({"name": "a", "instructions": "b", "settings": {"temp": 1}}, folder)
    assert caught.value.message == "`agent`: `temp` is not a known key of `settings`"
    with pytest.raises(ConfigError) as caught:
        load_agent_value({"name": "a", "instructions": print}, folder)
    assert caught.value.code == "AF102"


def test_the_record_of_an_agent_says_everything_and_loads_again(folder):
    agent = load_agent(folder)
    spec = agent.spec()
    assert spec["settings"]["temperature"] == 0
    assert spec["tools"][0]["on_error"] == "fail"
    assert load_agent_value(spec, folder).spec() == spec


def test_a_changed_file_is_read_again_whatever_its_times_say(folder):
    agent_file = folder / "agent.yaml"
    for number in range(20):
        agent_file.write_text(SMALL.replace("b", str(number % 10) + "x"))
        assert load_agent(agent_file).file.instructions == str(number % 10) + "x"


def test_an_unchanged_file_is_read_once(folder, monkeypatch):
    monkeypatch.setattr(reading, "SETTLED_NS", 0)
    assert load_agent(folder / "agent.yaml") is load_agent(folder / "agent.yaml")


def test_a_relative_path_follows_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert load_agent("agent.yaml").base_dir == folder
    other = folder / "other"
    other.mkdir()
    (other / "agent.yaml").write_text(SMALL)
    monkeypatch.chdir(other)
    assert load_agent("agent.yaml").base_dir == other


def test_anchors_and_merges_are_plain_yaml(folder):
    text = """\
name: a
instructions: b
settings: &s {temperature: 0}
tools:
  - &t {python: "tools.py:total_for", idempotent: true}
limits:
  <<: {steps: 3, tokens: 5}
  tokens: 7
"""
    agent = loaded(folder, text)
    assert agent.file.limits.model_dump(exclude_none=True) == {"steps": 3, "tokens": 7}


def test_a_missing_file_names_those_with_similar_names(folder):
    with pytest.raises(FileMissingError) as caught:
        load_agent(folder / "agnt.yaml")
    assert caught.value.message == f"`{folder / 'agnt.yaml'}` does not exist"
    assert caught.value.hint == "The folder has `agent.yaml`."


def test_a_folder_without_an_agent_file_names_the_other_files(folder):
    (folder / "agent.yaml").rename(folder / "expenses.yaml")
    with pytest.raises(FileMissingError) as caught:
        load_agent(folder)
    assert caught.value.hint == f"Name the file: `{folder / 'expenses.yaml'}`."


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(FileMissingError, match="nor does its folder"):
        load_agent(tmp_path / "no" / "agent.yaml")


def test_functions_are_looked_for_without_running_code(folder):
    (folder / "tools.py").write_text(
        "raise SystemExit\n"
        "try:\n    from fast import one\nexcept ImportError:\n    def one(): ...\n"
        "two = lambda: 0\n"
        "class Three:\n    def four(self): ...\n"
    )
    for name in ("one", "two", "Three.four"):
        assert loaded(folder, SMALL + f"tools: [{{python: 'tools.py:{name}'}}]\n").tools[0].function == name
    with pytest.raises(ConfigError) as caught:
        loaded(folder, SMALL + "tools: [{python: 'tools.py:four'}]\n")
    assert caught.value.code == "AF114"


@pytest.mark.parametrize("code", ["from x import *\n", "globals()['f'] = 1\n", "def broken(:\n", "\0"])
def test_what_can_not_be_told_without_running_is_left_to_the_worker(folder, code):
    (folder / "tools.py").write_text(code)
    assert loaded(folder, SMALL + "tools: [{python: 'tools.py:f'}]\n").tools[0].known_as == "f"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=15,
)


@given(st.dictionaries(st.text(max_size=6), VALUES), st.booleans())
def test_yaml_is_read_as_the_safe_loader_reads_it_and_every_value_has_its_place(data, flow):
    text = yaml.safe_dump(data, default_flow_style=flow)
    source = parse_yaml(text, "x.yaml")
    assert repr(source.data) == repr(yaml.safe_load(text))
    assert set(source.values) == {(), *_paths(data)}


def _paths(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _paths(inner, (*path, key))


KEYS = st.sampled_from(["name", "instructions", "tools", "python", "settings", "native", "output", "framework", "x"])


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner), max_leaves=12))
def test_whatever_a_value_holds_is_an_agent_or_an_error_of_ours(tmp_path_factory, value):
    error = fault_of(lambda: load_agent_value(value if isinstance(value, dict) else {"name": value}, "/nowhere"))
    assert error is None or error.message


@given(st.text(st.characters(codec="utf-8"), max_size=60) | st.text(":-[]{}&*!|>#'\"%@ \n\tab", max_size=40))
def test_any_text_is_yaml_or_an_error_of_ours(text):
    error = fault_of(lambda: parse_yaml(text, "x.yaml"))
    assert error is None or error.message.startswith("`x.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: &a {<<: *a}",
        "a: &a {<<: {<<: *a}}",
        "a: " + "[" * 5000 + "]" * 5000,
        "a: &a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\n",
    ],
    ids=["itself", "inside itself", "merged into itself", "merge of a merge", "deep", "a billion laughs"],
)
def test_aliases_can_not_make_a_small_file_large(text):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "x.yaml")
    assert caught.value.code == "AF102"
