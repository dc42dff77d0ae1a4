"""An `agentforge.lock` that somebody edited or merged: refused with its place, in its own project and in others."""

from dataclasses import replace
from pathlib import Path

import pytest

from agentforge.environments import Environments, Lock, LockEntry, ProjectLock
from agentforge.errors.environments import PinMoved, ProjectLockInvalid
from agentforge.errors.keeping import ProjectUnreadable

ENTRY = LockEntry("kit", "kit", "1.0", ">=3.8", Lock("kit").digest)
TOOLS = LockEntry("tools", "tools", "", "3.11", Lock("").digest)


def saved(root: Path, *entries: LockEntry) -> ProjectLock:
    root.mkdir(exist_ok=True)
    lock = ProjectLock(root / "agentforge.lock", entries)
    lock.save()
    return lock


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"requirements": (1,)}, "`requirements` is `[1]`"),
        ({"python": "garbage"}, '`python` is `"garbage"`, which is not a range'),
        ({"release": "abc"}, '`release` is `"abc"`, which is not a version'),
        ({"release": "9" * 5000}, "which is not a version"),
        ({"release": ""}, "which is not a version"),
        ({"request": "kit==0.2.17"}, "which the request `kit==0.2.17` does not admit"),
        ({"request": "kit@2"}, "which the request `kit@2` does not admit"),
        ({"request": "kit@" + "9" * 5000}, "does not admit"),
        ({"request": "kit@@"}, "not a reference"),
        ({"request": "other"}, '`framework` is `"kit"`, but `request` is `other`'),
        ({"lock": "abc"}, '`lock` is `"abc"`, which is not the digest'),
        ({"lock": "A" * 64}, "which is not the digest"),
        ({"generation": 0}, "`generation` is `0`"),
        ({"generation": True}, "`generation` is `true`, which is not a int"),
        ({"request": "tools"}, "of tools both are `tools`"),
    ],
)
def test_an_entry_that_can_not_be_is_refused_with_its_line(
    tmp_path: Path, changed: dict[str, object], told: str
) -> None:
    bad = replace(ENTRY, **{"generation": 1, **changed})  # type: ignore[arg-type]
    path = tmp_path / "agentforge.lock"
    if "requirements" in changed:  # it can't even be sorted
        saved(tmp_path, replace(ENTRY, generation=1))
        path.write_text(path.read_text() + "requirements = [1]\n")
    else:
        saved(tmp_path, bad)
    with pytest.raises(ProjectLockInvalid) as refused:
        ProjectLock.load(path)
    assert told in refused.value.message
    line = refused.value.info().details["line"]
    assert refused.value.message.startswith(f"`{path}:{line}:1`, environment 1: ")
    assert path.read_text().splitlines()[line - 1].startswith(refused.value.info().details["key"])


@pytest.mark.parametrize("changed", [{"release": "1.0"}, {"python": ">=3.10"}, {"python": ""}, {"request": "kit"}])
def test_an_entry_of_tools_that_can_not_be_is_refused(tmp_path: Path, changed: dict[str, str]) -> None:
    lock = saved(tmp_path, replace(TOOLS, generation=1, **changed))  # type: ignore[arg-type]
    with pytest.raises(ProjectLockInvalid, match=rf"environment 1: `{next(iter(changed))}`"):
        ProjectLock.load(lock.path)


def test_what_can_be_is_taken(tmp_path: Path) -> None:
    good = [
        replace(ENTRY, generation=1, python=""),
        replace(ENTRY, request="kit==1", requirements=("./lib#sha256=00", "-c a<2", "[fast]"), generation=7),
        replace(ENTRY, request="kit@1.0", release="1", generation=1),
        replace(ENTRY, request="python", framework="python", release="3.11.7", python="==3.11.*", generation=1),
        replace(TOOLS, generation=1),
        replace(TOOLS, python="3.11.7", requirements=("a",), generation=1),
    ]
    assert set(ProjectLock.load(saved(tmp_path, *good).path).entries) == set(good)


@pytest.mark.parametrize("text", ["version = " + "9" * 5000, "a = " + "[" * 5000])
def test_a_file_that_is_no_usable_toml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agentforge.lock"
    path.write_text(text)
    with pytest.raises(ProjectLockInvalid, match="not TOML"):
        ProjectLock.load(path)


def merged(root: Path, *, active: int) -> ProjectLock:
    """Two branches each updated the request to something else, and both entries were kept."""
    entries = [
        replace(ENTRY, generation=1),
        replace(ENTRY, generation=2, release="1.1"),
        replace(ENTRY, generation=2, release="1.2"),
    ]
    return saved(root, *(replace(each, active=each.generation == active) for each in entries))


@pytest.mark.parametrize("active", [1, 2])
def test_a_generation_that_is_there_twice_is_refused_as_what_a_merge_left(tmp_path: Path, active: int) -> None:
    lock = merged(tmp_path, active=active)
    with pytest.raises(ProjectLockInvalid, match="`kit` has generation 2 twice, here and in environment 2") as refused:
        ProjectLock.load(lock.path)
    assert refused.value.message.startswith(f"`{lock.path}:")
    assert "merged" in refused.value.hint
    assert "Remove one of the two" in refused.value.hint


def test_two_active_generations_are_refused_with_what_to_write(tmp_path: Path) -> None:
    lock = saved(tmp_path, replace(ENTRY, generation=1), replace(ENTRY, generation=2, release="1.1"))
    with pytest.raises(ProjectLockInvalid, match="`kit` has two active generations") as refused:
        ProjectLock.load(lock.path)
    assert "`active = false`" in refused.value.hint


def test_one_entry_is_activated_and_no_other_of_its_number(tmp_path: Path) -> None:
    lock = merged(tmp_path, active=1)
    chosen = lock.entries[2]
    assert lock.activate(chosen) == replace(chosen, active=True)
    assert [each.active for each in lock.entries] == [False, False, True]
    with pytest.raises(PinMoved):
        lock.activate(replace(chosen, release="1.3"))


@pytest.mark.parametrize("bad", ["requirements = [1]", 'python = "garbage"', "generation = 0"])
def test_another_projects_lock_that_can_not_be_used_stops_a_collection_and_is_named(tmp_path: Path, bad: str) -> None:
    environments, root = Environments(tmp_path / "home"), tmp_path / "other"
    lock = saved(root, replace(ENTRY, generation=1))
    environments.projects.register(root)
    old = tmp_path / "home/locks" / f"{'a' * 64}.txt"
    old.parent.mkdir()
    old.write_text("old")
    key = bad.partition(" ")[0]
    kept = [line for line in lock.path.read_text().splitlines() if not line.startswith(key)]
    lock.path.write_text("\n".join([*kept, bad]))
    with pytest.raises(ProjectUnreadable, match=key) as refused:
        environments.collect()
    assert str(lock.path) in refused.value.message
    assert f"--forget {root}" in refused.value.hint
    assert old.exists()
