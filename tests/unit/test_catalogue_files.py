"""What changes agentforge.toml by program, what explains a conflict, and when a deprecation counts."""

import contextlib
import errno
import os
import tomllib
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge.config import load_project
from agentforge.config.framework_config import Deprecation, DeprecationPolicy
from agentforge.config.requirement import local_package
from agentforge.config.toml_edit import add_table, edit, remove_table, set_value
from agentforge.engine.catalogue_files import CatalogueFiles
from agentforge.engine.project_agents import agents_of
from agentforge.engine.tuning import unknown_frameworks
from agentforge.environments.explaining import Story, explained
from agentforge.environments.wheels import content_digest
from agentforge.errors.config import ConfigError, NotEditableError
from agentforge.errors.frameworks import ManifestInvalid, NotRegistered, ReleaseEnded
from agentforge.frameworks import Broken, Catalogue, deprecation_of, require_usable
from agentforge.frameworks.examples import examples_of, shipped_examples

TOMLS = [
    "",
    "# mine\n",
    '[catalogue]\nfolders = ["a"] # one\n\n[sandbox]\nlevel = "none"\n',
    "[catalogue] # empty\n[host]\nidle_s = 1\n",
    '[[catalogue.deprecated]]\nframework = "x@1"\nsince = 2026-01-01\n# of the host:\n[host]\nidle_s = 1\n',
    '[host]\nidle_s = 1\n\n[[catalogue.deprecated]]\nframework = "x@1"\nsince = 2026-01-01',
    'catalogue = { folders = ["a"] }\n',
    "[host]\r\nidle_s = 1\r\n",
]


@pytest.mark.feature("AF-001")
@pytest.mark.parametrize("text", TOMLS)
def test_folders_are_written_beside_what_is_there(tmp_path: Path, text: str) -> None:
    file = tmp_path / "agentforge.toml"
    file.write_text(text, newline="")
    before = tomllib.loads(text)
    edit(
        file,
        lambda now: set_value(now, "catalogue", "folders", ["b", "c"]),
        lambda data: data.setdefault("catalogue", {}).update(folders=["b", "c"]),
    )
    with file.open(newline="") as stream:
        after = stream.read()
    assert tomllib.loads(after) == {**before, "catalogue": {**before.get("catalogue", {}), "folders": ["b", "c"]}}
    for line in text.splitlines():
        assert line.partition("#")[2] in after
    assert ("\r\n" in text) == ("\r\n" in after)


@pytest.mark.feature("AF-014")
@pytest.mark.parametrize("text", TOMLS[:6])
def test_a_policy_is_added_and_taken_back_without_touching_the_rest(text: str) -> None:
    path = ("catalogue", "deprecated")
    added = add_table(text, path, {"framework": "y@2", "since": date(2026, 2, 1)})
    policies = tomllib.loads(added)["catalogue"]["deprecated"]
    assert policies[-1] == {"framework": "y@2", "since": date(2026, 2, 1)}
    assert tomllib.loads(remove_table(added, path, len(policies) - 1)) == tomllib.loads(text)
    if len(policies) == 2:
        left = remove_table(added, path, 0)
        assert tomllib.loads(left)["catalogue"]["deprecated"] == policies[1:]
        assert left.count("#") == text.count("#")


def test_a_file_that_can_not_be_changed_by_program_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "agentforge.toml"
    file.write_text('catalogue = { deprecated = [{ framework = "x@1", since = 2026-01-01 }] }\n')
    files = CatalogueFiles(tmp_path, {})
    with pytest.raises(NotEditableError, match="by program"):
        files.undeprecate("x@1")
    assert file.read_text().startswith("catalogue = {")
    with pytest.raises(NotRegistered, match="`x@1`"):
        files.undeprecate("x@2")


def test_a_file_that_can_not_be_written_is_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:  # as a file system that is mounted read-only does
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(NotEditableError, match=r"agentforge.toml` can't be written: Read-only file system"):
        edit(tmp_path / "agentforge.toml", lambda text: "a = 1\n", lambda data: data.update(a=1))


def test_a_file_that_is_nested_too_deeply_is_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "agentforge.toml"
    file.write_text("a = " + "[" * 300 + "]" * 300 + "\n")
    with contextlib.suppress(NotEditableError):
        edit(file, lambda text: text + "b = 1\n", lambda data: data.update(b=1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[catalogue]\nfolders = "a"\n', "agentforge.toml:2:11"),
        ('[catalogue]\nfolder = ["a"]\n', "Did you mean `folders`"),
        ('[[catalogue.deprecated]]\nframework = "x"\n', "`since` is missing"),
        ('[[catalogue.deprecated]]\nframework = "x"\nsince = "soon"\n', "expected a day"),
        ('[[catalogue.deprecated]]\nframework = "x"\nsince = 2026-01-02\nend = 2026-01-01\n', "agentforge.toml:4:1"),
        ('[frameworks.x]\npins = ["openai"]\n', "leaves the version open"),
        ('[frameworks.x]\nextras = ["a b"]\n', "name of an extra"),
        ('[frameworks.x]\nrequirements = ["-e ./lib"]\n', "editable"),
        ('[frameworks.x]\nrequirements = ["lib/mine"]\n', "./lib/mine"),
        ('[frameworks.x]\nenv = { PATH = "/" }\n', "decides how a worker runs"),
        ('[frameworks.x]\nenv = { MY_API_KEY = "sk-1" }\n', "looks like a secret (not shown)"),
        ('[frameworks.x]\nenv = { "a b" = "1" }\n', "environment variable"),
        ("[frameworks.X]\n", "can't be the name"),
        ("[frameworks.x]\nsetting = {}\n", "Did you mean `settings`"),
    ],
)
@pytest.mark.feature("AF-005")
def test_what_a_project_says_wrongly_of_frameworks_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "agentforge.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_project(tmp_path, {})
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert "sk-1" not in str(caught.value.info())


@pytest.mark.feature("AF-005")
def test_what_is_set_of_a_framework_that_there_is_not_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "agentforge.toml").write_text(
        '[frameworks.langchian]\npins = ["openai<2"]\n[frameworks.broken]\n[frameworks.crewai]\n'
        "[limits.frameworks.crewia]\nprocesses = 50\n[queue.frameworks]\nlangchain = 3\n"
    )
    invalid = Broken("broken", tmp_path, "folder", ManifestInvalid("no"))
    manifests = [Catalogue.discover().get(name) for name in ("langchain", "crewai")]
    found = list(unknown_frameworks(load_project(tmp_path, {}).config, Catalogue(manifests, broken=[invalid])))
    assert [(each.split("`")[1], each.split("`")[3], each.split("`")[5]) for each in found] == [
        ("[frameworks]", "langchian", "langchain"),
        ("[limits.frameworks]", "crewia", "crewai"),
    ]


def test_settings_of_a_framework_may_come_from_variables(tmp_path: Path) -> None:
    environ = {
        "AGENTFORGE_FRAMEWORKS_PYDANTIC_AI_SETTINGS": '{"retries": 2}',
        "AGENTFORGE_FRAMEWORKS_PYDANTIC_AI_EXTRAS": '["mcp"]',
    }
    config = load_project(tmp_path, environ).config.frameworks["pydantic-ai"]
    assert (config.settings, config.extras) == ({"retries": 2}, ("mcp",))


@pytest.mark.parametrize(
    ("line", "path", "extras"),
    [("./lib", "lib", ""), ("../a b/lib[x, y]", "../a b/lib", "[x,y]"), ("/abs/lib-1.0.whl", "/abs/lib-1.0.whl", "")],
)
def test_a_line_with_a_path_is_a_local_package(line: str, path: str, extras: str) -> None:
    found = local_package(line)
    assert found is not None
    assert (str(found.path), found.extras) == (path, extras)


@pytest.mark.parametrize("line", ["pandas", "pandas>=2", "kit[x]", ".hidden", "a/b", "-e ./x"])
def test_any_other_line_is_none(line: str) -> None:
    assert local_package(line) is None


def test_the_content_of_a_package_is_its_files_and_not_what_builds_leave(tmp_path: Path) -> None:
    (tmp_path / "lib.py").write_text("1")
    first = content_digest(tmp_path)
    for name in ("build", "dist", "lib.egg-info", "__pycache__", ".git"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("1")
    assert content_digest(tmp_path) == first
    (tmp_path / "lib.py").write_text("2")
    assert content_digest(tmp_path) != first


def test_a_derivation_is_told_in_plain_words() -> None:
    text = (
        "No solution found when resolving dependencies\n"
        "  cause: Because langchain==0.1.20 depends on langchain-core>=0.1.52,<0.2.0 and you require\n"
        "         langchain==0.1.20, we can conclude that you require langchain-core>=0.1.52,<0.2.0.\n"
        "         And because you require langchain-core>=1, we can conclude that your requirements are unsatisfiable."
    )
    roles = {"langchain==0.1.20": "the framework itself", "langchain-core>=1": "`requirements` of the agent"}
    error = explained(text, Story("langchain==0.1.20", roles, list(roles)))
    assert error.message == (
        "Resolving langchain==0.1.20 failed: no version of `langchain-core` suits all: `langchain==0.1.20` "
        "(the framework itself) wants `langchain-core>=0.1.52,<0.2.0`; `requirements` of the agent wants "
        "`langchain-core>=1`"
    )
    assert "`langchain-core>=1`" in error.hint
    assert error.details["explanation"] == text


def test_a_bound_that_uv_names_as_a_dependency_is_told_as_the_projects() -> None:
    text = (
        "Because crewai==0.86.0 depends on openai>=1.13.3 and openai<1, we can conclude that crewai==0.86.0 cannot "
        "be used. And because you require crewai==0.86.0, we can conclude that your requirements are unsatisfiable."
    )
    roles = {"crewai==0.86.0": "the framework itself", "openai<1": "pins"}
    error = explained(text, Story("crewai==0.86.0", roles, ["crewai==0.86.0"], ["openai<1"]))
    (conflict,) = error.details["conflicts"]
    assert [(each["by"], each["wants"], each["because"]) for each in conflict["wanted"]] == [
        ("crewai==0.86.0", "openai>=1.13.3", "the framework itself"),
        ("", "openai<1", "pins"),
    ]


PINS = "`[frameworks.kit] pins` of the project"


@pytest.mark.parametrize(
    ("words", "bounds", "said"),
    [
        (
            "all versions of kit depend on companion<4 and companion>=5, we can conclude that all versions of kit "
            "cannot be used. And because you require kit==1.1, we",
            ["companion<4", "companion>=5"],
            f"no version of `companion` suits all: {PINS} wants both `companion<4` and `companion>=5`",
        ),
        (
            "kit==1.1 depends on companion<1.8 and companion>=2, which are incompatible and you require kit==1.1, we",
            ["companion>=2,<1.8"],
            f"no version of `companion` suits all: {PINS} wants both `companion<1.8` and `companion>=2`",
        ),
        (
            "you require companion<1.8 and companion>=2, we",
            ["companion<1.8", "companion>=2"],
            f"no version of `companion` suits all: {PINS} wants both `companion<1.8` and `companion>=2`",
        ),
        (
            "only companion<=2.0 is available and all versions of kit depend on companion>=5, we can conclude that "
            "all versions of kit cannot be used. And because you require kit==1.1, we",
            ["companion>=5"],
            f"the index has no `companion>=5`; it comes from {PINS}",
        ),
    ],
)
def test_pins_that_nothing_satisfies_are_told_as_the_projects(words: str, bounds: list[str], said: str) -> None:
    roles = {"kit==1.1": "the framework itself", **dict.fromkeys(bounds, PINS)}
    text = f"Because {words} can conclude that your requirements are unsatisfiable."
    error = explained(text, Story("kit==1.1", roles, ["kit==1.1"], bounds))
    assert error.message == f"Resolving kit==1.1 failed: {said}"
    for bound in bounds:
        assert f"`{bound}` ({PINS})" in error.hint


@given(st.text(alphabet="abc <>=,.and dependsonyourequire0123456789", max_size=300))
def test_words_of_uv_that_nobody_knows_are_passed_on(text: str) -> None:
    assert explained(text, Story("x", {}, [])).details["explanation"] == text


@pytest.mark.feature("AF-014")
@pytest.mark.parametrize(
    ("today", "outcome"),
    [("2026-01-31", "nothing"), ("2026-02-01", "warned"), ("2026-03-31", "warned"), ("2026-04-01", "refused")],
)
def test_a_deprecation_counts_from_its_first_day_and_refuses_after_its_last(today: str, outcome: str) -> None:
    policy = DeprecationPolicy(framework="langchain", since=date(2026, 2, 1), end=date(2026, 3, 31), successor="crewai")
    found = Catalogue.discover().resolve("langchain")
    day = date.fromisoformat(today)
    if outcome == "refused":
        with pytest.raises(ReleaseEnded, match="2026-03-31") as caught:
            require_usable(found, [policy], day)
        assert "`crewai`" in caught.value.hint
    else:
        assert len(require_usable(found, [policy], day)) == (outcome == "warned")


@pytest.mark.feature("AF-014")
def test_the_most_exact_policy_counts_and_any_goes_before_the_adapters_word() -> None:
    from dataclasses import replace

    found = Catalogue.discover().resolve("langchain")
    own = replace(found, deprecated=Deprecation(since=date(2020, 1, 1)))
    said = deprecation_of(own)
    assert said is not None
    assert said.by == "adapter"
    names = [f"langchain=={found.version}", f"langchain@{found.version}", "langchain@1", "langchain"]
    policies = [DeprecationPolicy(framework=name, since=date(2021, 1, 1)) for name in [*names, "crewai"]]
    for start in range(4):
        said = deprecation_of(own, policies[start:][::-1])
        assert said is not None
        assert (said.by, said.framework) == ("project", names[start])


@pytest.mark.feature("AF-014")
def test_the_agents_of_a_project_are_found_by_their_files(tmp_path: Path) -> None:
    files = {
        "a/agent.yaml": "{name: a, instructions: x, framework: [langchain, crewai@1]}",
        "b.yml": "{name: b, native: {framework: autogen@0.2, entrypoint: 'm:f'}}",
        "auto.yaml": "{name: c, instructions: x}",
        "values.yaml": "{name: d, framework: langchain}",
        "broken.yaml": "{",
        ".hidden/agent.yaml": "{name: e, instructions: x, framework: langchain}",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    found = {(use.agent, use.reference) for use in agents_of(tmp_path)}
    assert found == {("a", "langchain"), ("a", "crewai@1"), ("b", "autogen@0.2")}


@pytest.mark.feature("AF-010")
def test_every_shipped_example_is_tried_by_some_test() -> None:
    tests = Path(__file__).parents[1]
    texts = [file.read_text("utf-8") for file in tests.rglob("test_*.py") if file != Path(__file__)]
    texts += [file.read_text("utf-8") for file in tests.rglob("*_world.py")]
    places = [
        shipped_examples(),
        *(Catalogue.discover().get(n).folder / "examples" for n in Catalogue.discover().names()),
    ]
    for place in places:
        for file in place.rglob("agent.yaml"):
            name = file.parent.relative_to(place)
            said = (f'"{name}"', f"/{name}", f'"{name.name}"', f"examples/{name}")
            assert any(word in text for word in said for text in texts), f"no test runs the example `{name}`"


@pytest.mark.feature("AF-010")
def test_each_framework_has_an_example_whose_agent_loads() -> None:
    from agentforge.config import load_agent

    catalogue = Catalogue.discover()
    for name in catalogue.names():
        found = examples_of(catalogue.get(name))
        assert found, name
        for each in found:
            assert load_agent(each.folder).name
