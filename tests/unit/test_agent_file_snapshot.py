import hashlib
import os
from pathlib import Path

import pytest

from agentforge.config import load_agent, load_agent_value, reading, snapshot
from agentforge.config import snapshots as module
from agentforge.errors.config import ConfigError, SnapshotTooLargeError

AGENT = "name: a\ninstructions: b\ntools: [{python: 'tools.py:f'}]\n"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / "agent.yaml").write_text(AGENT)
    (folder / "tools.py").write_text("import local\nfrom pkg.deep import name\nimport json\ndef f(): ...\n")
    (folder / "local.py").write_text("from pkg import other\n")
    (folder / "pkg").mkdir()
    for name in ("__init__", "deep", "other", "unused"):
        (folder / "pkg" / f"{name}.py").write_text("from . import other\n" if name == "deep" else "")
    (folder / "data").mkdir()
    (folder / "data" / "a.csv").write_text("x")
    (folder / "data" / "b.csv").write_text("y")
    return folder


def names(folder: Path) -> set[str]:
    return set(snapshot(load_agent(folder)).files)


def test_the_whole_folder_belongs_to_an_agent(folder):
    taken = snapshot(load_agent(folder))
    assert set(taken.files) == {
        "agent.yaml",
        "tools.py",
        "local.py",
        "data/a.csv",
        "data/b.csv",
        *(f"pkg/{name}.py" for name in ("__init__", "deep", "other", "unused")),
    }
    assert taken.files["data/a.csv"] == b"x"
    assert list(taken.files) == sorted(taken.files)


def test_what_is_plainly_not_the_agents_is_left_out(folder):
    before = names(folder)
    for name in (
        ".env",
        ".git/config",
        ".agentforge/state.db",
        "__pycache__/tools.pyc",
        "node_modules/x/index.js",
        "env/pyvenv.cfg",
        "env/lib/x.py",
        "old.pyc",
        "agentforge.lock",
        "agentforge.toml",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "link").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe")
    assert names(folder) == before


def test_a_link_to_a_file_is_a_file(folder):
    (folder.parent / "elsewhere.txt").write_text("linked")
    (folder / "linked.txt").symlink_to(folder.parent / "elsewhere.txt")
    assert snapshot(load_agent(folder)).files["linked.txt"] == b"linked"


def test_patterns_replace_the_default_but_code_always_belongs(folder):
    (folder / "agent.yaml").write_text(AGENT + "files: ['data/a*', '**/unused.py']\n")
    assert names(folder) == {
        "agent.yaml",
        "tools.py",
        "local.py",
        "data/a.csv",
        *(f"pkg/{name}.py" for name in ("__init__", "deep", "other", "unused")),
    }
    (folder / "agent.yaml").write_text(AGENT + "files: []\n")
    assert names(folder) == {
        "agent.yaml",
        "tools.py",
        "local.py",
        *(f"pkg/{name}.py" for name in ("__init__", "deep", "other")),
    }


def test_imports_are_followed_from_the_folder_they_start_in(folder):
    (folder / "pkg" / "inner").mkdir()
    (folder / "pkg" / "inner" / "tool.py").write_text("from .. import unused\nfrom .near import x\ndef f(): ...\n")
    (folder / "pkg" / "inner" / "near.py").touch()
    (folder / "agent.yaml").write_text(AGENT.replace("tools.py", "pkg/inner/tool.py") + "files: []\n")
    assert names(folder) == {
        "agent.yaml",
        "pkg/__init__.py",
        "pkg/unused.py",
        "pkg/inner/near.py",
        "pkg/inner/tool.py",
    }


def test_a_pattern_reaches_hidden_files_only_by_name(folder):
    (folder / ".hidden").write_text("x")
    (folder / "agent.yaml").write_text(AGENT + "files: ['*']\n")
    assert ".hidden" not in names(folder)
    (folder / "agent.yaml").write_text(AGENT + "files: ['.hidden']\n")
    assert ".hidden" in names(folder)


def test_a_native_agents_own_modules_belong_to_it(folder):
    (folder / "agent.yaml").write_text(
        "name: a\nnative: {framework: crewai, entrypoint: 'pkg.deep:make'}\nfiles: ['data/*']\n"
    )
    assert names(folder) == {
        "agent.yaml",
        "data/a.csv",
        "data/b.csv",
        *(f"pkg/{name}.py" for name in ("__init__", "deep", "other")),
    }


def test_an_agent_without_code_is_its_file_alone(folder):
    (folder / "agent.yaml").write_text("name: a\ninstructions: b\n")
    assert names(folder) == {"agent.yaml"}
    assert snapshot(load_agent_value({"name": "a", "instructions": "b"}, folder)).files == {}


def test_a_pattern_without_a_file_is_told(folder):
    (folder / "agent.yaml").write_text(AGENT + "files: ['data/*', 'dta/*']\n")
    with pytest.raises(ConfigError) as caught:
        names(folder)
    assert caught.value.code == "AF104"
    assert caught.value.message == (
        f"`{folder / 'agent.yaml'}:4:19`: `files[1]` is `dta/*`, which matches no file in `{folder}`"
    )


def test_the_digest_is_of_names_and_contents(folder):
    first = snapshot(load_agent(folder)).digest
    (folder / "data" / "a.csv").write_text("z")
    second = snapshot(load_agent(folder)).digest
    (folder / "data" / "a.csv").write_text("x")
    assert snapshot(load_agent(folder)).digest == first != second
    (folder / "data" / "a.csv").rename(folder / "data" / "c.csv")
    assert snapshot(load_agent(folder)).digest not in (first, second)


def test_the_digest_is_the_same_wherever_the_folder_is(folder):
    first = snapshot(load_agent(folder)).digest
    moved = folder.rename(folder.parent / "moved")
    assert snapshot(load_agent(moved)).digest == first


def test_an_edit_right_after_a_snapshot_is_seen(folder):
    for number in range(20):
        (folder / "data" / "a.csv").write_text(str(number % 10))
        assert snapshot(load_agent(folder)).files["data/a.csv"] == str(number % 10).encode()


def test_an_unchanged_folder_is_not_read_again(folder, monkeypatch):
    monkeypatch.setattr(reading, "SETTLED_NS", 0)
    first = snapshot(load_agent(folder))
    reads = []
    monkeypatch.setattr(module, "_read", lambda path: reads.append(path) or path.read_bytes())
    assert snapshot(load_agent(folder)) is first
    (folder / "local.py").write_text("# changed")
    second = snapshot(load_agent(folder))
    assert second.digest != first.digest
    assert reads == [folder / "local.py"]


def test_files_of_a_snapshot_can_not_be_changed(folder):
    with pytest.raises(TypeError):
        snapshot(load_agent(folder)).files["agent.yaml"] = b""  # type: ignore[index]


def test_too_many_files_are_refused_before_any_is_read(folder, monkeypatch):
    monkeypatch.setattr(module, "_read", lambda path: pytest.fail("read"))
    for number in range(module.MAX_FILES):
        (folder / "data" / f"{number}.txt").touch()
    with pytest.raises(SnapshotTooLargeError) as caught:
        names(folder)
    assert caught.value.message == f"the folder `{folder}` of the agent `a` holds more than 1000 files"
    assert "`files: " not in caught.value.message
    assert 'files: ["*.py", "data/*.csv"]' in caught.value.hint


def test_too_large_files_are_refused(folder):
    with (folder / "big.bin").open("wb") as file:
        file.truncate(module.MAX_BYTES)
    with pytest.raises(SnapshotTooLargeError, match="more than 16 MiB"):
        names(folder)
    (folder / "agent.yaml").write_text(AGENT + "files: ['data/*']\n")
    assert "big.bin" not in names(folder)
    (folder / "agent.yaml").write_text(AGENT + "files: ['*.bin']\n")
    with pytest.raises(SnapshotTooLargeError, match="`files` of the agent `a` match more than 16 MiB"):
        names(folder)


def test_the_digest_has_a_written_form(folder):
    taken = snapshot(load_agent(folder))
    lines = [f"{hashlib.sha256(data).hexdigest()} {name}\n" for name, data in sorted(taken.files.items())]
    assert taken.digest == hashlib.sha256("".join(lines).encode()).hexdigest()
