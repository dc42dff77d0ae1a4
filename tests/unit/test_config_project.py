import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge.config import environment_names, find_project, load_project, names_to_send
from agentforge.config.checking import check
from agentforge.config.project_file import ProjectConfig
from agentforge.config.source import Source
from agentforge.errors.config import ConfigError

FULL = """\
[models.default]
upstream = "openai"
base_url = "https://models.example.com/v1/"
api_key = "${env:MY_KEY}"
model = "big"
settings = { temperature = 0.2, stop = "END" }
concurrency = 5
requests_per_minute = 60
tokens_per_minute = 10000
cache_ttl_s = 3600

[models.small-one]
base_url = "${env:SMALL_URL}"
model = "small"

[sandbox]
level = "strict"

[durability]
level = "full"
on_divergence = "stop"
max_attempts = 9
retain_days = 0.5

[queue]
max_runs = 100
max_queued = 0

[queue.frameworks]
crewai = 4

[queue.agents]
expenses = 2

[tools]
python = "3.11"
requirements = ["pandas>=2"]

[host]
idle_s = 60
drain_s = 1.5
lease_s = 30

[workers]
max_workers = 3
runs_per_worker = 10
workers_per_key = 1
"""


def project_in(folder: Path, text: str, environ=None):
    (folder / "agentforge.toml").write_text(text)
    return load_project(folder, environ or {})


def refused(folder: Path, text: str, environ=None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        project_in(folder, text, environ)
    return caught.value


def test_the_nearest_folder_upwards_with_the_file_is_the_project(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert find_project(inner) == inner
    (tmp_path / "agentforge.toml").touch()
    assert find_project(inner) == tmp_path
    (tmp_path / "a" / "agentforge.toml").touch()
    assert find_project(inner) == tmp_path / "a"


def test_a_folder_without_a_file_is_a_project_of_defaults(tmp_path):
    project = load_project(tmp_path, {})
    assert project.root == tmp_path
    assert project.state_dir == tmp_path / ".agentforge"
    assert project.config.models == {}
    assert project.config.sandbox.level == "standard"
    assert project.config.durability.on_divergence == "wait"
    assert project.config.host.idle_s == 900


def test_every_key_of_the_file_arrives(tmp_path):
    config = project_in(tmp_path, FULL).config
    assert config.models["default"].base_url == "https://models.example.com/v1"
    assert config.models["default"].settings.given() == {"temperature": 0.2, "stop": ["END"]}
    assert config.models["small-one"].model == "small"
    assert (config.sandbox.level, config.durability.level, config.durability.on_divergence) == (
        "strict",
        "full",
        "stop",
    )
    assert (config.tools.python, config.tools.requirements) == ("3.11", ("pandas>=2",))
    assert (config.host.idle_s, config.workers.max_workers) == (60, 3)


def test_every_limit_of_the_file_arrives(tmp_path):
    config = project_in(tmp_path, FULL).config
    model, small = config.models["default"], config.models["small-one"]
    assert (model.concurrency, model.requests_per_minute, model.tokens_per_minute) == (5, 60, 10_000)
    assert (model.cache_ttl_s, small.cache_ttl_s, small.concurrency) == (3600, 0, None)
    assert (config.queue.max_runs, config.queue.max_queued) == (100, 0)
    assert (config.queue.frameworks, config.queue.agents) == ({"crewai": 4}, {"expenses": 2})
    assert (config.durability.max_attempts, config.durability.retain_days) == (9, 0.5)
    assert (config.host.drain_s, config.host.lease_s) == (1.5, 30)
    assert (config.workers.runs_per_worker, config.workers.workers_per_key) == (10, 1)


def test_without_a_word_there_are_no_limits_on_runs_and_none_is_deleted(tmp_path):
    config = load_project(tmp_path, {}).config
    assert (config.queue.max_runs, config.queue.max_queued) == (None, 100_000)
    assert (config.queue.frameworks, config.queue.agents) == ({}, {})
    assert (config.durability.max_attempts, config.durability.retain_days) == (5, None)
    assert (config.host.drain_s, config.host.lease_s) == (10, 15)
    assert (config.workers.runs_per_worker, config.workers.workers_per_key) == (1000, None)


def test_the_digest_follows_the_meaning_not_the_text(tmp_path):
    first = project_in(tmp_path, FULL).config_digest
    assert project_in(tmp_path, "# a comment\n" + FULL).config_digest == first
    assert project_in(tmp_path, FULL.replace("big", "bigger")).config_digest != first
    assert project_in(tmp_path, FULL, {"AGENTFORGE_SANDBOX_LEVEL": "none"}).config_digest != first


def test_variables_override_the_file(tmp_path):
    environ = {
        "AGENTFORGE_SANDBOX_LEVEL": "none",
        "AGENTFORGE_HOST_IDLE_S": "5",
        "AGENTFORGE_WORKERS_MAX_WORKERS": "9",
        "AGENTFORGE_TOOLS_REQUIREMENTS": "polars>=1,<2\nrequests",
        "AGENTFORGE_MODELS_SMALL_ONE_BASE_URL": "http://localhost:1/v1",
        "AGENTFORGE_MODELS_EXTRA_MODEL": "more",
        "AGENTFORGE_MODELS_DEFAULT_SETTINGS": '{"seed": 7}',
        "AGENTFORGE_HOME": "/elsewhere",
        "AGENTFORGE_HOST": "inline",
        "AGENTFORGE_MODEL": "gpt",
    }
    config = project_in(tmp_path, FULL, environ).config
    assert config.sandbox.level == "none"
    assert config.host.idle_s == 5
    assert config.workers.max_workers == 9
    assert config.tools.requirements == ("polars>=1,<2", "requests")
    assert config.models["small-one"].base_url == "http://localhost:1/v1"
    assert config.models["extra"].model == "more"
    assert config.models["default"].settings.given() == {"seed": 7}
    assert config.models["default"].model == "big"


def test_variables_set_what_has_no_default_and_whole_tables(tmp_path):
    environ = {
        "AGENTFORGE_QUEUE_MAX_RUNS": "7",
        "AGENTFORGE_QUEUE_FRAMEWORKS": '{"langchain": 3}',
        "AGENTFORGE_MODELS_DEFAULT_REQUESTS_PER_MINUTE": "30",
        "AGENTFORGE_DURABILITY_RETAIN_DAYS": "2.5",
    }
    config = project_in(tmp_path, FULL, environ).config
    assert config.queue.max_runs == 7
    assert config.queue.frameworks == {"langchain": 3}
    assert config.models["default"].requests_per_minute == 30
    assert config.durability.retain_days == 2.5


def test_lists_in_variables_may_be_json(tmp_path):
    config = project_in(tmp_path, "", {"AGENTFORGE_TOOLS_REQUIREMENTS": '["a>=1", "b"]'}).config
    assert config.tools.requirements == ("a>=1", "b")


@pytest.mark.parametrize(
    ("name", "value", "code", "message"),
    [
        (
            "AGENTFORGE_SANDBOX_LEVEL",
            "strickt",
            "AF104",
            '`AGENTFORGE_SANDBOX_LEVEL`: `sandbox.level` is `"strickt"`; expected one of `strict`, `standard`, `none`',
        ),
        (
            "AGENTFORGE_HOST_IDLE_S",
            "soon",
            "AF104",
            '`AGENTFORGE_HOST_IDLE_S`: `host.idle_s` is `"soon"`; expected a number',
        ),
        (
            "AGENTFORGE_QUEUE_MAX_RUNS",
            "many",
            "AF104",
            '`AGENTFORGE_QUEUE_MAX_RUNS`: `queue.max_runs` is `"many"`; expected a whole number',
        ),
        (
            "AGENTFORGE_QUEUE_AGENTS",
            "expenses=2",
            "AF104",
            '`AGENTFORGE_QUEUE_AGENTS`: `queue.agents` is `"expenses=2"`; expected keys with values',
        ),
        (
            "AGENTFORGE_SANDBOX_LVEL",
            "none",
            "AF113",
            "the environment variable `AGENTFORGE_SANDBOX_LVEL` names no setting",
        ),
        (
            "AGENTFORGE_MODELS_DEFAULT_URL",
            "x",
            "AF113",
            "the environment variable `AGENTFORGE_MODELS_DEFAULT_URL` names no setting",
        ),
        (
            "AGENTFORGE_MODELS_DEFAULT_API_KEY",
            "sk-secret",
            "AF106",
            "`AGENTFORGE_MODELS_DEFAULT_API_KEY`: `models.default.api_key` is a literal value (not shown),"
            " which a file must not hold",
        ),
    ],
)
def test_a_bad_variable_is_named(tmp_path, name, value, code, message):
    error = refused(tmp_path, FULL, {name: value})
    assert (error.code, error.message) == (code, message)
    assert error.hint
    assert "sk-secret" not in json.dumps(error.info().to_dict())


CASES = {
    "literal key": (
        '[models.default]\nmodel = "m"\napi_key = "sk-secret"\n',
        "AF106",
        "`{file}:3:11`: `models.default.api_key` is a literal value (not shown), which a file must not hold",
        'Put the key into an environment variable and write a reference to it: `api_key = "${{env:OPENAI_API_KEY}}"`.',
    ),
    "password in the address": (
        '[models.default]\nmodel = "m"\nbase_url = "https://me:sk-secret@example.com"\n',
        "AF106",
        "`{file}:3:12`: `models.default.base_url` has a password in it (not shown)",
        "Leave it out of the address and give the key as `api_key`.",
    ),
    "malformed reference": (
        '[models.default]\nmodel = "m"\napi_key = "${ENV:KEY}"\n',
        "AF109",
        "`{file}:3:11`: `models.default.api_key` is not a reference AgentForge knows",
        "Write `${{env:NAME}}` with the name of an environment variable.",
    ),
    "unknown section": (
        '[sandbx]\nlevel = "none"\n',
        "AF103",
        "`{file}:1:2`: `sandbx` is not a known key",
        "Did you mean `sandbox`?",
    ),
    "unknown key": (
        '[durability]\nlevel = "full"\nondivergence = "wait"\n',
        "AF103",
        "`{file}:3:1`: `ondivergence` is not a known key of `durability`",
        "Did you mean `on_divergence`?",
    ),
    "unknown key of an inline table": (
        '[models.default]\nmodel = "m"\nsettings = { temprature = 1 }\n',
        "AF103",
        "`{file}:3:14`: `temprature` is not a known key of `models.default.settings`",
        "Did you mean `temperature`?",
    ),
    "wrong choice": (
        '[durability]\non_divergence = "ask"\n',
        "AF104",
        '`{file}:2:17`: `durability.on_divergence` is `"ask"`; expected one of `wait`, `continue`, `stop`',
        "Known: `continue`, `stop`, `wait`.",
    ),
    "wrong type": (
        '[host]\nidle_s = "900"\n',
        "AF104",
        '`{file}:2:10`: `host.idle_s` is `"900"`; expected a number',
        "Seconds without a run or a client after which the host leaves.",
    ),
    "number for text": (
        "[tools]\npython = 3.11\n",
        "AF104",
        "`{file}:2:10`: `tools.python` is `3.11`; expected text",
        'Put it in quotes if it is text: `"3.11"`.',
    ),
    "not a version": (
        '[tools]\npython = "2.7"\n',
        "AF104",
        "`{file}:2:10`: `tools.python` is `2.7`, which is not a Python version",
        'Give a version of Python 3, for example `python = "3.11"`.',
    ),
    "out of range": (
        "[workers]\nmax_workers = 0\n",
        "AF104",
        "`{file}:2:15`: `workers.max_workers` is `0`; expected 1 or more",
        "Most workers at the same time; further runs are queued.",
    ),
    "no run at all": (
        "[queue]\nmax_runs = 0\n",
        "AF104",
        "`{file}:2:12`: `queue.max_runs` is `0`; expected 1 or more",
        "Most runs at the same time in this host (default: as many as its limit on open files allows).",
    ),
    "limit that is no number": (
        '[queue.agents]\nexpenses = "two"\n',
        "AF104",
        '`{file}:2:12`: `queue.agents.expenses` is `"two"`; expected a whole number',
        "Most runs at the same time by the name of their agent, for example `expenses = 2`.",
    ),
    "release in place of a framework": (
        '[queue.frameworks]\n"crewai@1" = 2\n',
        "AF104",
        "`{file}:2:1`: `crewai@1` can't be the name of a framework",
        "Use the name alone, as in `agentforge framework list`: a limit holds for all its releases.",
    ),
    "no agent's name": (
        "[queue]\nagents = { 7up = 2 }\n",
        "AF104",
        "`{file}:2:12`: `7up` can't be an agent's name",
        "Use the `name` that the agent file says.",
    ),
    "bad requirement": (
        '[tools]\nrequirements = [\n  "ok",\n  "pandas>>2",\n]\n',
        "AF104",
        "`{file}:4:3`: `tools.requirements[1]` is `pandas>>2`, which is not a requirement",
        "Write a package with an optional version, for example `pandas>=2`.",
    ),
    "missing model": (
        '[models.default]\nbase_url = "http://localhost/v1"\n',
        "AF105",
        "`{file}:1:1`: `model` is missing",
        'Add the model\'s name at the endpoint, for example `model = "gpt-4o-mini"`.',
    ),
    "conflict": (
        '[models.tiny]\nupstream = "embedded"\nbase_url = "http://localhost/v1"\n',
        "AF112",
        '`{file}:3:1`: `base_url` does not go with `upstream = "embedded"`, which runs on this machine',
        'Remove `base_url`, or set `upstream = "openai"`.',
    ),
    "two lists of packages": (
        '[tools]\nrequirements = ["a"]\npyproject = "pyproject.toml"\n',
        "AF112",
        "`{file}:3:1`: `requirements` and `pyproject` exclude each other",
        "Keep one of the two.",
    ),
    "bad alias": (
        '[models."a:b"]\nmodel = "m"\n',
        "AF104",
        "`{file}:1:9`: `a:b` can't be the alias of a model",
        "Use letters, digits, `.`, `_` and `-`; `:` parts a provider from its model.",
    ),
    "not an address": (
        '[models.default]\nmodel = "m"\nbase_url = "localhost:8000"\n',
        "AF104",
        "`{file}:3:12`: `models.default.base_url` is `localhost:8000`, which is not a http or https address",
        "Give the address of the endpoint, for example `http://localhost:8000/v1`.",
    ),
    "a table where a value belongs": (
        '[models]\ndefault = "gpt-4o-mini"\n',
        "AF104",
        '`{file}:2:11`: `models.default` is `"gpt-4o-mini"`; expected keys with values',
        "Models by the alias that agents name; `default` is the one of agents that name none.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_configuration_names_place_key_value_and_what_would_be_right(tmp_path, case):
    text, code, message, hint = CASES[case]
    error = refused(tmp_path, text)
    file = tmp_path / "agentforge.toml"
    assert (error.code, error.message, error.hint) == (code, message.format(file=file), hint.format())
    assert error.origin == "user"
    assert "sk-secret" not in json.dumps(error.info().to_dict())


def test_several_problems_are_told_at_once_in_the_order_of_the_file(tmp_path):
    error = refused(tmp_path, '[host]\nidle_s = "x"\nidel = 1\n[sandbox]\nlevel = 1\n')
    assert [problem["code"] for problem in error.details["problems"]] == ["AF104", "AF103", "AF104"]
    assert len(error.message.splitlines()) == 3
    assert "Did you mean `idle_s`?" in error.message


@pytest.mark.parametrize(
    "text",
    [
        "[models.default]\nmodel = 'm'\napi_key = 8086123\n",
        "models = [{api_key = '8086123'}]\n",
        "models.a = ['8086123', {}]",
    ],
)
def test_a_secret_of_the_wrong_type_or_place_is_not_shown(tmp_path, text):
    error = refused(tmp_path, text)
    assert error.code == "AF104"
    assert "8086123" not in json.dumps(error.info().to_dict())


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["models", "default", "settings", "stop", "level", "api_key", "model", "agents", "x"]),
            inner,
        )
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["models", "sandbox", "tools", "host", "queue", "y"]), JUNK))
def test_whatever_a_file_holds_is_a_configuration_or_an_error_of_ours(data):
    told = {"message": "fine"}
    try:
        check(ProjectConfig, Source("x.toml", data))
    except ConfigError as error:
        told = error.info().to_dict()
    assert told["message"]
    assert json.dumps(told)


def test_a_client_sends_what_the_project_refers_to_and_nothing_else(tmp_path):
    project = project_in(tmp_path, FULL)
    names = environment_names(project)
    assert {"MY_KEY", "SMALL_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "AGENTFORGE_MODEL", "GROQ_API_KEY"} <= names
    assert {"AGENTFORGE_SANDBOX_LEVEL", "AGENTFORGE_MODELS_SMALL_ONE_BASE_URL"} <= names
    assert not names & {"HOME", "PATH", "AWS_SECRET_ACCESS_KEY"}


def test_the_fast_way_finds_the_same_names(tmp_path):
    project = project_in(tmp_path, FULL)
    environ = dict.fromkeys(environment_names(project), "x") | {"AWS_SECRET_ACCESS_KEY": "x"}
    assert names_to_send(tmp_path, environ) == environment_names(project)
    environ = {"AGENTFORGE_MODELS_DEFAULT_API_KEY": "${env:OTHER}", "OTHER": "x"}
    assert names_to_send(tmp_path, environ) == set(environ)


def test_a_broken_file_does_not_stop_the_fast_way(tmp_path):
    (tmp_path / "agentforge.toml").write_bytes(b"\xff = [")
    assert names_to_send(tmp_path, {"OPENAI_API_KEY": "x", "HOME": "y"}) == {"OPENAI_API_KEY"}


def test_a_file_that_is_not_utf8_names_the_byte(tmp_path):
    (tmp_path / "agentforge.toml").write_bytes(b"[host]\n# caf\xe9\n")
    with pytest.raises(ConfigError) as caught:
        load_project(tmp_path, {})
    assert caught.value.code == "AF102"
    assert caught.value.message.endswith("agentforge.toml:2:6`: the byte `0xe9` is not UTF-8")
