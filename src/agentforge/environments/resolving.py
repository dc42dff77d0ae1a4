"""From requirement lines to a lock: `uv pip compile`, as of a release's own time where it ships no lock."""

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

from packaging.utils import parse_wheel_filename
from packaging.version import Version

from agentforge.environments.environment import BuildProgress, Progress
from agentforge.environments.explaining import Story, explained
from agentforge.environments.index import Index
from agentforge.environments.lock import Lock, LockedPackage
from agentforge.environments.uv import Uv, explanation, failure
from agentforge.errors.environments import LockInvalid, ResolutionFailed
from agentforge.frameworks import Release

__all__ = ["Question", "as_of_release", "check_lock", "compile_lock"]

MARGIN = timedelta(days=7)
"""How long after a release its companions may have been uploaded to count as of its time."""

_LOCAL = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*) @ file://[^\s]*/(?P<file>[^\s/]+\.whl)", re.MULTILINE)
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
    bounds: tuple[str, ...] = ()
    """Versions that packages must have where they are needed: requirement lines of their own."""

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides the answer."""
        as_of = self.as_of.isoformat() if self.as_of else None
        parts = [list(self.requirements), self.floor, as_of, self.constraints]
        if self.bounds:
            parts.append(list(self.bounds))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


async def as_of_release(release: Release, index: Index) -> datetime:
    """Return the moment as of which an untested release is resolved: its upload plus a margin."""
    return (await index.uploaded_at(release.distribution, release.version)).astimezone(UTC) + MARGIN


async def compile_lock(
    uv: Uv,
    python: Path,
    question: Question,
    what: str,
    progress: Progress | None = None,
    roles: Mapping[str, str] | None = None,
    default_role: str = "",
) -> Lock:
    """Resolve a question. Raises ResolutionFailed which says who wants what, IndexUnreachable, LockInvalid.

    `roles` says who brought a requirement or bound, by its line.
    """
    if progress is not None:
        progress(BuildProgress(what, "resolving", 0, 0, f"resolving {what}"))
    with tempfile.TemporaryDirectory(prefix="agentforge-lock-") as folder:
        arguments = _arguments(Path(folder), question)
        run = await uv.run(*_COMPILE, *_LEAN, "--python", python, *arguments)
    if run.code != 0:
        error = failure(run.stderr, f"Resolving {what}", otherwise=ResolutionFailed)
        if not isinstance(error, ResolutionFailed):
            raise error
        story = Story(what, roles or {}, question.requirements, question.bounds, question.as_of, default_role)
        raise explained(explanation(run.stderr), story)
    lock = Lock(_LOCAL.sub(_by_version, run.stdout), question.requirements)
    check_lock(lock, what)
    return lock


def _arguments(folder: Path, question: Question) -> list[str | Path]:
    wanted = folder / "requirements.in"
    wanted.write_text("\n".join(question.requirements) + "\n", encoding="utf-8")
    arguments: list[str | Path] = ["--python-version", question.floor, wanted]
    if question.as_of is not None:
        arguments += ["--exclude-newer", question.as_of.strftime("%Y-%m-%dT%H:%M:%SZ")]
    if question.constraints or question.bounds:
        constraints = folder / "constraints.txt"
        pins = [_pin(package) for package in Lock(question.constraints).packages]
        constraints.write_text("\n".join([*pins, *question.bounds]) + "\n", encoding="utf-8")
        arguments += ["--constraints", constraints]
    return arguments


def _pin(package: LockedPackage) -> str:
    return f"{package.name}=={package.version}" + (f" ; {package.marker}" if package.marker else "")


def _by_version(found: re.Match[str]) -> str:
    """Return the line of a local wheel as that of any other package."""
    return f"{found['name']}=={parse_wheel_filename(unquote(found['file']))[1]}"


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
