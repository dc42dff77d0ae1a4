"""Generations in `agentforge.lock`: promoted, gone back to, and never against what somebody else did meanwhile."""

from dataclasses import replace
from pathlib import Path

import pytest

from agentforge.engine.provision import Provision, Provisioned
from agentforge.environments import EnvironmentRequest, Environments, Lock, LockEntry, ProjectLock
from agentforge.errors.environments import PinMoved

from .kit_world import kit_catalogue, text_of

SHIPPED = text_of("1.0")


@pytest.fixture
def provision(tmp_path: Path) -> Provision:
    """A project whose request `kit` is 1.0 with the shipped lock."""
    made = Provision(tmp_path, kit_catalogue(tmp_path / "kit"), Environments(tmp_path / "home"))
    lock = ProjectLock(tmp_path / "agentforge.lock")
    lock.pin(LockEntry("kit", "kit", "1.0", ">=3.8", Lock(SHIPPED).digest))
    lock.save()
    return made


def candidate(provision: Provision, version: str) -> Provisioned:
    release = provision.catalogue.resolve(f"kit=={version}")
    lock = Lock(f"kit=={version} \\\n    --hash=sha256:{'2' * 64}\n")
    return Provisioned(release, lock, EnvironmentRequest.for_release(release, lock))


async def active(provision: Provision) -> LockEntry:
    (found,) = [each for each in await provision.pins() if each.active]
    return found


async def test_a_promoted_lock_is_a_new_generation_and_the_same_one_when_it_comes_again(provision: Provision) -> None:
    first = await active(provision)
    assert provision.meant("kit").version == "1.0"
    second = await provision.promote(first, candidate(provision, "1.4"))
    assert (second.generation, second.release, second.text) == (2, "1.4", candidate(provision, "1.4").lock.text)
    assert provision.meant("kit").version == "1.4"
    old = next(each for each in await provision.pins() if each.generation == 1)
    assert await provision.activate(old, second) == first
    assert provision.meant("kit").version == "1.0"
    assert (await provision.promote(first, candidate(provision, "1.4"))).generation == 2
    assert len(await provision.pins()) == 2


async def test_a_change_that_was_begun_on_another_generation_is_refused(provision: Provision) -> None:
    first = await active(provision)
    second = await provision.promote(first, candidate(provision, "1.4"))
    before = (await provision.pins(), second)
    with pytest.raises(PinMoved):
        await provision.promote(first, candidate(provision, "1.5"))
    with pytest.raises(PinMoved):
        await provision.activate(first, replace(first, active=True))
    assert (await provision.pins(), await active(provision)) == before


async def test_a_lock_that_is_not_shipped_any_more_is_kept_with_the_generation(
    provision: Provision, tmp_path: Path
) -> None:
    first = await active(provision)
    release = provision.catalogue.resolve("kit==1.0")
    await provision.environments.lock(release)  # remembers what is shipped now
    newer = SHIPPED.replace("1" * 64, "3" * 64)
    (tmp_path / "kit/locks/1.0.txt").write_text(newer)
    found = Provisioned(release, Lock(newer), EnvironmentRequest.for_release(release, Lock(newer)))
    second = await provision.promote(first, found)
    old, new = await provision.pins()
    assert (old.text, new.text, new) == (SHIPPED, "", second)
    assert provision.generation(old).lock.text == SHIPPED
    assert provision.generation(new).lock.text == newer


async def test_a_local_package_that_was_edited_has_to_be_locked_first(provision: Provision, tmp_path: Path) -> None:
    (tmp_path / "mylib").mkdir()
    (tmp_path / "mylib/pyproject.toml").write_text("[project]\nname = 'mylib'\nversion = '1'\n")
    line = f"./mylib[fast]#sha256={'0' * 64}"
    entry = replace(await active(provision), requirements=(line,))
    with pytest.raises(PinMoved, match=r"`\./mylib\[fast\]` of `kit` has changed"):
        await provision.candidate(entry, provision.catalogue.resolve("kit"), refresh=False, as_of_now=False)
