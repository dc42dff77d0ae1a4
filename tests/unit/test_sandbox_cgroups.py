"""Which control groups a host makes, on a folder that behaves as the kernel's version 2 does."""

import os
from pathlib import Path

import pytest

from agentforge.sandbox import Limits
from agentforge.sandbox.cgroups import Cgroups, Hits

from .cgroup_world import FakeKernel

LIMITS = Limits(memory_mib=300, processes=64, cpus=0.5)
CHILD, GRANDCHILD, OTHER = 4_000_001, 4_000_002, 4_000_003
"""Pids that no system gives."""


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path / "cgroup", "memory", "pids", "cpu")


def cgroups(kernel: FakeKernel, state: Path, epoch: int = 3) -> Cgroups:
    state.mkdir(exist_ok=True)
    return Cgroups.find(state, epoch, move=True, proc=kernel.proc, kernel=kernel)


def groups(kernel: FakeKernel) -> set[str]:
    return {path.name for path in kernel.own.iterdir() if path.is_dir() and path.name != "agentforge-host"}


def test_a_host_that_is_alone_in_a_delegated_group_divides_it(kernel: FakeKernel, tmp_path: Path) -> None:
    found = cgroups(kernel, tmp_path / "state")
    assert found.held == {"memory": "cgroup v2", "pids": "cgroup v2", "cpu": "cgroup v2"}
    assert found.why == ""
    assert kernel.members(kernel.own / "agentforge-host") == {os.getpid()}
    assert groups(kernel) == set(), "what was tried is gone"


def test_a_group_has_the_limits_of_its_worker(kernel: FakeKernel, tmp_path: Path) -> None:
    made = cgroups(kernel, tmp_path / "state").make("w1", LIMITS)
    assert made.held == {"memory": "cgroup v2", "pids": "cgroup v2", "cpu": "cgroup v2"}
    (name,) = groups(kernel)
    said = {file.name: file.read_text() for file in (kernel.own / name).iterdir()}
    assert said["memory.max"] == str(300 * 2**20)
    assert (said["memory.swap.max"], said["memory.oom.group"]) == ("0", "1")
    assert (said["pids.max"], said["cpu.max"]) == ("64", "50000 100000")


def test_a_group_that_others_are_in_too_is_left_as_it_is(kernel: FakeKernel, tmp_path: Path) -> None:
    kernel.put(OTHER, kernel.own)
    found = cgroups(kernel, tmp_path / "state")
    assert found.held == {}
    assert "other processes" in found.why
    assert kernel.members(kernel.own) == {os.getpid(), OTHER}


def test_only_the_controllers_that_were_delegated_are_in_force(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path / "cgroup", "memory", "io")
    found = cgroups(kernel, tmp_path / "state")
    assert found.held == {"memory": "cgroup v2"}
    assert "pids and cpu" in found.why
    assert found.make("w1", LIMITS).held == {"memory": "cgroup v2"}


def test_without_a_controller_there_is_a_reason(tmp_path: Path) -> None:
    found = cgroups(FakeKernel(tmp_path / "cgroup"), tmp_path / "state")
    assert (found.held, "has no memory" in found.why) == ({}, True)


def test_where_nothing_is_mounted_there_is_a_reason(kernel: FakeKernel, tmp_path: Path) -> None:
    (kernel.proc / "self/mountinfo").write_text("25 1 0:5 / / rw - ext4 /dev/vda rw\n")
    found = cgroups(kernel, tmp_path / "state")
    assert (found.held, "no cgroup controller for memory and pids and cpu" in found.why) == ({}, True)


def test_a_mounted_part_of_the_tree_that_the_host_is_not_in_is_not_used(kernel: FakeKernel, tmp_path: Path) -> None:
    (kernel.proc / "self/cgroup").write_text("0::/other/unit\n")
    assert cgroups(kernel, tmp_path / "state").held == {}


def test_what_a_process_starts_while_it_is_moved_is_moved_too(kernel: FakeKernel, tmp_path: Path) -> None:
    made = cgroups(kernel, tmp_path / "state").make("w1", LIMITS)
    seen = iter([[CHILD], [CHILD, GRANDCHILD], [CHILD, GRANDCHILD]])
    made.take(lambda: next(seen))
    (name,) = groups(kernel)
    assert kernel.members(kernel.own / name) == {CHILD, GRANDCHILD}


def test_a_process_that_cannot_be_moved_is_not_held(kernel: FakeKernel, tmp_path: Path) -> None:
    made = cgroups(kernel, tmp_path / "state").make("w1", LIMITS)
    kernel.refused.add(CHILD)
    made.take(lambda: [CHILD])
    assert made.held == {}
    assert groups(kernel) == set()


def test_a_limit_that_was_hit_is_told(kernel: FakeKernel, tmp_path: Path) -> None:
    made = cgroups(kernel, tmp_path / "state").make("w1", LIMITS)
    assert made.hits() == Hits(0, 0)
    folder = made.folders["memory"]
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 1\n")
    (folder / "pids.events").write_text("max 7\n")
    assert made.hits() == Hits(memory=2, processes=7)


def test_a_group_is_removed_with_what_is_left_in_it(kernel: FakeKernel, tmp_path: Path) -> None:
    made = cgroups(kernel, tmp_path / "state").make("w1", LIMITS)
    made.take(lambda: [CHILD])
    made.remove()
    assert groups(kernel) == set()


def test_a_host_removes_what_earlier_ones_have_left_and_nothing_else(kernel: FakeKernel, tmp_path: Path) -> None:
    state = tmp_path / "state"
    for epoch in (3, 4, 6):
        cgroups(kernel, state, epoch).make("w1", LIMITS).take(lambda: [CHILD])
    cgroups(kernel, tmp_path / "other", 1).make("w1", LIMITS)
    kernel.make(kernel.own / "agentforge-of-somebody")
    before = groups(kernel)
    assert cgroups(kernel, state, 5).clear() == []
    gone = before - groups(kernel)
    assert {name.rsplit("-", 2)[1] for name in gone} == {"3", "4"}
    assert len(groups(kernel)) == 3


def test_a_host_finds_what_one_in_another_place_has_left(tmp_path: Path) -> None:
    state, places = tmp_path / "state", [tmp_path / "one", tmp_path / "two"]
    for place in places:
        place.mkdir()
    first, second = (FakeKernel(place / "cgroup", "memory", "pids", "cpu") for place in places)
    before = cgroups(first, state, 1)
    before.clear()
    before.make("w1", LIMITS)
    assert len(groups(first)) == 1
    assert cgroups(second, state, 2).clear() == []
    assert groups(first) == set()
