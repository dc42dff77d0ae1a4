from pathlib import Path

import pytest

from agentforge.config import load_project, references, resolve_model
from agentforge.config.models import ModelTarget
from agentforge.errors.config import (
    ConfigError,
    InvalidValueError,
    MissingVariableError,
    UnknownModelError,
)


@pytest.fixture
def project(tmp_path):
    def make(text=""):
        (tmp_path / "agentforge.toml").write_text(text)
        return load_project(tmp_path, {})

    return make


TWO = """\
[models.default]
base_url = "${env:MY_URL}/v1"
api_key = "${env:MY_KEY}"
model = "big"
settings = { temperature = 0.5 }
[models.tiny]
upstream = "embedded"
settings = { seed = 1 }
"""


def test_an_alias_means_what_the_file_says(project):
    target = resolve_model(project(TWO), "default", {"MY_URL": "http://localhost:9"})
    assert target == ModelTarget(
        "default", "openai", "http://localhost:9/v1", "${env:MY_KEY}", "big", {"temperature": 0.5}
    )


def test_an_embedded_alias_keeps_its_settings(project):
    assert resolve_model(project(TWO), "tiny", {}) == ModelTarget("tiny", "embedded", None, None, "local", {"seed": 1})


def test_references_of_all_models_are_known(project):
    assert references(project(TWO).config) == {"MY_URL", "MY_KEY"}


def test_an_address_that_refers_to_nothing_is_an_error(project):
    with pytest.raises(MissingVariableError) as caught:
        resolve_model(project(TWO), "default", {})
    assert "`MY_URL`, which is not set" in caught.value.message
    assert "export MY_URL=" in caught.value.hint


def test_an_address_out_of_the_environment_is_checked_too(project):
    with pytest.raises(InvalidValueError, match=r"models\.default\.base_url"):
        resolve_model(project(TWO), "default", {"MY_URL": "localhost"})
    with pytest.raises(InvalidValueError, match="OPENAI_BASE_URL"):
        resolve_model(project(), "default", {"OPENAI_BASE_URL": "localhost"})


def test_without_anything_the_default_is_the_embedded_model(project):
    assert resolve_model(project(), "default", {}) == ModelTarget("local", "embedded", None, None, "local")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"OPENAI_API_KEY": "k"},
            ("https://api.openai.com/v1", "${env:OPENAI_API_KEY}", "gpt-4o-mini"),
        ),
        (
            {"OPENAI_API_KEY": "k", "AGENTFORGE_MODEL": "m"},
            ("https://api.openai.com/v1", "${env:OPENAI_API_KEY}", "m"),
        ),
        (
            {"OPENAI_BASE_URL": "http://localhost:1/v1/", "OPENAI_API_KEY": "k"},
            ("http://localhost:1/v1", "${env:OPENAI_API_KEY}", "gpt-4o-mini"),
        ),
        ({"OPENAI_BASE_URL": "http://localhost:1/v1"}, ("http://localhost:1/v1", None, "gpt-4o-mini")),
    ],
)
def test_the_usual_variables_make_the_default(project, environ, expected):
    target = resolve_model(project(), "default", environ)
    assert (target.base_url, target.api_key_ref, target.model) == expected
    assert (target.alias, target.kind) == ("default", "openai")


def test_an_empty_variable_counts_as_unset(project):
    assert resolve_model(project(), "default", {"OPENAI_API_KEY": ""}).kind == "embedded"


def test_local_is_always_there_unless_the_file_says_otherwise(project):
    assert resolve_model(project(TWO), "local", {"OPENAI_API_KEY": "k"}).kind == "embedded"
    own = project('[models.local]\nbase_url = "http://localhost:11434/v1"\nmodel = "qwen"\n')
    assert resolve_model(own, "local", {}).base_url == "http://localhost:11434/v1"
    assert resolve_model(own, "default", {}).model == "qwen"
    assert resolve_model(own, "default", {"OPENAI_API_KEY": "k"}).model == "gpt-4o-mini"


def test_a_provider_needs_no_configuration(project):
    target = resolve_model(project(TWO), "groq:llama-3:70b", {})
    assert target == ModelTarget(
        "groq:llama-3:70b", "openai", "https://api.groq.com/openai/v1", "${env:GROQ_API_KEY}", "llama-3:70b"
    )
    assert resolve_model(project(), "ollama:qwen2", {}).api_key_ref is None


def test_openai_as_a_provider_honours_the_usual_address(project):
    environ = {"OPENAI_BASE_URL": "http://localhost:1/v1", "OPENAI_API_KEY": "k"}
    target = resolve_model(project(TWO), "openai:gpt-4o", environ)
    assert (target.base_url, target.api_key_ref) == ("http://localhost:1/v1", "${env:OPENAI_API_KEY}")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        (
            "defualt",
            "no model is called `defualt`",
            "Did you mean `default`? Known: `default`, `local`, `tiny`.",
        ),
        ("gpt", "no model is called `gpt`", "Known: `default`, `local`, `tiny`."),
        (
            "opnai:gpt-4o",
            "the model `opnai:gpt-4o` names the provider `opnai`, which is not known",
            "Did you mean `openai`? For any other endpoint add a `[models.<alias>]`.",
        ),
    ],
)
def test_an_unknown_name_tells_the_known_ones(project, name, message, hint):
    with pytest.raises(UnknownModelError) as caught:
        resolve_model(project(TWO), name, {})
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_models_without_a_default_among_them_are_told(project):
    with pytest.raises(UnknownModelError) as caught:
        resolve_model(project('[models.big]\nmodel = "b"\n'), "default", {"OPENAI_API_KEY": "k"})
    assert caught.value.hint == "Name one of `big` as the agent's `model`, or add `[models.default]`."


def test_the_first_step_of_the_embedded_model_is_part_of_its_name_on_the_wire(tmp_path: Path) -> None:
    text = '[models.local]\nupstream = "embedded"\nfirst_step = "answer"\n'
    (tmp_path / "agentforge.toml").write_text(text)
    project = load_project(tmp_path, {})
    assert resolve_model(project, "local", {}).model == "local-answer"
    (tmp_path / "agentforge.toml").write_text(text.replace("answer", "tool"))
    assert resolve_model(load_project(tmp_path, {}), "local", {}).model == "local"


def test_a_first_step_of_a_model_that_chooses_by_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agentforge.toml").write_text('[models.big]\nmodel = "x"\nfirst_step = "answer"\n')
    with pytest.raises(ConfigError, match="first_step"):
        load_project(tmp_path, {})
