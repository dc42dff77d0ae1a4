"""A project's state folder that can't be written: what a host says of it, and `agentforge doctor` before."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentforge.api.holding import hold
from agentforge.api.place import HostPlace, Told
from agentforge.api.starting import ensure_host
from agentforge.cli.main import app
from agentforge.config import STATE_DIR
from agentforge.errors.host import StateNotWritable

TOLD = Told("1", Path("/nowhere.sock"), shared=True, own_process=True, lease_s=15)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "agentforge.toml").write_text("")
    (tmp_path / STATE_DIR).mkdir()
    (tmp_path / STATE_DIR / ".gitignore").write_text("*\n")
    return tmp_path


def read_only(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have the system refuse writes below a folder as a read-only mount does: nothing else stops root."""
    opened, allowed = os.open, os.access

    def open_(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and folder in Path(os.fsdecode(path)).parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
        return opened(path, flags, *rest, **options)

    def access(path: Any, mode: int) -> bool:
        below = folder in (Path(path), *Path(path).parents)
        return not (below and mode == os.W_OK) and allowed(path, mode)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "access", access)


async def test_a_lock_that_can_not_be_taken_names_path_and_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = root / STATE_DIR
    read_only(monkeypatch, root)
    place = HostPlace(root, state / "host.sock", state / "host.log", state / "host.lock")
    with pytest.raises(StateNotWritable) as caught:
        await hold(place, TOLD, patience_s=0)
    assert caught.value.message == f"`{state}/host.lock` can't be written: Read-only file system"
    assert caught.value.hint
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("name", ["host.starting", "host.log"])
def test_a_host_that_can_not_be_started_because_of_its_files_says_which(root: Path, name: str) -> None:
    (root / STATE_DIR / name).mkdir()
    with pytest.raises(StateNotWritable, match=f"{name}` can't be written: Is a directory"):
        ensure_host(root)


@pytest.mark.parametrize("variables", [{}, {"AGENTFORGE_HOST": "inline"}])
def test_doctor_fails_where_the_state_can_not_be_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    read_only(monkeypatch, root / STATE_DIR)
    done = CliRunner().invoke(app, ["doctor", "-C", str(root)])
    assert done.exit_code == 1
    said = next(line for line in done.stdout.splitlines() if " state " in line)
    assert said.startswith("FAIL")
    assert f"`{root / STATE_DIR}` can't be written" in said


def test_doctor_says_where_the_state_will_be_made(root: Path) -> None:
    (root / STATE_DIR / ".gitignore").unlink()
    (root / STATE_DIR).rmdir()
    done = CliRunner().invoke(app, ["doctor", "-C", str(root)])
    assert f"state        {root / STATE_DIR} can be made" in done.stdout
