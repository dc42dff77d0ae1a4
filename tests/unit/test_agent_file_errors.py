"""What a user reads when an agent file is wrong: code, place, statement and hint, word for word."""

import pytest

from agentforge.config import load_agent
from agentforge.errors.config import ConfigError

SMALL = "name: a\ninstructions: b\n"
NATIVE = "name: a\nnative: {framework: crewai, entrypoint: m:f}\n"

CASES = {
    "empty": (
        "",
        "AF104",
        "1:1`: the file is empty",
        "Begin with `name: ...` and `instructions: ...`, one key a line.",
    ),
    "a list": (
        "- a\n",
        "AF104",
        "1:1`: the file is a list, not keys with values",
        "Begin with `name: ...` and `instructions: ...`, one key a line.",
    ),
    "bad yaml": (
        "name: a\ninstructions: b: c\n",
        "AF102",
        "2:16`: not valid YAML: mapping values are not allowed here, at `instructions: b: c`",
        "Check the indentation (spaces, no tabs), and quote text that has `: ` or ` #` in it.",
    ),
    "tab": (
        "name: a\nsettings:\n\ttemperature: 0\n",
        "AF102",
        "3:1`: not valid YAML: while scanning for the next token, found character '\\t' that cannot start any token,"
        " at `temperature: 0`",
        "Check the indentation (spaces, no tabs), and quote text that has `: ` or ` #` in it.",
    ),
    "a key twice": (
        SMALL + "name: c\n",
        "AF102",
        "3:1`: `name` is there twice",
        "Remove one of the two.",
    ),
    "a key that yaml takes for true": (
        SMALL + "on: langchain\n",
        "AF102",
        "3:1`: the key `on` is not text",
        'Put it in quotes: `"on"`.',
    ),
    "a tag": (
        "name: a\ninstructions: !!python/name:os.system\n",
        "AF102",
        "2:15`: the tag `tag:yaml.org,2002:python/name:os.system` is not known",
        "Remove the tag: agent files use plain YAML values.",
    ),
    "a control character": (
        "name: a\ninstructions: \x07\n",
        "AF102",
        "2:15`: the character `U+0007` is not allowed in YAML",
        "Remove the character.",
    ),
    "no name": (
        "instructions: b\n",
        "AF105",
        "1:1`: `name` is missing",
        "Add `name`: The agent's name: a letter, then letters, digits, `_` and `-`.",
    ),
    "neither form": (
        "name: a\n",
        "AF105",
        "1:1`: `instructions` is missing",
        "Add `instructions: ...`, or `native: {framework: ..., entrypoint: ...}` for your own code.",
    ),
    "both forms": (
        "name: a\ninstructions: b\nnative: {framework: crewai, entrypoint: m:f}\n",
        "AF112",
        "2:1`: `instructions` and `native` exclude each other",
        "Remove `instructions` (the code of a native agent says that itself), or remove `native`.",
    ),
    "unknown key": (
        SMALL + "instruction: c\n",
        "AF103",
        "3:1`: `instruction` is not a known key",
        "Did you mean `instructions`?",
    ),
    "unknown setting": (
        SMALL + "settings:\n  temperture: 0\n",
        "AF103",
        "4:3`: `temperture` is not a known key of `settings`",
        "Did you mean `temperature`?",
    ),
    "unknown key of a tool": (
        SMALL + "tools:\n  - python: tools.py:f\n    timeout: 3\n",
        "AF103",
        "5:5`: `timeout` is not a known key of `tools[0]`",
        "Did you mean `timeout_s`?",
    ),
    "a setting out of range": (
        SMALL + "settings: {temperature: 3}\n",
        "AF104",
        "3:25`: `settings.temperature` is `3`; expected 2 or less",
        "Randomness of the answer, from 0 (least) to 2.",
    ),
    "a number that yaml reads as text": (
        SMALL + "settings: {temperature: 1e-1}\n",
        "AF104",
        '3:25`: `settings.temperature` is `"1e-1"`; expected a number',
        "Randomness of the answer, from 0 (least) to 2.",
    ),
    "a word for a number": (
        SMALL + "limits: {steps: twelve}\n",
        "AF104",
        '3:17`: `limits.steps` is `"twelve"`; expected a whole number',
        "Most model calls of one run.",
    ),
    "no value": (
        SMALL + "model:\n",
        "AF104",
        "3:7`: `model` has no value; expected text",
        "Alias of a model of the project, `local`, or `provider:model`.",
    ),
    "true for text": (
        "name: yes\ninstructions: b\n",
        "AF104",
        "1:7`: `name` is `true`; expected text",
        'Put it in quotes if it is text: `"true"`.',
    ),
    "a name with spaces": (
        "name: my agent\ninstructions: b\n",
        "AF104",
        "1:7`: `name` is `my agent`, which can't be an agent's name",
        "Begin with a letter; use up to 64 letters, digits, `_` and `-`.",
    ),
    "a wrong choice": (
        SMALL + "sandbox: strickt\n",
        "AF104",
        '3:10`: `sandbox` is `"strickt"`; expected one of `strict`, `standard`, `none`',
        "Did you mean `strict`?",
    ),
    "a text for a list": (
        SMALL + "tools: tools.py:f\n",
        "AF104",
        '3:8`: `tools` is `"tools.py:f"`; expected a list',
        "What the agent can call: functions, and code that the model writes.",
    ),
    "a text for a tool": (
        SMALL + "tools: [tools.py:f]\n",
        "AF104",
        '3:9`: `tools[0]` is `"tools.py:f"`; expected keys with values',
        "What the agent can call: functions, and code that the model writes.",
    ),
    "a tool without function": (
        SMALL + "tools: [{python: tools.py}]\n",
        "AF104",
        "3:18`: `tools[0].python` is `tools.py`, which is not `file.py:function`",
        "Write the file, a colon and the function, for example `tools.py:total_for`.",
    ),
    "a tool outside of the folder": (
        SMALL + "tools: [{python: '../tools.py:f'}]\n",
        "AF104",
        "3:18`: `tools[0].python` is `../tools.py:f`, which leaves the agent's folder",
        "Move the file beside the agent file: an agent version holds its own folder only.",
    ),
    "a tool's missing file": (
        SMALL + "tools: [{python: tool.py:total_for}]\n",
        "AF114",
        "3:18`: `tool.py:total_for`: the file `tool.py` does not exist in `{folder}`",
        "The folder has `tools.py`.",
    ),
    "a tool's missing function": (
        SMALL + "tools: [{python: tools.py:total}]\n",
        "AF114",
        "3:18`: `tools.py:total`: the file `tools.py` has no function `total`",
        "Did you mean `total_for`?",
    ),
    "two tools of one name": (
        SMALL + "tools: [{python: tools.py:f}, {python: more.py:f}]\n",
        "AF104",
        "3:8`: `tools` has two tools called `f`",
        "Rename one: the model calls tools by name.",
    ),
    "two code tools": (
        SMALL + "tools: [{code: python}, {code: python}]\n",
        "AF104",
        "3:8`: `tools` has two tools called `run_python`",
        "Rename one: the model calls tools by name.",
    ),
    "a tool of no kind": (
        SMALL + "tools:\n  - idempotent: true\n",
        "AF105",
        "4:5`: `python` is missing",
        "Add `python: tools.py:my_function`, or `code: python` for a tool that runs the model's own code.",
    ),
    "a tool of both kinds": (
        SMALL + "tools:\n  - python: tools.py:f\n    code: python\n",
        "AF112",
        "5:5`: `python` and `code` exclude each other",
        "Make two tools of it: `- python: ...` and `- code: python`.",
    ),
    "a name for a function": (
        SMALL + "tools:\n  - python: tools.py:f\n    name: g\n",
        "AF112",
        "5:5`: `name` goes with `code` only: the model knows a function by its own name",
        "Remove `name`, or rename the function.",
    ),
    "code in another language": (
        SMALL + "tools: [{code: ruby}]\n",
        "AF104",
        '3:16`: `tools[0].code` is `"ruby"`; expected one of `python`',
        "Known: `python`.",
    ),
    "a code tool's name": (
        SMALL + "tools: [{code: python, name: 'run it'}]\n",
        "AF104",
        "3:30`: `tools[0].name` is `run it`, which can't be a tool's name",
        "Begin with a letter or `_`; use up to 64 letters, digits, `_` and `-`.",
    ),
    "a permission that there is not": (
        SMALL + "permissions: {code: always}\n",
        "AF104",
        '3:21`: `permissions.code` is `"always"`; expected one of `deny`, `ask`, `allow`',
        "Known: `allow`, `ask`, `deny`.",
    ),
    "a secret itself": (
        SMALL + "permissions: {secrets: [sk-0123456789012345678901]}\n",
        "AF104",
        "3:25`: `permissions.secrets[0]` is a text (not shown) that can't be the name of an environment variable",
        "Write the name of an environment variable, for example `STRIPE_KEY`; never the secret itself.",
    ),
    "a variable of ours as a secret": (
        SMALL + "permissions: {secrets: [LD_PRELOAD]}\n",
        "AF104",
        "3:25`: `permissions.secrets[0]` is `LD_PRELOAD`, a variable that decides how a worker runs",
        "Give the secret a name of its own, for example `STRIPE_KEY`.",
    ),
    "not a schema": (
        SMALL + "output:\n  type: object\n  properties: {total: {type: nubmer}}\n",
        "AF111",
        "4:3`: `output` is not a JSON Schema: at `properties/total/type`: 'nubmer' is not valid under any of the"
        " given schemas",
        "Write a JSON Schema, for example `{{type: object, properties: {{total: {{type: number}}}}}}`.",
    ),
    "a schema with a reference that leads nowhere": (
        SMALL + "output:\n  type: object\n  properties: {total: {$ref: '#/$defs/money'}}\n",
        "AF111",
        "4:3`: `output` is not a JSON Schema: `$ref: #/$defs/money` leads nowhere",
        "Write a JSON Schema, for example `{{type: object, properties: {{total: {{type: number}}}}}}`.",
    ),
    "not a framework": (
        SMALL + "framework: LangChain>=1\n",
        "AF104",
        "3:12`: `framework[0]` is `LangChain>=1`, which names no framework",
        "Write `langchain`, `langchain@0.3` (newest of a series), `langchain==0.3.27`, or `auto`.",
    ),
    "auto among others": (
        SMALL + "framework: [auto, langchain]\n",
        "AF104",
        "3:12`: `framework` has `auto` among others",
        "Write `auto` alone, or the frameworks without it.",
    ),
    "an entry point with a file": (
        "name: a\nnative: {framework: crewai, entrypoint: src/crew.py:make}\n",
        "AF104",
        "2:41`: `native.entrypoint` is `src/crew.py:make`, which is not `module:attribute`",
        "Write the module, a colon and the object or function in it, for example `src.crew:make`.",
    ),
    "an entry point missing": (
        "name: a\nnative: {framework: crewai}\n",
        "AF105",
        "2:9`: `entrypoint` is missing in `native`",
        "Add `entrypoint`: Module and object, `my_project.crew:make_crew`;"
        " a function without arguments, `async` or not, makes it.",
    ),
    "no port": (
        SMALL + "network: [api.example.com]\n",
        "AF104",
        "3:11`: `network[0]` is `api.example.com`, which is not `host:port`",
        "Write a host and a port, for example `api.example.com:443`.",
    ),
    "not a requirement": (
        SMALL + "requirements: ['pandas >> 2']\n",
        "AF104",
        "3:16`: `requirements[0]` is `pandas >> 2`, which is not a requirement",
        "Write a package with an optional version, for example `pandas>=2`.",
    ),
    "files outside": (
        SMALL + "files: ['../*.py']\n",
        "AF104",
        "3:9`: `files[0]` is `../*.py`, which leaves the agent's folder",
        "Write patterns relative to the agent file, for example `src/**/*.py`.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_agent_file_names_place_key_value_and_what_would_be_right(tmp_path, case):
    text, code, message, hint = CASES[case]
    (tmp_path / "tools.py").write_text("def total_for(): ...\ndef f(): ...\n")
    file = tmp_path / "agent.yaml"
    file.write_bytes(text.encode())
    with pytest.raises(ConfigError) as caught:
        load_agent(file)
    error = caught.value
    expected = f"`{file}:" + message.replace("{folder}", str(tmp_path))
    assert (error.code, error.message, error.hint) == (code, expected, hint.replace("{{", "{").replace("}}", "}"))
    assert (error.origin, error.details["file"]) == ("user", str(file))


def test_all_problems_of_a_file_are_told_at_once(tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text("name: 1\nsettings: {seed: x, sed: 1}\nlimits: {steps: 0}\n")
    with pytest.raises(ConfigError) as caught:
        load_agent(file)
    assert [each["key"] for each in caught.value.details["problems"]] == [
        "name",
        "settings.seed",
        "settings.sed",
        "limits.steps",
    ]
    assert caught.value.message.count("\n") == 3


@pytest.mark.parametrize("key", ["role: x", "goal: x", "backstory: x", "tools: []", "settings: {}", "framework: auto"])
def test_a_native_agent_has_none_of_the_portable_keys(tmp_path, key):
    file = tmp_path / "agent.yaml"
    file.write_text(NATIVE + key + "\n")
    with pytest.raises(ConfigError) as caught:
        load_agent(file)
    assert caught.value.code == "AF112"
    assert caught.value.details["line"] == 3
