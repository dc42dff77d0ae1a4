"""A host's watch over real processes: what it ends, slows and leaves alone, with control groups and without."""

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentforge.errors.sandbox import CpuExceeded, DiskExceeded, LimitExceeded, MemoryExceeded, ProcessesExceeded
from agentforge.sandbox import Watch
from agentforge.sandbox import brake as brake_module
from agentforge.sandbox.cgroups import Cgroups
from agentforge.sandbox.disk import Measuring
from agentforge.sandbox.processes import tree, usage
from agentforge.sandbox.ward import Ward

from .limits_world import as_nobody, cgroups_here, small, watched, without_cgroups

FILLS = "held = [os.urandom(4 * MIB) and bytes(os.urandom(4 * MIB)) for _ in range({mib} // 4)]; time.sleep(100)"
IN_CHILDREN = """
for _ in range(6):
    if os.fork() == 0:
        held = os.urandom(50 * MIB)
        time.sleep(100)
time.sleep(100)
"""
SHARED = """
held = mmap.mmap(-1, 300 * MIB)
for at in range(0, len(held), 4096):
    held[at] = 1
time.sleep(100)
"""
FORKS_OF_ONE = """
held = os.urandom(80 * MIB)
for _ in range(6):
    if os.fork() == 0:
        time.sleep(100)
time.sleep(100)
"""
MAPPED_FILE = """
file = open({path!r}, "rb")
held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
total = sum(held[at] for at in range(0, len(held), 4096))
time.sleep(100)
"""
THREADS = "for _ in range({count}): threading.Thread(target=time.sleep, args=(100,)).start()\ntime.sleep(100)"
PROCESSES = """
for _ in range({count}):
    try:
        if os.fork() == 0:
            time.sleep(100)
            os._exit(0)
    except OSError:
        pass
    time.sleep(0.02)
time.sleep(100)
"""
SPINS = """
for _ in range({count} - 1):
    if os.fork() == 0:
        break
while True:
    pass
"""

needs_cgroups = pytest.mark.skipif(not cgroups_here(), reason="no control groups can be made here")


@pytest.fixture(params=["watch", pytest.param("cgroups", marks=needs_cgroups)])
def cgroups(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cgroups]:
    """What holds the processes: the watch alone, and the kernel with it."""
    if request.param == "watch":
        yield without_cgroups()
        return
    made = Cgroups.find(tmp_path, 1)
    yield made
    left = [path for place in made._places.values() for path in place.folder.glob(f"{made._prefix}*")]
    assert left == [], "no group outlives its worker"


@pytest.mark.parametrize("code", [FILLS.format(mib=600), IN_CHILDREN], ids=["one", "children"])
async def test_too_much_memory_ends_a_worker(cgroups: Cgroups, code: str) -> None:
    async with watched(code, small(), cgroups) as hog:
        hog.begin()
        assert isinstance(await hog.error(), MemoryExceeded)


async def test_shared_memory_counts() -> None:
    async with watched(SHARED, small()) as hog:
        hog.begin()
        assert isinstance(await hog.error(), MemoryExceeded)


@pytest.mark.parametrize("code", [FORKS_OF_ONE, FILLS.format(mib=120)], ids=["shared by forks", "below"])
async def test_memory_counts_once_and_below_the_limit_nothing_happens(cgroups: Cgroups, code: str) -> None:
    async with watched(code, small(), cgroups) as user:
        user.begin()
        await user.stays(4)
        assert user.process.poll() is None


async def test_what_is_mapped_of_a_file_is_no_memory_of_its_own(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        for _ in range(30):
            file.write(os.urandom(10 * 2**20))
    async with watched(MAPPED_FILE.format(path=str(tmp_path / "large")), small()) as user:
        user.begin()
        await user.stays(3)
        assert usage(tree(user.process.pid)).resident > 300 * 2**20


@pytest.mark.parametrize("code", [THREADS, PROCESSES], ids=["threads", "processes"])
async def test_too_many_processes_end_a_worker(cgroups: Cgroups, code: str) -> None:
    async with watched(code.format(count=100), small(memory_mib=2000), cgroups) as hog:
        hog.begin()
        assert isinstance(await hog.error(), ProcessesExceeded)


@pytest.mark.parametrize("code", [THREADS, PROCESSES], ids=["threads", "processes"])
async def test_processes_below_the_limit_are_left_alone(cgroups: Cgroups, code: str) -> None:
    async with watched(code.format(count=30), small(memory_mib=2000), cgroups) as user:
        user.begin()
        await user.stays()


@needs_cgroups
async def test_a_worker_that_was_refused_a_process_and_gave_up_goes_on(tmp_path: Path) -> None:
    code = """
try:
    for _ in range(60): threading.Thread(target=time.sleep, args=(0.4,)).start()
except RuntimeError:
    time.sleep(100)
"""
    async with watched(code, small(memory_mib=2000), Cgroups.find(tmp_path, 1)) as user:
        user.begin()
        await user.stays(2)
        assert user.ward._hits.processes > 0, "it was refused one"


@pytest.mark.parametrize(("cpus", "count"), [(0.1, 1), (0.2, 2)])
async def test_a_worker_gets_its_share_of_the_processors(cgroups: Cgroups, cpus: float, count: int) -> None:
    async with watched(SPINS.format(count=count), small(cpus=cpus), cgroups) as hog:
        hog.begin()
        await asyncio.sleep(5)  # what it had saved up is spent
        before, began = usage(tree(hog.process.pid)).cpu_s, time.monotonic()
        await asyncio.sleep(4)
        share = (usage(tree(hog.process.pid)).cpu_s - before) / (time.monotonic() - began)
        assert share < cpus * 1.4, "of a machine that others use too it may get less"
        assert share > 0
        await hog.stays(0.1)


async def test_a_worker_that_is_slowed_goes_on_with_short_stops() -> None:
    code = """
child = os.fork()
while child == 0:
    pass
worst, last, end = 0, time.monotonic(), time.monotonic() + 6
while time.monotonic() < end:
    now = time.monotonic()
    worst, last = max(worst, now - last), now
    time.sleep(0.001)
os.kill(child, signal.SIGKILL)
os._exit(int(worst < 0.6))
"""
    async with watched(code, small(cpus=0.03)) as hog:
        hog.begin()
        status = await asyncio.to_thread(hog.process.wait)
        assert hog.ward._brake.slows
        assert status == 1, "no pause that a heartbeat would notice"


async def test_a_worker_that_cannot_be_slowed_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: int) -> list[int]:
        raise PermissionError

    monkeypatch.setattr(brake_module, "frozen", refuse)
    async with watched(SPINS.format(count=1), small(cpus=0.2)) as hog:
        hog.begin()
        error = await hog.error()
        assert isinstance(error, CpuExceeded)
        assert "can't be stopped" in error.message


async def test_a_worker_that_stopping_does_not_slow_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brake_module, "frozen", lambda root: [])
    async with watched(SPINS.format(count=1), small(cpus=0.05)) as hog:
        hog.begin()
        assert isinstance(await hog.error(), CpuExceeded)


async def test_a_worker_that_no_thread_can_slow_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "brake":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    async with watched(SPINS.format(count=1), small(cpus=0.2)) as hog:
        hog.begin()
        assert isinstance(await hog.error(), CpuExceeded)


async def test_the_watch_goes_on_after_what_nobody_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    look, fails = Ward.look, iter([True, True])

    def fail_at_first(ward: Ward, started: bytes) -> LimitExceeded | None:
        if next(fails, False):
            raise RuntimeError("unheard of")
        return look(ward, started)

    monkeypatch.setattr(Ward, "look", fail_at_first)
    async with watched(FILLS.format(mib=200), small(memory_mib=50)) as hog:
        hog.begin()
        assert isinstance(await hog.error(), MemoryExceeded)
    assert "unheard of" in caplog.text


async def test_a_guard_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("unheard of")

    watch = Watch(without_cgroups())
    watch.begin()
    (tmp_path / "large").write_bytes(os.urandom(2 * 2**20))
    told: list[str] = []
    for exceeded in (fail, lambda: told.append("full")):
        watch.guard(tmp_path, 1, exceeded)
        await asyncio.sleep(0.5)
    async with asyncio.timeout(10):
        while not told:
            await asyncio.sleep(0.05)
    await watch.close()


async def test_a_full_scratch_folder_ends_a_worker_without_a_fence(tmp_path: Path) -> None:
    code = f"""
for number in range(20):
    with open({str(tmp_path)!r} + "/" + str(number), "wb") as file: file.write(bytes(MIB))
time.sleep(100)
"""
    async with watched(code, small(), scratch=tmp_path) as hog:
        hog.begin()
        assert isinstance(await hog.error(), DiskExceeded)


NAMELESS = """
descriptor = os.open({path!r}, os.O_RDWR | os.O_CREAT)
os.unlink({path!r})
for _ in range({mib}):
    os.write(descriptor, os.urandom(MIB))
time.sleep(100)
"""


async def test_files_that_were_deleted_and_are_open_count_as_disk(tmp_path: Path) -> None:
    async with watched(NAMELESS.format(path=str(tmp_path / "file"), mib=20), small(disk_mib=10)) as hog:
        hog.begin()
        assert isinstance(await hog.error(), DiskExceeded)


@pytest.mark.parametrize(("place", "mib"), [("/dev/shm", 20), ("", 8)], ids=["in memory", "below"])
async def test_deleted_files_of_limited_memory_or_size_are_nobodys_business(
    tmp_path: Path, place: str, mib: int
) -> None:
    path = f"{place or tmp_path}/{tmp_path.name}-{os.getpid()}"
    async with watched(NAMELESS.format(path=path, mib=mib), small(disk_mib=10)) as user:
        user.begin()
        await user.stays(5)


@pytest.mark.parametrize(("mib", "ends"), [(300, True), (100, False)])
async def test_memory_in_files_without_a_name_counts(mib: int, ends: bool) -> None:
    code = f"""
held = os.memfd_create("held")
for _ in range({mib}):
    os.write(held, bytes(MIB))
time.sleep(100)
"""
    async with watched(code, small()) as hog:
        hog.begin()
        if ends:
            assert isinstance(await hog.error(), MemoryExceeded)
        else:
            await hog.stays(6)


async def test_a_folder_that_grows_too_large_is_told_of_once(tmp_path: Path) -> None:
    watch = Watch(without_cgroups())
    watch.begin()
    told: list[str] = []
    guard = watch.guard(tmp_path, 1, lambda: told.append("full"))
    closed = watch.guard(tmp_path, 1, lambda: told.append("closed"))
    closed.close()
    (tmp_path / "large").write_bytes(os.urandom(2 * 2**20))
    async with asyncio.timeout(10):
        while not told:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    assert told == ["full"]
    assert guard.over
    await watch.close()


# ---- as an ordinary user


def test_an_ordinary_user_has_a_watch_and_no_control_groups() -> None:
    async def hog() -> None:
        found = Cgroups.find(Path("/tmp"), 1)
        assert found.held == {}
        assert found.why
        async with watched(IN_CHILDREN, small(), found) as user:
            user.begin()
            assert isinstance(await user.error(), MemoryExceeded)
            assert set(user.ward.held.values()) <= {"watch", "rlimit"}

    as_nobody(lambda: asyncio.run(hog()))


def test_an_ordinary_user_slows_its_workers() -> None:
    async def hog() -> None:
        async with watched(SPINS.format(count=2), small(cpus=0.2)) as user:
            user.begin()
            await asyncio.sleep(6)
            before, began = usage(tree(user.process.pid)).cpu_s, time.monotonic()
            await asyncio.sleep(3)
            assert (usage(tree(user.process.pid)).cpu_s - before) / (time.monotonic() - began) < 0.3

    as_nobody(lambda: asyncio.run(hog()))


def test_what_an_ordinary_user_closes_to_itself_is_measured_all_the_same() -> None:
    def act() -> None:
        with tempfile.TemporaryDirectory() as folder:
            hidden = Path(folder, "hidden")
            hidden.mkdir()
            (hidden / "large").write_bytes(bytes(2**20))
            hidden.chmod(0)
            measuring = Measuring(Path(folder))
            assert measuring.go_on(100)
            assert measuring.size > 2**20

    as_nobody(act)


def test_what_an_ordinary_user_closes_as_a_whole_is_measured_too() -> None:
    def act() -> None:
        with tempfile.TemporaryDirectory() as folder:
            closed = Path(folder, "closed")
            closed.mkdir()
            (closed / "large").write_bytes(bytes(2**20))
            closed.chmod(0)
            measuring = Measuring(closed)
            assert measuring.go_on(100)
            assert measuring.size >= 2**20

    as_nobody(act)
