"""Folders of frameworks: which files count, what a look at one sees, and manifests that are none."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentforge.errors.frameworks import ManifestInvalid
from agentforge.frameworks import LiveCatalogue, folders, load_manifest, manifest_folders
from agentforge.frameworks.folders import look_at

MANIFEST = """
name = "kit"
title = "Kit"
summary = "A framework for tests."
distribution = "kit"

[[releases]]
versions = ">=1"
python = ">=3.8"
requirements = ["kit=={version}"]
adapter = "adapter:KitAdapter"
"""


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    return written(tmp_path / "kit")


def written(folder: Path, text: str = MANIFEST) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "framework.toml").write_text(text)
    (folder / "adapter.py").write_text("class KitAdapter: ...\n")
    return folder


def fill(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.bin").touch()


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The folders whose entries were read, by their names."""
    seen: list[str] = []
    real = os.scandir

    def scandir(path: Path) -> "os._ScandirIterator[str]":
        seen.append(Path(path).name)
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(folders.os, "scandir", scandir)
        yield seen


def test_what_is_no_part_of_a_framework_is_not_walked(kit: Path, walked: list[str]) -> None:
    for foreign in (".venv", ".git", "node_modules", "__pycache__", "samples", "tests"):
        fill(kit / foreign / "deep", 3)
    fill(kit / "env/lib", 3)
    (kit / "env/pyvenv.cfg").touch()
    fill(kit / "more", 1)
    before = look_at(kit)
    assert walked == ["kit", "env", "more"]
    (kit / ".venv/deep/0.bin").write_text("changed")
    (kit / "env/lib/0.bin").write_text("changed")
    assert look_at(kit) == before
    assert [str(each) for each in load_manifest(kit).adapter_files()] == ["adapter.py", "framework.toml", "more/0.bin"]


def test_a_look_at_a_large_folder_ends_at_its_bounds_and_sees_code_all_the_same(kit: Path) -> None:
    fill(kit / "data", 3000)
    fill(kit, 200)
    written(kit / "part/below")
    look = look_at(kit)
    assert look.entries < 1300
    assert len(look.stamp) < 200
    for change in (kit / "adapter.py", kit / "framework.toml", kit / "part/below/adapter.py"):
        change.write_text(change.read_text() + "# changed\n")
        assert look_at(kit) != look, change
        look = look_at(kit)
    for number in range(300):
        (kit / f"folder{number}").mkdir()
    assert look_at(kit).entries < 1500


def test_links_in_a_circle_end(kit: Path) -> None:
    (kit / "a").mkdir()
    (kit / "a/up").symlink_to(kit)
    (kit / "a/here").symlink_to(kit / "a")
    assert [str(each) for each in load_manifest(kit).adapter_files()] == ["adapter.py", "framework.toml"]


def test_a_change_of_a_small_folder_counts_at_once_and_a_large_one_is_looked_at_once_a_second(
    kit: Path, walked: list[str]
) -> None:
    clock = Clock()
    catalogue = LiveCatalogue(lambda: [kit], lambda python: True, clock)
    assert catalogue.current().get("kit").title == "Kit"
    written(kit, MANIFEST.replace('"Kit"', '"Kit two"'))
    assert catalogue.current().get("kit").title == "Kit two"
    fill(kit / "data", 400)
    catalogue.current()
    written(kit, MANIFEST.replace('"Kit"', '"Kit three"'))
    walked.clear()
    for _ in range(10):
        assert catalogue.current().get("kit").title == "Kit two"
    assert walked == []
    clock.now += 1.1
    assert catalogue.current().get("kit").title == "Kit three"


@pytest.mark.parametrize("count", [1, 3])
def test_a_place_holds_frameworks_or_is_reported_itself(tmp_path: Path, count: int) -> None:
    assert manifest_folders(tmp_path) == [tmp_path]
    made = [written(tmp_path / f"kit{number}") for number in range(count)]
    assert manifest_folders(tmp_path) == made
    assert manifest_folders(made[0]) == [made[0]]
    assert manifest_folders(tmp_path / "nothing") == [tmp_path / "nothing"]


def test_a_manifest_that_is_a_pipe_is_refused(kit: Path) -> None:
    (kit / "framework.toml").unlink()
    os.mkfifo(kit / "framework.toml")
    with pytest.raises(ManifestInvalid, match="not a regular file"):
        load_manifest(kit)


def test_a_manifest_of_very_many_keys_is_refused_unread(kit: Path) -> None:
    (kit / "framework.toml").write_text("".join(f"k{number} = 1\n" for number in range(100_000)))
    with pytest.raises(ManifestInvalid, match="at most 262144 are read"):
        load_manifest(kit)


def test_of_very_many_faults_the_first_are_told(kit: Path) -> None:
    (kit / "framework.toml").write_text(MANIFEST.replace("[[", "".join(f"k{n} = 1\n" for n in range(5000)) + "[[", 1))
    with pytest.raises(ManifestInvalid) as caught:
        load_manifest(kit)
    assert len(caught.value.details["problems"]) == 100


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "[" * 100_000, "a = " + "[" * 100_000 + "]" * 100_000])
def test_a_manifest_that_is_nested_too_deeply_harms_nobody_else(tmp_path: Path, text: str) -> None:
    bad, good = written(tmp_path / "bad", text), written(tmp_path / "good")
    catalogue = LiveCatalogue(lambda: [bad, good], lambda python: True).current()
    assert catalogue.get("kit").folder == good
    assert [(each.name, each.error.code) for each in catalogue.broken] == [("bad", "AF205")]
