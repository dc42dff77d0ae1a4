"""What an agent's tools are permitted: which words mean what, and what is never granted."""

import socket
from pathlib import Path
from typing import Any

import pytest

from agentforge.config import AgentDefinition, Project, load_agent_value, load_project
from agentforge.engine.permissions import Permitted, only_described, permitted
from agentforge.errors import AgentForgeError
from agentforge.errors.config import ConfigError, MissingVariableError
from agentforge.errors.tools import CodeDenied, CodeUnfenced, PathRefused, SecretMissing
from agentforge.sandbox import Level

pytestmark = pytest.mark.feature("AF-148")
CODE = [{"code": "python"}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with some data, and its state."""
    root = tmp_path.resolve() / "project"
    for folder in ("data/sub", "agents/one", ".agentforge/versions/v1", "links"):
        (root / folder).mkdir(parents=True)
    for file in ("agentforge.toml", "data/table.csv", ".agentforge/state.db"):
        (root / file).touch()
    (root / "links/to-data").symlink_to("../data")
    (root / "links/to-state").symlink_to(root / ".agentforge")
    return root


def agent(root: Path, folder: str = "agents/one", **keys: Any) -> AgentDefinition:
    return load_agent_value({"name": "a", "instructions": "b", **keys}, root / folder)


def grant(root: Path, level: Level = "standard", private: tuple[Path, ...] = (), **permissions: Any) -> Permitted:
    project: Project = load_project(root, {})
    return permitted(agent(root, permissions=permissions), project, level, {}, private)


def refused(root: Path, private: tuple[Path, ...] = (), **permissions: Any) -> PathRefused:
    with pytest.raises(PathRefused) as caught:
        grant(root, private=private, **permissions)
    return caught.value


def test_what_is_not_said_is_not_permitted(root: Path) -> None:
    assert grant(root) == Permitted()


def test_paths_start_from_the_project_and_are_what_their_links_lead_to(root: Path, tmp_path: Path) -> None:
    other = tmp_path.resolve() / "other"
    other.mkdir()
    given = grant(root, read=["data/table.csv", str(other)], write=["links/to-data/sub"])
    assert given.reads == (root / "data/table.csv", other)
    assert given.writes == (root / "data/sub",)


def test_what_is_in_a_folder_to_write_needs_no_permission_of_its_own(root: Path) -> None:
    given = grant(root, read=["data/table.csv", "links"], write=["data/sub", "data"])
    assert (given.reads, given.writes) == ((root / "links",), (root / "data",))


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("no/such", "can't be used: No such file or directory"),
        ("data/table.csv/x", "can't be used: Not a directory"),
        ("a\0b", "can't be used: it can't be a path"),
        (".agentforge", "is in `{root}/.agentforge`, which no tool gets"),
        (".agentforge/state.db", "is in `{root}/.agentforge`, which no tool gets"),
        ("data/../.agentforge/versions", "is in `{root}/.agentforge`, which no tool gets"),
        ("links/to-state", "is in `{root}/.agentforge`, which no tool gets"),
        ("/", "is the system's"),
        ("/proc/self", "is the system's"),
        ("/sys", "is the system's"),
        ("/dev/null", "is neither a file nor a folder"),
        ("/dev/shm", "is the system's"),
    ],
)
@pytest.mark.parametrize("key", ["read", "write"])
def test_a_path_that_can_not_be_granted_is_named_with_its_key(root: Path, key: str, path: str, problem: str) -> None:
    error = refused(root, **{key: ["data", path]})
    expected = f"`agent`: `permissions.{key}[1]` is `{path}`, which {problem.format(root=root)}"
    assert (error.code, error.message, error.details["key"]) == ("AF613", expected, f"permissions.{key}[1]")
    assert error.hint


def test_neither_the_home_of_agentforge_nor_its_sockets_are_granted(root: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert "which no tool gets" in refused(root, (home,), read=[str(home)]).message
    assert "which no tool gets" in refused(root, (home,), write=[str(home)]).message


def test_a_socket_is_no_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(root)
        listening.bind("door")
        assert "is neither a file nor a folder" in refused(root, read=["door"]).message


def test_a_file_is_not_to_be_written(root: Path) -> None:
    assert "is a file; permissions to write are for folders" in refused(root, write=["data/table.csv"]).message


@pytest.mark.parametrize(
    ("write", "held"),
    [
        (["agents"], "holds the agent's own files, `{root}/agents/one`"),
        (["."], "holds the agent's own files, `{root}/agents/one`"),
        ([".."], "holds the project's files, `{root}`"),
        (["..", "."], "holds the agent's own files, `{root}/agents/one`"),
    ],
)
def test_the_project_and_the_agent_are_written_only_if_they_are_named(root: Path, write: list[str], held: str) -> None:
    assert refused(root, write=write).message.endswith(held.format(root=root))


def test_the_project_and_the_agent_may_be_written_if_they_are_named(root: Path) -> None:
    given = grant(root, write=[".", "agents/one"])
    assert given.writes == (root,)
    assert given.hides == (root / ".agentforge",)
    assert grant(root, write=["agents/one"]).writes == (root / "agents/one",)


def test_private_folders_in_what_is_granted_are_hidden(root: Path, tmp_path: Path) -> None:
    home, gone = root / "data/home", root / "data/gone"
    home.mkdir()
    assert grant(root, private=(home, gone), read=["."]).hides == (root / ".agentforge", home)
    assert grant(root, private=(home,), read=["data/sub"]).hides == ()


def test_a_run_that_goes_on_does_not_have_to_name_its_copy_of_the_files(root: Path) -> None:
    value = {"name": "a", "instructions": "b", "permissions": {"write": ["."]}}
    again = load_agent_value(value, root / ".agentforge/versions/v1")
    assert permitted(again, load_project(root, {}), "standard", {}).writes == (root,)


def test_a_link_that_tools_could_change_grants_nothing(root: Path) -> None:
    (root / "data/sub/link").symlink_to("/etc")
    (root / "links/by-way").symlink_to("../data/sub/link")
    for read in ("data/sub/link", "links/by-way", "links/../data/sub/link/ssl/.."):
        error = refused(root, read=[read], write=["data"])
        assert f"goes by the link `{root}/data/sub/link`, which the tools may change" in error.message
    assert grant(root, read=["data/sub/link"]).reads == (Path("/etc"),)
    (root / "data/sub/other").symlink_to(root / "links")
    assert "which the tools may change" in refused(root, write=["data", "data/sub/other"]).message


def test_what_has_been_replaced_by_a_link_since_is_found(root: Path) -> None:
    given = grant(root, read=["data/table.csv"], write=["data/sub"])
    given.require_unmoved()
    (root / "data/sub").rmdir()
    with pytest.raises(PathRefused, match="is gone or was replaced by a link"):
        given.require_unmoved()
    (root / "data/sub").symlink_to("/etc")
    with pytest.raises(PathRefused, match="is gone or was replaced by a link"):
        given.require_unmoved()


# ---- code


def check_code(root: Path, level: Level = "standard", **permissions: Any) -> Permitted:
    definition = agent(root, tools=CODE, permissions=permissions)
    return permitted(definition, load_project(root, {}), level, {})


@pytest.mark.parametrize("permissions", [{}, {"code": "deny"}])
def test_code_is_denied_unless_the_agent_says_otherwise(root: Path, permissions: dict[str, str]) -> None:
    with pytest.raises(CodeDenied) as caught:
        check_code(root, **permissions)
    error = caught.value
    assert (error.code, error.details["key"]) == ("AF611", "permissions.code")
    assert "the tool `run_python` of the agent `a` runs code that the model writes" in error.message
    assert "permissions: {code: ask}" in error.hint
    assert error.info().origin == "user"


@pytest.mark.parametrize(("code", "asks"), [("ask", True), ("allow", False)])
def test_code_that_is_not_denied_is_asked_for_or_allowed(root: Path, code: str, asks: bool) -> None:
    assert check_code(root, code=code).asks_for_code == asks
    assert check_code(root, "strict", code=code).asks_for_code == asks


@pytest.mark.parametrize("code", ["deny", "ask", "allow"])
def test_without_a_sandbox_there_is_no_code_whatever_the_permissions_say(root: Path, code: str) -> None:
    with pytest.raises(CodeUnfenced) as caught:
        check_code(root, "none", code=code)
    assert caught.value.code == "AF612"


def test_an_agent_without_code_tools_needs_no_permission_and_no_sandbox(root: Path) -> None:
    assert grant(root, "none", code="deny") == Permitted()


# ---- secrets


def secrets(root: Path, *names: str, **variables: str) -> Permitted:
    return permitted(agent(root, permissions={"secrets": list(names)}), load_project(root, {}), "standard", variables)


def test_secrets_are_the_variables_of_who_starts_the_run_and_show_themselves_nowhere(root: Path) -> None:
    given = secrets(root, "STRIPE_KEY", STRIPE_KEY="sk-0123456789", OTHER="x")
    assert given.variables() == {"STRIPE_KEY": "sk-0123456789"}
    assert "sk-0123456789" not in repr(given)
    assert given != secrets(root, "STRIPE_KEY", STRIPE_KEY="sk-9876543210")


def test_all_secrets_that_are_missing_are_named(root: Path) -> None:
    with pytest.raises(SecretMissing) as caught:
        secrets(root, "ONE_KEY", "TWO_KEY", "THREE_KEY", TWO_KEY="there", THREE_KEY="")
    error = caught.value
    assert (error.code, error.details["variables"]) == ("AF614", ["ONE_KEY", "THREE_KEY"])
    assert error.message.endswith("names variables that are not set: `ONE_KEY`, `THREE_KEY`")
    assert "export ONE_KEY=..." in error.hint
    assert isinstance(error, MissingVariableError), "a run that lacks it waits for a client that has it"


def test_an_offline_run_needs_no_secrets(root: Path) -> None:
    definition = agent(root, permissions={"secrets": ["ONE_KEY", "TWO_KEY"], "read": ["no/such"]})
    assert only_described(definition, {"TWO_KEY": "there"}).variables() == {"ONE_KEY": "", "TWO_KEY": "there"}


@pytest.mark.parametrize("name", ["PATH", "home", "LD_PRELOAD", "PYTHONPATH", "https_proxy", "AGENTFORGE_HOME", "a b"])
def test_what_decides_how_a_worker_runs_is_no_secret(root: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        agent(root, permissions={"secrets": [name]})
    assert caught.value.code == "AF104"
    assert caught.value.details["key"] == "permissions.secrets[0]"


def test_what_is_refused_is_an_error_of_ours(root: Path) -> None:
    for kind in (CodeDenied, CodeUnfenced, PathRefused, SecretMissing):
        assert issubclass(kind, AgentForgeError)
        assert (kind.exit_code, kind.http_status) == (1, 422)
