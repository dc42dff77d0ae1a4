"""An environment made anew beside the one that is there, and put in its place at once.

Workers of the old one go on undisturbed: it keeps its files, in the folder of builds under way and under the claim
that its users hold, and goes when the last of them does. What is there at any moment, a kill included, is the old
environment or the new one, whole.
"""

import asyncio
import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agentforge.environments import claims
from agentforge.environments.building import Build, finish
from agentforge.environments.environment import Check, Environment
from agentforge.environments.home import Home

__all__ = ["Rebuild", "drop_replaced"]

_MARK = "~"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNKNOWN_THERE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One environment being built anew."""

    home: Home
    id: str
    before: Environment | None
    """What was there when it was asked for: anything else is what others built meanwhile."""
    standing: Callable[[], Environment | None]
    """What is there by its marker, whether it works or not."""
    build: Callable[[Path, int], Build]
    """Makes the build for a staging folder and the descriptor of a claim."""
    clock: Callable[[], float]

    async def run(self, check: Check | None, waiting: Callable[[], None]) -> Environment:
        """Build, and swap. Of several processes that want it one does it, and the others take what it built."""

        def done() -> bool:
            found = self.standing()
            return found is not None and found != self.before and found.python.exists()

        async with claims.building(self.home.claim(f"{self.id}{_MARK}rebuild"), done, waiting) as turn:
            if turn is None or done():
                found = self.standing()
                assert found is not None
                return found
            async with claims.shared(self.home.claim(self.id)) as claim:
                return await self._beside(claim, check)

    async def _beside(self, claim: int, check: Check | None) -> Environment:
        token = secrets.token_hex(4)
        name = f"{self.id}{_MARK}{token}"
        staging = self.home.staging / f"{name}.{token}"
        claims.alias(self.home.claim(self.id), self.home.claim(name))
        try:
            build = self.build(staging, claim)
            candidate = await build.run(check, self.clock())
            finish(candidate)
            place = self.home.environment(self.id)
            with claims.swapping(self.home.claim(self.id)):
                _swap(staging, place)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True))
            self.home.claim(name).unlink(missing_ok=True)
            raise
        return replace(candidate, path=place)


def drop_replaced(home: Home) -> None:
    """Delete what was replaced and is not used any more, and the second names of claims that nobody holds."""
    folders = list(home.staging.iterdir()) if home.staging.is_dir() else []
    for folder in folders:
        name = folder.name.rpartition(".")[0]
        if _MARK in name:
            with claims.removing(home.claim(name)) as alone:
                if alone:
                    shutil.rmtree(folder, ignore_errors=True)
                    home.claim(name).unlink(missing_ok=True)
    for claim in home.claims.glob(f"*{_MARK}*"):
        if claim.name.endswith("rebuild") or any(home.staging.glob(f"{claim.name}.*")):
            continue
        with claims.removing(claim) as alone:
            if alone and not any(home.staging.glob(f"{claim.name}.*")):
                claim.unlink(missing_ok=True)


def _swap(fresh: Path, place: Path) -> None:
    """Put `fresh` where `place` is, and what was there where `fresh` was; in one step where the system can."""
    if not place.exists():
        fresh.rename(place)
    elif not _exchange(fresh, place):
        aside = fresh.with_name(f"{fresh.name}0")
        place.rename(aside)
        fresh.rename(place)
        aside.rename(fresh)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names (renameat2, Linux); False where the system or the file system can't."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNKNOWN_THERE:
        return False
    raise OSError(code, os.strerror(code), str(one))
