"""Releases that should not be used any more: who says so, from when on, and until when they can be."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from agentforge.config.framework_config import Deprecation, DeprecationPolicy
from agentforge.errors.frameworks import ReleaseEnded
from agentforge.frameworks.release import Reference, Release

__all__ = ["Deprecated", "deprecation_of", "require_usable"]


@dataclass(frozen=True, slots=True)
class Deprecated:
    """What holds for one release."""

    since: date
    end: date | None
    successor: str | None
    reason: str
    by: str
    """`project` or `adapter`."""
    framework: str = ""
    """What the project's policy names: `langchain@0.2`; empty for an adapter's."""

    def state(self, today: date) -> str:
        """Return `announced`, `deprecated` or `ended`."""
        if self.end is not None and today > self.end:
            return "ended"
        return "deprecated" if today >= self.since else "announced"

    def to_json(self, today: date) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "state": self.state(today),
            "since": self.since.isoformat(),
            "end": self.end.isoformat() if self.end else None,
            "successor": self.successor,
            "reason": self.reason,
            "by": self.by,
        }

    def warning(self, release: Release) -> str:
        """Return what who uses the release is told."""
        text = f"{release.framework.title} {release.version} is deprecated since {self.since}"
        text += f" and can be used until {self.end}" if self.end else ""
        text += f": {self.reason.rstrip('.')}" if self.reason else ""
        return text + (f"; use `{self.successor}`" if self.successor else "")


def deprecation_of(release: Release, policies: Iterable[DeprecationPolicy] = ()) -> Deprecated | None:
    """Return what is said of a release: by the project's most exact policy, else by its adapter; None for nothing."""
    found = [(_exactness(reference), each) for each in policies if (reference := _about(each, release)) is not None]
    if found:
        policy = max(found, key=lambda pair: pair[0])[1]
        return _deprecated(policy, "project", policy.framework)
    return _deprecated(release.deprecated, "adapter") if release.deprecated is not None else None


def _deprecated(said: Deprecation, by: str, framework: str = "") -> Deprecated:
    return Deprecated(said.since, said.end, said.successor, said.reason, by, framework)


def _about(policy: DeprecationPolicy, release: Release) -> Reference | None:
    reference = Reference.parse(policy.framework)
    same = reference.name == release.framework.name and reference.admits(release.version)
    return reference if same else None


def _exactness(reference: Reference) -> tuple[bool, int]:
    return reference.version is not None, (reference.series or "").count(".") + 1 if reference.series else 0


def require_usable(release: Release, policies: Iterable[DeprecationPolicy], today: date) -> tuple[str, ...]:
    """Return what to warn of when a release is used. Raises ReleaseEnded after its last day."""
    said = deprecation_of(release, policies)
    if said is None or (state := said.state(today)) == "announced":
        return ()
    if state == "deprecated":
        return (said.warning(release),)
    whose = "this project's policy" if said.by == "project" else "its adapter"
    why = f": {said.reason.rstrip('.')}" if said.reason else ""
    hint = f"Use `{said.successor}`. " if said.successor else ""
    raise ReleaseEnded(
        f"{release.framework.title} {release.version} could be used until {said.end}, says {whose}{why}",
        hint=f"{hint}`agentforge framework deprecate {release.reference} --since DAY --end DAY` gives it more time.",
        **said.to_json(today),
    )
