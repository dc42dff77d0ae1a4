"""What environments are made of, without starting a process: locks, the project's lock, index, uv's output."""

import errno
import json
import re
from pathlib import Path

import pytest

import agentforge.environments
from agentforge.environments import (
    EnvironmentRequest,
    Environments,
    Interpreter,
    Lock,
    LockEntry,
    ProjectLock,
    data_home,
)
from agentforge.environments.additions import checked_requirements
from agentforge.environments.home import storage_errors, write_atomically
from agentforge.environments.index import Index
from agentforge.environments.interpreters import host_interpreter, python_floor
from agentforge.environments.meter import Meter
from agentforge.environments.resolving import check_lock
from agentforge.environments.uv import explanation, failure, uv_environment
from agentforge.errors.environments import (
    DiskFull,
    EnvironmentUnknown,
    HomeNotWritable,
    IndexUnreachable,
    InstallFailed,
    LockInvalid,
    LockUnavailable,
    ProjectLockInvalid,
    RequirementInvalid,
    ResolutionFailed,
)

LOCK = """\
httpx2==2.16.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
jsfetch==1.0 ; python_full_version >= '3.12' and sys_platform == 'emscripten' \\
    --hash=sha256:cc
Typing_Extensions==4.16.0 ; python_full_version < '3.12' \\
    --hash=sha256:dd
"""


def entry(**changes: object) -> LockEntry:
    values: dict[str, object] = {
        "request": "langchain@1",
        "framework": "langchain",
        "release": "1.4.7",
        "python": ">=3.10",
        "lock": Lock(LOCK).digest,
    }
    return LockEntry(**{**values, **changes})  # type: ignore[arg-type]


def test_a_lock_knows_its_packages_and_those_that_an_interpreter_gets() -> None:
    lock = Lock(LOCK)
    assert [(p.name, p.version) for p in lock.packages] == [
        ("httpx2", "2.16.0"),
        ("jsfetch", "1.0"),
        ("typing-extensions", "4.16.0"),
    ]
    names = [p.name for p in lock.packages_for(Interpreter(Path("python"), "3.11.7").markers)]
    assert names == ["httpx2", "typing-extensions"]
    assert [p.name for p in lock.packages_for(Interpreter(Path("python"), "3.13.0").markers)] == ["httpx2"]
    assert lock.versions_of("typing.extensions") == ("4.16.0",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kit @ https://example.org/kit.whl \\\n    --hash=sha256:aa\n", "address"),
        ("kit==1.0\n", "no hash"),
        ("kit==0.9 \\\n    --hash=sha256:aa\n", "holds `0.9`"),
        ("other==1.0 \\\n    --hash=sha256:aa\n", "holds none"),
    ],
)
def test_a_lock_with_an_address_no_hash_or_another_version_is_refused(text: str, reason: str) -> None:
    with pytest.raises(LockInvalid, match=reason):
        check_lock(Lock(text), "kit==1.0", "kit", "1.0")


def test_requirements_are_sorted_and_said_once() -> None:
    assert checked_requirements([" pandas>=2", "attrs", "attrs"]) == ("attrs", "pandas>=2")


@pytest.mark.parametrize("line", ["-e .", "--index-url=x", "kit @ https://example.org/kit.whl", "kit=1", ""])
def test_a_line_that_is_no_plain_requirement_is_refused_with_its_text(line: str) -> None:
    with pytest.raises(RequirementInvalid, match=f"`{re.escape(line)}`"):
        checked_requirements([line])


@pytest.mark.parametrize(
    ("python", "floor"), [(">=3.10,<3.14", "3.10"), ("==3.11.*", "3.11"), (">=3.8.1,<3.12", "3.8"), ("", "3.6")]
)
def test_the_floor_is_the_oldest_series_of_a_range(python: str, floor: str) -> None:
    assert python_floor(python) == floor


def test_the_projects_lock_gives_back_what_was_pinned(tmp_path: Path) -> None:
    lock = ProjectLock.load(tmp_path / "agentforge.lock")
    assert lock.pinned("langchain@1") is None
    lock.pin(entry())
    tools = entry(request="tools", framework="tools", release="", python="3.11", requirements=("b", "a"), text=LOCK)
    lock.pin(tools)
    lock.save()
    again = ProjectLock.load(tmp_path / "agentforge.lock")
    assert again.entries == lock.entries
    found = again.pinned("tools", ["a", "b"])
    assert found is not None
    assert (found.text, found.generation) == (LOCK, 1)
    assert again.pinned("tools") is None


def test_the_same_pins_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    pins = [entry(), entry(request="crewai", framework="crewai"), entry(request="tools", text=LOCK)]
    for name, order in (("one", pins), ("two", pins[::-1])):
        lock = ProjectLock(tmp_path / name)
        for pin in order:
            lock.pin(pin)
        lock.save()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_new_pin_is_a_new_generation_and_an_old_one_can_be_activated_again(tmp_path: Path) -> None:
    lock = ProjectLock(tmp_path / "agentforge.lock")
    first = lock.pin(entry())
    assert lock.pin(entry()) == first
    second = lock.pin(entry(release="1.4.8", lock="d" * 64))
    assert (first.generation, second.generation) == (1, 2)
    assert lock.pinned("langchain@1") == second
    lock.activate(first)
    lock.save()
    again = ProjectLock.load(lock.path)
    pinned = again.pinned("langchain@1")
    assert pinned is not None
    assert (pinned.release, len(again.entries)) == ("1.4.7", 2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("version = ", "not TOML"),
        ("", "version `None`"),
        ("version = 2", "version `2`"),
        ("version = 1\nenvironment = 3", "array of tables"),
        ("version = 1\n[[environment]]\nrequest = 'a'", "environment 1: `framework` is missing"),
        ("version = 1\n[[environment]]\nrequest = 7", "environment 1: `request` is `7`"),
        ("version = 1\n[[environment]]\nnews = 7", "unknown key `news`"),
        ("<<<<<<< ours", "not TOML"),
    ],
)
def test_a_broken_project_lock_is_refused_with_its_place(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "agentforge.lock"
    path.write_text(text)
    with pytest.raises(ProjectLockInvalid, match=reason) as caught:
        ProjectLock.load(path)
    assert str(path) in caught.value.message


def test_a_pinned_lock_is_restored_from_its_text_or_from_what_is_remembered(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    assert environments.restore(entry(text=LOCK)).text == LOCK
    with pytest.raises(LockUnavailable):
        environments.restore(entry())
    write_atomically(tmp_path / "locks" / f"{Lock(LOCK).digest}.txt", LOCK)
    assert environments.restore(entry()).text == LOCK
    with pytest.raises(ProjectLockInvalid, match="digest"):
        environments.restore(entry(text=LOCK + "\n"))


def test_uv_gets_the_way_to_the_index_and_nothing_that_changes_what_is_built() -> None:
    given = uv_environment(
        {
            "HOME": "/home/someone",
            "UV_DEFAULT_INDEX": "https://index.example/simple",
            "UV_INDEX_PRIVATE_PASSWORD": "secret",
            "HTTPS_PROXY": "http://proxy.example",
            "SSL_CERT_FILE": "/certs",
            "VIRTUAL_ENV": "/venv",
            "UV_PYTHON": "3.8",
            "UV_EXCLUDE_NEWER": "2020-01-01",
            "PYTHONPATH": "/somewhere",
            "OPENAI_API_KEY": "secret",
        }
    )
    assert given["UV_DEFAULT_INDEX"] == "https://index.example/simple"
    assert given["UV_PYTHON_DOWNLOADS"] == "never"
    assert {"UV_INDEX_PRIVATE_PASSWORD", "HTTPS_PROXY", "SSL_CERT_FILE"} <= given.keys()
    assert not {"VIRTUAL_ENV", "UV_PYTHON", "UV_EXCLUDE_NEWER", "PYTHONPATH", "OPENAI_API_KEY"} & given.keys()


@pytest.mark.parametrize(
    ("file", "text", "environ", "url", "told"),
    [
        ("", "", {"UV_DEFAULT_INDEX": "https://a.example"}, "https://a.example", False),
        ("", "", {"UV_INDEX_URL": "https://b.example"}, "https://b.example", False),
        ("uv/uv.toml", 'index-url = "https://c.example"', {}, "https://c.example", False),
        ("uv/uv.toml", '[[index]]\nurl = "https://d.example"\ndefault = true', {}, "https://d.example", False),
        ("pip/pip.conf", "[global]\nindex-url = https://e.example", {}, "https://e.example", True),
        ("", "", {"PIP_INDEX_URL": "https://f.example"}, "https://f.example", True),
    ],
)
def test_the_index_is_the_one_that_uv_or_else_pip_is_configured_for(
    tmp_path: Path, file: str, text: str, environ: dict[str, str], url: str, told: bool
) -> None:
    if file:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(text)
    index = Index.from_environment({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), **environ})
    assert index.url == url
    assert index.for_uv() == ({"UV_DEFAULT_INDEX": url} if told else {})


def test_an_index_is_shown_without_its_credentials() -> None:
    assert Index("https://me:secret@index.example/simple").shown == "https://index.example/simple"


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("error: Failed to fetch: `x`\n  cause: dns error", IndexUnreachable),
        ("error: failed to write\n  cause: No space left on device (os error 28)", DiskFull),
        ("error: failed to create directory: Permission denied (os error 13)", HomeNotWritable),
        ("error: Hash mismatch for `kit==1.0`", InstallFailed),
    ],
)
def test_a_failure_of_uv_becomes_the_error_that_it_means(stderr: str, kind: type[Exception]) -> None:
    assert type(failure(stderr, "Building `x`")) is kind


def test_an_explanation_keeps_what_uv_says_about_the_conflict_and_drops_its_talk() -> None:
    stderr = "\n".join(["DEBUG trying", "warning: old thing", "error: No solution found", "  because", *["more"] * 90])
    text = explanation(stderr)
    assert text.startswith("No solution found\n  because")
    assert len(text.splitlines()) == 24
    assert failure(stderr, "Resolving", ResolutionFailed).code == "AF302"


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, DiskFull), (errno.EROFS, HomeNotWritable), (errno.EACCES, HomeNotWritable)],
)
def test_the_systems_refusal_to_write_becomes_an_error_that_names_the_place(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="/some/where"), storage_errors(Path("/home")):
        raise OSError(number, "no", "/some/where")


def test_the_bar_counts_cached_downloaded_and_installed_packages() -> None:
    seen: list[tuple[str, int, int]] = []
    meter = Meter(3, lambda stage, done, total, message: seen.append((stage, done, total)))
    for line in [
        "Resolved 3 packages in 2ms",
        "DEBUG Identified uncached distribution: small==1",
        "DEBUG Identified uncached distribution: large==1",
        "DEBUG No cache entry for: http://x/small-1-py3-none-any.whl",
        "DEBUG No cache entry for: http://x/large-1-py3-none-any.whl",
        "Downloading large (90.0MiB)",
        " Downloaded large",
        "Prepared 2 packages in 1ms",
        " + cached==1",
        " + small==1",
        " + large==1",
    ]:
        meter.read(line)
    assert seen == [
        ("downloading", 2, 3),
        ("downloading", 3, 3),
        ("installing", 0, 3),
        ("installing", 1, 3),
        ("installing", 2, 3),
        ("installing", 3, 3),
    ]


def test_the_data_folder_is_chosen_by_the_variable() -> None:
    assert data_home({"AGENTFORGE_HOME": "/data/forge"}) == Path("/data/forge")
    assert data_home({}).name == "agentforge"


def test_nothing_is_an_environment_without_its_marker(tmp_path: Path) -> None:
    environments = Environments(tmp_path / "home")
    assert environments.list() == []
    assert not (tmp_path / "home").exists()
    place = tmp_path / "home" / "environments" / "kit-1-py311-0"
    (place / "venv" / "bin").mkdir(parents=True)
    (place / "venv" / "bin" / "python").touch()
    assert environments.list() == []
    marker = {"python_version": "3.11.7", "framework": "kit", "release": "1", "lock_digest": "", "built_at": 0}
    (place / "ready.json").write_text(json.dumps(marker))
    assert [found.id for found in environments.list()] == ["kit-1-py311-0"]
    (place / "venv" / "bin" / "python").unlink()  # the interpreter it was built with is gone
    assert environments.list() == []
    for id in ("kit-1-py311-0", "../environments/kit", ""):
        with pytest.raises(EnvironmentUnknown):
            environments.get(id)


def test_the_host_prefers_its_own_python() -> None:
    host = host_interpreter()
    assert Environments(Path("unused")).interpreters.find(f"=={host.version}") == host


def test_a_request_for_tools_names_the_series() -> None:
    assert EnvironmentRequest.for_tools(Lock(""), "3.11").python == "==3.11.*"


def test_the_public_names_are_exactly_these() -> None:
    assert " ".join(sorted(agentforge.environments.__all__, key=str.lower)) == (
        "BOUND BuildProgress Check CheckReport Collected Collection CONTENT content_digest content_of Damage data_home "
        "Environment EnvironmentRequest Environments Exported Imported inspect Inspection installed Interpreter "
        "Interpreters Kept LocalWheel Lock LOCK_FILE LockedPackage LockEntry Need Progress ProjectLock Stage "
        "storage_errors"
    )
