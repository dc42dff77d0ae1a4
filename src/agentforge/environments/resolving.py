"""From requirement lines to a lock: `uv pip compile`, as of a release's own time where it ships no lock."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from agentforge.environments.environment import BuildProgress, Progress
from agentforge.environments.index import Index
from agentforge.environments.lock import Lock, LockedPackage
from agentforge.environments.uv import Uv, failure
from agentforge.errors.environments import LockInvalid, RequirementInvalid, ResolutionFailed
from agentforge.frameworks import Release

__all__ = ["Question", "as_of_release", "check_lock", "checked_requirements", "compile_lock"]

MARGIN = timedelta(days=7)
"""How long after a release its companions may have been uploaded to count as of its time."""

_COMPILE = ("pip", "compile", "--universal", "--generate-hashes")
_LEAN = ("--no-emit-index-url", "--no-annotate", "--no-header")


@dataclass(frozen=True, slots=True)
class Question:
    """What a lock is resolved from; its digest names the answer."""

    requirements: tuple[str, ...]
    floor: str
    """Oldest Python series that the lock must serve: 3.11."""
    as_of: datetime | None = None
    """Nothing uploaded later is used; None: everything there is."""
    constraints: str = ""
    """Text of a lock whose pins must stay."""

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides the answer."""
        as_of = self.as_of.isoformat() if self.as_of else None
        parts = [list(self.requirements), self.floor, as_of, self.constraints]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def checked_requirements(lines: Sequence[str]) -> tuple[str, ...]:
    """Return requirement lines stripped and sorted. Raises RequirementInvalid with the first bad line."""
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            raise RequirementInvalid(f"`{line}` is not a requirement: {str(error).splitlines()[0]}") from None
        if requirement.url:
            raise RequirementInvalid(
                f"`{line}` names an address, which a lock can't hold",
                hint="Name a package of the index, with a version range if needed.",
            )
    return tuple(sorted({line.strip() for line in lines}))


async def as_of_release(release: Release, index: Index) -> datetime:
    """Return the moment as of which an untested release is resolved: its upload plus a margin."""
    return (await index.uploaded_at(release.distribution, release.version)).astimezone(UTC) + MARGIN


async def compile_lock(uv: Uv, python: Path, question: Question, what: str, progress: Progress | None = None) -> Lock:
    """Resolve a question. Raises ResolutionFailed with uv's explanation, IndexUnreachable, LockInvalid."""
    if progress is not None:
        progress(BuildProgress(what, "resolving", 0, 0, f"resolving {what}"))
    with tempfile.TemporaryDirectory(prefix="agentforge-lock-") as folder:
        arguments = _arguments(Path(folder), question)
        run = await uv.run(*_COMPILE, *_LEAN, "--python", python, *arguments)
    if run.code != 0:
        raise failure(run.stderr, f"Resolving {what}", otherwise=ResolutionFailed)
    lock = Lock(run.stdout, question.requirements)
    check_lock(lock, what)
    return lock


def _arguments(folder: Path, question: Question) -> list[str | Path]:
    wanted = folder / "requirements.in"
    wanted.write_text("\n".join(question.requirements) + "\n", encoding="utf-8")
    arguments: list[str | Path] = ["--python-version", question.floor, wanted]
    if question.as_of is not None:
        arguments += ["--exclude-newer", question.as_of.strftime("%Y-%m-%dT%H:%M:%SZ")]
    if question.constraints:
        constraints = folder / "constraints.txt"
        pins = (
            f"{p.name}=={p.version}" + (f" ; {p.marker}" if p.marker else "")
            for p in Lock(question.constraints).packages
        )
        constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
        arguments += ["--constraints", constraints]
    return arguments


def _pin(package: LockedPackage) -> str:
    return f"{package.name}=={package.version}" + (f" ; {package.marker}\n" if package.marker else "\n")


def check_lock(lock: Lock, what: str, distribution: str = "", version: str = "") -> None:
    """Refuse a lock that holds an address, a line without hashes, or another version than the one asked for.

    A resolver may satisfy loose requirements with an ancient release; that is an error to show. Raises LockInvalid.
    """
    if "://" in lock.text:
        raise LockInvalid(f"The lock of {what} holds an address")
    bare = next((p for p in lock.packages if not p.hashed), None)
    if bare is not None:
        raise LockInvalid(f"The lock of {what} has no hash for `{bare.name}`")
    if distribution:
        found = lock.versions_of(distribution)
        if not found or any(Version(v) != Version(version) for v in found):
            got = ", ".join(f"`{v}`" for v in found) or "none"
            raise LockInvalid(f"The lock of {what} must hold `{distribution}` {version}, but holds {got}")
