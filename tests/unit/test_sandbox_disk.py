"""How much a folder holds: what counts, what is not followed, in parts of a bounded cost."""

import os
from pathlib import Path

import pytest

from agentforge.sandbox.disk import Measuring
from agentforge.sandbox.guard import Commons, Guard

KIB = 1024


def measured(folder: Path, entries: int = 10_000) -> Measuring:
    measuring = Measuring(folder)
    while not measuring.go_on(entries):
        pass
    return measuring


def fill(path: Path, kib: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * kib * KIB)
    return path


def open_descriptors() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


def test_files_of_all_folders_count(tmp_path: Path) -> None:
    for name in ("a", "b/c", "b/d/e/f"):
        fill(tmp_path / name)
    assert 3 * 64 * KIB <= measured(tmp_path).size <= 4 * 64 * KIB


def test_a_file_of_many_names_counts_once(tmp_path: Path) -> None:
    first = fill(tmp_path / "first", 512)
    for number in range(8):
        os.link(first, tmp_path / f"name{number}")
    assert measured(tmp_path).size < 2 * 512 * KIB


def test_a_file_with_holes_counts_what_it_takes(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**30)
    assert measured(tmp_path).size < 64 * KIB


def test_an_empty_file_counts_too(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).touch()
    assert measured(tmp_path).size >= 100 * KIB


@pytest.mark.parametrize("link", ["file", "folder", "pipe"])
def test_nothing_is_followed_or_opened(tmp_path: Path, link: str) -> None:
    outside = fill(tmp_path / "outside/large", 1024)
    inside = tmp_path / "inside"
    inside.mkdir()
    if link == "pipe":
        os.mkfifo(inside / "pipe")
    else:
        (inside / "link").symlink_to(outside if link == "file" else outside.parent)
    assert measured(inside).size < 64 * KIB


def test_a_folder_that_became_a_link_is_not_entered(tmp_path: Path) -> None:
    fill(tmp_path / "outside/large", 1024)
    inside = tmp_path / "inside"
    (inside / "folder").mkdir(parents=True)
    measuring = Measuring(inside)
    assert not measuring.go_on(1), "it is seen, and not entered yet"
    (inside / "folder").rmdir()
    (inside / "folder").symlink_to(tmp_path / "outside")
    assert measuring.go_on(100)
    assert measuring.size < 64 * KIB


@pytest.mark.parametrize("what", ["link", "file"])
def test_a_folder_itself_that_was_replaced_is_not_followed_and_told_of(tmp_path: Path, what: str) -> None:
    fill(tmp_path / "outside/large", 1024)
    if what == "link":
        (tmp_path / "inside").symlink_to(tmp_path / "outside")
    else:
        (tmp_path / "inside").touch()
    found = measured(tmp_path / "inside")
    assert (found.size, found.replaced) == (0, True)


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    found = measured(tmp_path / "gone")
    assert (found.size, found.replaced, found.disturbed) == (0, False, False)


@pytest.mark.parametrize("which", ["inside", "inside/one"])
def test_a_folder_that_is_left_out_is_not_entered(tmp_path: Path, which: str) -> None:
    fill(tmp_path / "inside/one/large", 1024)
    assert Measuring(tmp_path / "inside", {tmp_path / "elsewhere"}).go_on(100)
    measuring = Measuring(tmp_path / "inside", {tmp_path / which})
    assert measuring.go_on(100)
    assert measuring.size < 64 * KIB


def test_empty_folders_cost_a_step_each(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).mkdir()
    assert not Measuring(tmp_path).go_on(150)


def deep(top: Path, levels: int) -> None:
    """Make folders deeper than a path can be long, each with a file."""
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("below" * 20, dir_fd=here)
        file = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here)
        os.write(file, b"x" * 4096)
        os.close(file)
        here, above = os.open("below" * 20, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here), here
        os.close(above)
    os.close(here)


def test_folders_may_be_of_any_depth(tmp_path: Path) -> None:
    deep(tmp_path, 100)
    fill(tmp_path / "zzz/last", 512)
    before = open_descriptors()
    found = measured(tmp_path)
    assert found.size >= 100 * 4096 + 512 * KIB
    assert not found.disturbed
    assert open_descriptors() <= before


def test_a_pass_that_is_given_up_leaves_nothing_open(tmp_path: Path) -> None:
    deep(tmp_path, 100)
    before = open_descriptors()
    measuring = Measuring(tmp_path)
    measuring.go_on(150)
    assert len(open_descriptors() - before) > 1
    measuring.close()
    assert open_descriptors() <= before


def test_folders_that_are_moved_deep_down_disturb_a_pass(tmp_path: Path) -> None:
    deep(tmp_path, 60)
    measuring = Measuring(tmp_path)
    measuring.go_on(150)
    here = tmp_path
    for _ in range(36):  # out of where it is now, with all that is in it
        here = here / ("below" * 20)
    (tmp_path / "elsewhere").mkdir()
    here.rename(tmp_path / "elsewhere/moved")
    measuring.go_on(10_000)
    assert (measuring.done, measuring.disturbed) == (True, True)


def test_a_part_looks_at_so_many_entries(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).touch()
    measuring = Measuring(tmp_path)
    assert not measuring.go_on(40)
    assert measuring.size == 40 * KIB


# ---- the guard


def test_a_guard_tells_of_a_folder_that_grew_too_large(tmp_path: Path) -> None:
    guard = Guard(tmp_path, 1, lambda: None)
    fill(tmp_path / "small", 256)
    assert not guard.measure()
    fill(tmp_path / "large", 1024)
    assert guard.measure()


def test_a_folder_that_is_half_full_is_looked_at_sooner(tmp_path: Path) -> None:
    empty, half = Guard(tmp_path / "empty", 1, lambda: None), Guard(tmp_path / "half", 1, lambda: None)
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "half/file", 768)
    assert not empty.measure()
    assert not half.measure()
    assert half.due < empty.due


def test_a_guard_is_not_led_astray_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(self: Measuring) -> None:
        self.disturbed = True
        return iter(())  # type: ignore[return-value]

    monkeypatch.setattr(Measuring, "_walk", walk)
    guard = Guard(tmp_path, 1, lambda: None)
    passes = 0
    while not guard.measure():
        passes += 1
    assert passes == 19


def test_a_folder_that_was_replaced_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "inside").symlink_to(tmp_path)
    assert Guard(tmp_path / "inside", 1, lambda: None).measure()


# ---- what several workers may write


@pytest.fixture
def commons(tmp_path: Path) -> Commons:
    """A folder with a workspace of an earlier host in it, and with that of a run under way."""
    fill(tmp_path / "earlier/file", 4096)
    fill(tmp_path / "run/file", 4096)
    commons = Commons(tmp_path, 1, {tmp_path / "run"}, lambda: None)
    assert not commons.measure()
    assert commons.known
    return commons


@pytest.mark.parametrize("place", ["earlier/more", "junk", "junk/deep/er"])
def test_what_is_not_of_a_run_under_way_must_not_grow(commons: Commons, place: str) -> None:
    fill(commons.folder / place, 512)
    assert not commons.measure()
    fill(commons.folder / place, 1200)
    assert commons.measure()


def test_a_run_under_way_may_grow(commons: Commons) -> None:
    fill(commons.folder / "run/large", 8192)
    assert not commons.measure()


def test_what_a_run_leaves_is_there_from_then_on(tmp_path: Path) -> None:
    under_way = {tmp_path / "run"}
    commons = Commons(tmp_path, 1, under_way, lambda: None)
    assert not commons.measure()
    fill(tmp_path / "run/file", 1800)
    under_way.clear()
    commons.receive(Guard(tmp_path / "run", 2, lambda: None))
    assert not commons.measure()
    fill(tmp_path / "run/more", 512)
    assert not commons.measure()
    fill(tmp_path / "run/more", 1200)
    assert commons.measure()


def test_what_runs_did_not_need_is_nobodys_to_use_up(commons: Commons) -> None:
    for _ in range(8):
        commons.receive(Guard(commons.folder / "other", 1, lambda: None))
    assert not commons.measure()
    fill(commons.folder / "junk", 1200)
    assert commons.measure()


def test_what_a_run_leaves_while_it_is_measured_is_not_held_against_the_next_pass(commons: Commons) -> None:
    for number in range(30_000):
        (commons.folder / f"earlier/{number}").touch()
    commons.receive(Guard(commons.folder / "other", 32, lambda: None))
    assert not commons.measure(), "a part of it"
    commons.receive(Guard(commons.folder / "next", 8, lambda: None))
    assert not commons.measure()
    fill(commons.folder / "next/file", 7 * KIB)
    assert not commons.measure()
    assert not commons.measure()
    fill(commons.folder / "next/file", 9 * KIB)
    assert not all(commons.measure() is False for _ in range(2))
