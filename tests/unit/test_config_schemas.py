import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from agentforge.config.agent_file import AgentFile
from agentforge.config.project_file import ProjectConfig
from agentforge.config.schemas import agent_schema, project_schema, write

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PORTABLE = """
name: expenses
instructions: You answer questions.
settings: {temperature: 0, stop: END}
tools: [{python: "tools.py:total_for", approval: always}]
framework: [langchain, "crewai==1.2.3"]
limits: {steps: 3}
"""
NATIVE = "{name: crew, native: {framework: crewai@1, entrypoint: 'my.crew:make'}}"
CODING = "{name: a, instructions: b, tools: [{code: python, name: c}], permissions: {code: ask, secrets: [A_KEY]}}"


def test_the_published_schemas_are_those_of_the_code(tmp_path):
    write(tmp_path)
    for name in ("agent", "project"):
        published = (REFERENCE / f"{name}.schema.json").read_text()
        fresh = (tmp_path / f"{name}.schema.json").read_text()
        assert published == fresh, "run `python -m agentforge.config.schemas docs/reference`"


@pytest.mark.parametrize("schema", [agent_schema(), project_schema()])
def test_a_schema_is_valid_and_describes_every_key(schema):
    Draft202012Validator.check_schema(schema)
    groups = [schema, *schema["$defs"].values()]
    for group in groups:
        for key, value in group["properties"].items():
            target = schema["$defs"].get(value.get("$ref", "").rpartition("/")[2], {})
            description = value.get("description") or target.get("description", "")
            assert description.strip().endswith((".", ")")), key


@pytest.mark.parametrize("text", [PORTABLE, NATIVE, CODING])
def test_the_schema_takes_what_the_loader_takes(text):
    value = yaml.safe_load(text)
    AgentFile.model_validate(value)
    Draft202012Validator(agent_schema()).validate(value)


@pytest.mark.parametrize(
    "text",
    [
        "{name: a}",
        "{name: a, instructions: b, native: {framework: crewai, entrypoint: 'm:f'}}",
        "{name: a, tools: [], native: {framework: crewai, entrypoint: 'm:f'}}",
        "{name: a, instructions: b, temperature: 1}",
        "{name: a, instructions: b, settings: {temperature: 3}}",
        "{name: a, instructions: b, framework: 1}",
        "{name: a, instructions: b, tools: [{idempotent: true}]}",
        "{name: a, instructions: b, tools: [{python: 'a.py:f', code: python}]}",
        "{name: a, instructions: b, tools: [{python: 'a.py:f', name: g}]}",
        "{name: a, instructions: b, tools: [{code: ruby}]}",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(text):
    value = yaml.safe_load(text)
    assert not Draft202012Validator(agent_schema()).is_valid(value)
    with pytest.raises(ValueError):
        AgentFile.model_validate(value)


def test_the_project_schema_names_every_section():
    assert set(project_schema()["properties"]) == set(ProjectConfig.model_fields)
    assert json.dumps(project_schema())
