"""What a reference means is resolved apart from the lock file: once for all who ask, and nobody else waits for it."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import agentforge.environments.project_lock
from agentforge.config import Project, load_project
from agentforge.engine.provision import Provision, Provisioned
from agentforge.environments import (
    BuildProgress,
    EnvironmentRequest,
    Environments,
    Lock,
    LockEntry,
    Progress,
    ProjectLock,
)
from agentforge.errors.environments import IndexUnreachable, ProjectNotWritable
from agentforge.frameworks import Release

from .kit_world import kit_catalogue, text_of


class SlowIndex(Environments):
    """Environments whose index doesn't answer until it is told to."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.answers = asyncio.Event()
        self.asked: list[str] = []
        self.fails = False

    async def lock(self, release: Release, *rest: Any, progress: Any = None, **options: Any) -> Lock:
        if release.tested:
            return await super().lock(release, *rest, progress=progress, **options)
        return await self._answer(release.version, progress)

    async def lock_tools(self, python: str = "3.11", *rest: Any, progress: Any = None, **options: Any) -> Lock:
        return await self._answer(f"tools {python}", progress)

    async def _answer(self, what: str, progress: Progress | None) -> Lock:
        self.asked.append(what)
        if progress is not None:
            progress(BuildProgress(what, "resolving", 0, 0, f"resolving {what}"))
        await self.answers.wait()
        if self.fails:
            raise IndexUnreachable("no answer")
        return Lock(text_of(what.removeprefix("tools ")))


@pytest.fixture
async def index(tmp_path: Path) -> SlowIndex:
    return SlowIndex(tmp_path / "home")


@pytest.fixture
async def provision(index: SlowIndex, tmp_path: Path) -> AsyncIterator[Provision]:
    made = Provision(tmp_path, kit_catalogue(tmp_path / "kit"), index)
    yield made
    await made.close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "agentforge.toml").write_text('[tools]\npython = "3.11"\nrequirements = ["kit"]\n')
    return load_project(tmp_path, environ={})


async def begun(work: Any) -> "asyncio.Task[Any]":
    """Begin something, and let it come to where it waits for the index."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.1)
    assert not task.done()
    return task


def pin_by_hand(tmp_path: Path, entry: LockEntry) -> None:
    lock = ProjectLock.load(tmp_path / "agentforge.lock")
    lock.pin(entry)
    lock.save()


async def test_a_slow_resolve_keeps_no_other_request_waiting(
    provision: Provision, index: SlowIndex, project: Project
) -> None:
    slow = await begun(provision.framework("kit==1.4"))
    slow_tools = await begun(provision.tools(project))
    async with asyncio.timeout(5):
        first = await provision.framework("kit")
        second = await provision.framework("kit@1")
        first_pin = next(each for each in await provision.pins() if each.request == "kit")
        release = provision.catalogue.resolve("kit==1.5")
        made = Provisioned(release, Lock(text_of("1.5")), EnvironmentRequest.for_release(release, Lock("")))
        await provision.promote(first_pin, made)
    assert (first.release.version, second.release.version) == ("1.0", "1.0")
    index.answers.set()
    assert (await slow).lock == Lock(text_of("1.4"))
    await slow_tools
    active = {each.request: each.release for each in await provision.pins() if each.active}
    assert active == {"kit": "1.5", "kit==1.4": "1.4", "kit@1": "1.0", "tools": ""}


async def test_one_request_is_resolved_once_for_all_who_ask_and_all_hear_of_it(
    provision: Provision, index: SlowIndex, project: Project
) -> None:
    heard: list[str] = []
    first = await begun(provision.framework("kit==1.4"))
    await provision.framework("kit")  # a pin of another request meanwhile changes nothing
    second = await begun(provision.framework("kit==1.4", progress=lambda told: heard.append(told.message)))
    tools = [await begun(provision.tools(project)) for _ in range(2)]
    assert heard == ["resolving 1.4"]
    index.answers.set()
    assert (await first) is (await second)
    assert (await tools[0]) is (await tools[1])
    again = await provision.framework("kit==1.4")
    assert again.lock == (await first).lock
    assert (await provision.framework("kit==1.4")) is again
    assert (await provision.tools(project)) is (await tools[0])
    assert index.asked == ["1.4", "tools 3.11"]


async def test_who_gives_up_does_not_stop_it_for_the_others(provision: Provision, index: SlowIndex) -> None:
    first = await begun(provision.framework("kit==1.4"))
    second = await begun(provision.framework("kit==1.4"))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    index.answers.set()
    assert (await second).release.version == "1.4"
    assert index.asked == ["1.4"]


async def test_a_failure_is_everybodys_and_the_next_one_tries_again(provision: Provision, index: SlowIndex) -> None:
    index.fails = True
    both = [await begun(provision.framework("kit==1.4")) for _ in range(2)]
    index.answers.set()
    assert [type(each) for each in await asyncio.gather(*both, return_exceptions=True)] == [IndexUnreachable] * 2
    index.fails = False
    assert (await provision.framework("kit==1.4")).release.version == "1.4"
    assert index.asked == ["1.4", "1.4"]


async def test_a_pin_made_meanwhile_wins(
    provision: Provision, index: SlowIndex, project: Project, tmp_path: Path
) -> None:
    framework, tools = await begun(provision.framework("kit==1.4")), await begun(provision.tools(project))
    theirs = text_of("1.4", "7")
    pin_by_hand(tmp_path, LockEntry("kit==1.4", "kit", "1.4", ">=3.8", Lock(theirs).digest, (), theirs))
    pin_by_hand(tmp_path, LockEntry("tools", "tools", "", "3.11", Lock(theirs).digest, ("kit",), theirs))
    before = await provision.pins()
    index.answers.set()
    assert (await framework).lock == Lock(theirs)
    assert (await tools).lock == Lock(theirs)
    assert await provision.pins() == before
    assert len(index.asked) == 2


async def test_who_asks_after_a_change_of_the_generation_gets_the_new_one(
    provision: Provision, index: SlowIndex, tmp_path: Path
) -> None:
    pin_by_hand(tmp_path, LockEntry("kit", "kit", "1.0", ">=3.8", Lock(text_of("1.0")).digest))
    (first,) = await provision.pins()
    assert (await provision.framework("kit")).release.version == "1.0"
    release = provision.catalogue.resolve("kit==1.5")
    found = Provisioned(release, Lock(text_of("1.5")), EnvironmentRequest.for_release(release, Lock("")))
    stamp = (tmp_path / "agentforge.lock").stat().st_mtime_ns
    second = await provision.promote(first, found)
    os.utime(tmp_path / "agentforge.lock", ns=(stamp, stamp))  # within one tick of the clock
    assert (await provision.framework("kit")).release.version == "1.5"
    await provision.activate(first, second)
    os.utime(tmp_path / "agentforge.lock", ns=(stamp, stamp))
    assert (await provision.framework("kit")).release.version == "1.0"


async def test_a_folder_of_a_project_that_can_not_be_written_is_no_fault_of_the_data_folder(
    provision: Provision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(file.with_name(".agentforge.lock.12345678")))

    monkeypatch.setattr(agentforge.environments.project_lock, "write_atomically", refuse)
    with pytest.raises(ProjectNotWritable, match="Permission denied") as refused:
        await provision.framework("kit")
    assert refused.value.message.startswith(f"`{tmp_path / 'agentforge.lock'}`")
    assert "AGENTFORGE_HOME" not in refused.value.hint
