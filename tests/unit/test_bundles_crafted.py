"""Bundles that somebody wrote to reach more than the environments that they bring: refused, or without effect."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentforge.environments import Environments, LockEntry, ProjectLock
from agentforge.environments.bundle import BundledEnvironment, write_bundle
from agentforge.environments.home import Home
from agentforge.environments.interpreters import host_interpreter
from agentforge.environments.lock import Lock
from agentforge.environments.uv import Uv
from agentforge.environments.wheels import Wheels
from agentforge.errors.keeping import BundleInvalid, BundleNotWritten

from .bundle_world import SERIES, Crafted, locked, overlapping, sha256, wheel

SOURCE = sha256(b"a source archive")
GOOD, DOCTORED = wheel(), wheel(text="stolen = True")
CONTENT = "0123456789abcdef"
HERE = host_interpreter()


def take(home: Path, data: bytes) -> None:
    home.parent.mkdir(exist_ok=True)
    file = home.parent / "crafted.afenv"
    file.write_bytes(data)
    Environments(home).moving.take(file)


def refused(tmp_path: Path, data: bytes) -> str:
    """Return what is said of a bundle of which nothing may be taken."""
    with pytest.raises(BundleInvalid) as error:
        take(tmp_path / "home", data)
    assert below(tmp_path / "home") == []
    assert error.value.message.isprintable()
    return error.value.message


def below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def addressed(home: Path, lock: str) -> str:
    return Wheels(Home(home), Uv()).addressed(lock, HERE)


# ---- packages of other environments


def test_a_wheel_that_a_bundle_built_counts_for_no_lock_but_the_one_it_brings(tmp_path: Path) -> None:
    own, other = locked(SOURCE), locked(sha256(GOOD), SOURCE)
    take(tmp_path / "home", Crafted(own).add(DOCTORED, source=SOURCE).packed())
    assert sha256(DOCTORED) in addressed(tmp_path / "home", own)
    assert addressed(tmp_path / "home", other) == other


def test_a_locked_wheel_that_is_here_goes_before_one_that_was_built(tmp_path: Path) -> None:
    lock = locked(sha256(GOOD), SOURCE)
    take(tmp_path / "home", Crafted(lock).add(GOOD).packed())
    take(tmp_path / "home", Crafted(lock).add(DOCTORED, source=SOURCE).packed())
    assert sha256(DOCTORED) not in addressed(tmp_path / "home", lock)


async def test_a_wheel_of_a_local_package_counts_for_no_lock_but_the_one_it_brings(tmp_path: Path) -> None:
    own = Crafted(locked(sha256(DOCTORED)), said={"requirements": [f"./mine#sha256={CONTENT}"]})
    take(tmp_path / "home", own.add(DOCTORED, contents=[CONTENT]).packed())
    package = tmp_path / "kit-1.0-py3-none-any.whl"
    package.write_bytes(GOOD)
    environments = Environments(tmp_path / "home")
    brought = await environments.wheel(package, CONTENT, f"=={SERIES}.*", Lock(own.lock).digest)
    assert brought.digest == sha256(DOCTORED)
    mine = await environments.wheel(package, CONTENT, f"=={SERIES}.*")
    assert mine.digest == sha256(GOOD)


def test_the_content_of_a_local_package_is_one_of_the_requirements(tmp_path: Path) -> None:
    bundle = Crafted(locked(sha256(GOOD))).add(GOOD, contents=[CONTENT])
    assert "no requirement" in refused(tmp_path, bundle.packed())


def test_what_a_bundle_built_is_collected_with_the_lock_it_came_with(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "project"
    lock = locked(SOURCE)
    take(home, Crafted(lock).add(DOCTORED, source=SOURCE).packed())
    local = Crafted(locked(sha256(GOOD)), said={"requirements": [f"./mine#sha256={CONTENT}"]})
    take(home, local.add(GOOD, contents=[CONTENT]).packed())
    environments = Environments(home)
    other = LockEntry("tools", "tools", "", SERIES, sha256(b"other"), ("kit",), locked(SOURCE, version="1.0.0"))
    root.mkdir()
    entry = LockEntry("tools", "tools", "", SERIES, Lock(lock).digest, (), lock)
    for entries, kept in (([entry, other], {DOCTORED}), ([other], set())):
        pins = ProjectLock(root / "agentforge.lock")
        for each in entries:
            pins.pin(each)
        with environments.pinning(root):
            pins.save()
        for path in (*home.glob("wheels/**/*"), *home.glob("locks/*")):
            os.utime(path, (time.time() - 7200,) * 2)
        environments.collect()
        assert {path.read_bytes() for path in (home / "wheels").glob("*/*.whl")} == kept
        assert len(list((home / "wheels").glob("by-*/*"))) == len(kept)


# ---- wheels under names that are not theirs


def named(digest: str, data: bytes) -> Crafted:
    return Crafted("", entries={f"wheels/{digest}/kit-1.0-py3-none-any.whl": data})


def test_a_wheel_that_no_environment_needs_is_refused(tmp_path: Path) -> None:
    assert "no environment" in refused(tmp_path, named(sha256(GOOD), GOOD).packed())
    assert "no environment" in refused(tmp_path, Crafted("", entries={f"locks/{sha256(b'#')}.txt": b"#"}).packed())


def test_a_wheel_is_kept_under_no_digest_but_its_own(tmp_path: Path) -> None:
    assert "another digest" in refused(tmp_path, named(SOURCE, DOCTORED).packed())


def test_what_is_no_wheel_or_one_for_another_machine_is_refused(tmp_path: Path) -> None:
    """Else a lock of others that names the same hash (of a source archive, of a wheel for a Mac) would get it."""
    archive = b"the bytes of a source archive"
    foreign = wheel(tag="cp311-cp311-macosx_11_0_arm64")
    untold = wheel(tag="")
    for data in (archive, foreign, untold):
        message = refused(tmp_path, Crafted(locked(sha256(data))).add(data).packed())
        assert "no wheel for this machine" in message


def test_a_wheel_under_the_name_of_another_package_is_not_found_for_its_own(tmp_path: Path) -> None:
    other = wheel("other")
    take(tmp_path / "home", Crafted(locked(sha256(other))).add(other).packed())
    lock = locked(sha256(other), name="other")
    assert addressed(tmp_path / "home", lock) == lock
    newer = locked(sha256(other), version="1.1")
    assert addressed(tmp_path / "home", newer) == newer


def test_a_wheel_that_was_changed_on_the_disk_is_replaced_by_an_import_and_not_exported(tmp_path: Path) -> None:
    bundle = Crafted(locked(sha256(GOOD))).add(GOOD).packed()
    take(tmp_path / "home", bundle)
    (file,) = (tmp_path / "home/wheels").glob("*/*.whl")
    file.write_bytes(DOCTORED)
    environment = BundledEnvironment("tools", "tools", "", SERIES, SERIES, sha256(b""), (), ())
    wheels = {f"wheels/{sha256(GOOD)}/{file.name}": file}
    with pytest.raises(BundleNotWritten, match="digest"):
        write_bundle(tmp_path / "out.afenv", [environment], {}, wheels, written_by="0", platform="any")
    assert not (tmp_path / "out.afenv").exists()
    take(tmp_path / "home", bundle)
    assert file.read_bytes() == GOOD


# ---- more than there is


@pytest.mark.parametrize("hidden", [False, True])
def test_entries_that_share_bytes_are_refused(tmp_path: Path, hidden: bool) -> None:
    data = overlapping(40, 20_000, hidden=hidden)
    assert len(data) < 100_000
    assert refused(tmp_path, data)


def test_entries_one_after_the_other_with_something_before_them_are_taken(tmp_path: Path) -> None:
    take(tmp_path / "home", b"#!/bin/sh\n" + Crafted(locked(sha256(GOOD))).add(GOOD).packed())
    assert len(below(tmp_path / "home")) == 2


# ---- words


BAD_LINES = [
    "../../../root",
    "/root#sha256=0123456789abcdef",
    "./lib#sha256=0123",
    "./lib#sha256=0123456789abcdef0",
    "-c foo\n--index-url http://evil",
    "-c ../../bounds.txt",
    "--index-url=x",
    "-e .",
    "-r other.txt",
    "[fast]; x",
    "kit @ https://example.org/kit.whl",
    "-c kit @ file:///tmp/kit.whl",
    "",
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_line_that_is_no_requirement_is_refused(tmp_path: Path, line: str) -> None:
    refused(tmp_path, Crafted("", said={"requirements": [line]}).packed())


def test_lines_as_a_project_has_them_are_taken(tmp_path: Path) -> None:
    lines = ["kit>=1", "-c other<2", "[fast,slow]", f"../lib[fast]#sha256={CONTENT}", f"./lib#sha256={CONTENT}"]
    take(tmp_path / "home", Crafted("", said={"requirements": lines}).packed())


class Said(Crafted):
    """A bundle whose whole manifest can be changed."""

    def changed(self, change: Callable[[dict[str, Any]], object]) -> bytes:
        self.whole = super().manifest
        change(self.whole)
        return self.packed()

    @property
    def manifest(self) -> dict[str, Any]:
        return self.whole


@pytest.mark.parametrize("sign", ["\x1b[31m", "\n", "\x00", "\x7f", "\x9b", "\u202e", "\u2028"])
@pytest.mark.parametrize("key", ["request", "framework", "release", "python", "python_version"])
def test_a_word_that_would_do_something_to_a_terminal_is_refused(tmp_path: Path, sign: str, key: str) -> None:
    bundle = Crafted("", said={key: f"tools{sign}"})
    assert "printed" in refused(tmp_path, bundle.packed())


def test_words_of_the_bundle_itself_are_looked_at_too(tmp_path: Path) -> None:
    for change in (
        lambda said: said.update(platform="a\x1b[2J"),
        lambda said: said.update(written_by="a\nb"),
        lambda said: said.update({"mo\x1bre": 1}),
        lambda said: said["environments"][0]["requirements"].append("kit\x1b"),
    ):
        assert "printed" in refused(tmp_path, Said("").changed(change))
    refused(tmp_path, Crafted("", entries={"lo\x1b[31mcks": b""}).packed())


LOCKS = [
    "-r /etc/passwd\n",
    "--find-links /tmp/wheels\n",
    "-e .\n",
    "kit @ ./kit.whl --hash=sha256:" + SOURCE + "\n",
    "kit==1.0\n",
    "kit==1.0 \\\n    --hash=md5:00\n",
    "kit==1.0 ; nothing == 'x' \\\n    --hash=sha256:" + SOURCE + "\n",
    "kit==1.0\x1b \\\n    --hash=sha256:" + SOURCE + "\n",
]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_with_anything_but_pinned_packages_is_refused(tmp_path: Path, lock: str) -> None:
    refused(tmp_path, Crafted(lock).packed())
