"""What a project and an agent add to the requirements of a release, line by line.

    langchain-anthropic>=1           a package of the index
    -c openai<2                      a bound: the version a package must have where it is installed at all
    [anthropic]                      extras of the framework's own package
    ./mylib[fast]#sha256=0a1b2c3d    a local package, and which content of it; the path is relative to the project

The lines are part of what a project's lock is asked for; the content behind a path is not, so that an edit of it
changes the lock and not the request.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement

from agentforge.config.requirement import local_package
from agentforge.environments.wheels import LocalWheel
from agentforge.errors.environments import RequirementInvalid

__all__ = [
    "BOUND",
    "CONTENT",
    "Additions",
    "asked",
    "checked_lines",
    "checked_requirements",
    "content_of",
    "roles_for_uv",
]

BOUND = "-c "
CONTENT = "#sha256="
_CONTENT = re.compile(r"[0-9a-f]{16}")
_EXTRAS = re.compile(r"\[[A-Za-z0-9._,-]+\]")


@dataclass(frozen=True, slots=True)
class Additions:
    """Additional lines as uv takes them."""

    requirements: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()

    @classmethod
    def read(cls, lines: Sequence[str], distribution: str, local: Mapping[str, LocalWheel]) -> "Additions":
        """Sort the lines; `local` has the wheel of each local package. Raises RequirementInvalid."""
        bounds = [line.removeprefix(BOUND) for line in lines if line.startswith(BOUND)]
        plain = [_as_package(line, distribution) for line in lines if not (line in local or line.startswith(BOUND))]
        built = [_as_address(line, local[line]) for line in lines if line in local]
        return cls((*checked_requirements(plain), *sorted(built)), checked_requirements(bounds))


def roles_for_uv(roles: Mapping[str, str], distribution: str, local: Mapping[str, LocalWheel]) -> dict[str, str]:
    """Return who brought a line by the line as uv takes it."""
    return {
        _as_address(line, local[line]) if line in local else _as_package(line, distribution).removeprefix(BOUND): role
        for line, role in roles.items()
    }


def _as_package(line: str, distribution: str) -> str:
    return f"{distribution}{line}" if line.startswith("[") else line


def _as_address(line: str, wheel: LocalWheel) -> str:
    return f"{wheel.name}{_extras(line)} @ {wheel.address}"


def _extras(line: str) -> str:
    path = line.partition(CONTENT)[0]
    return path[path.index("[") :] if path.endswith("]") else ""


def asked(lines: Iterable[str]) -> tuple[str, ...]:
    """Return lines as a request has them: sorted, and without which content is behind a path."""
    return tuple(sorted(line.partition(CONTENT)[0] for line in lines))


def content_of(line: str) -> str:
    """Return which content of a local package a line means; empty for any other line."""
    return line.partition(CONTENT)[2]


def checked_lines(lines: Iterable[str]) -> None:
    """Check lines that somebody else wrote for the form that they have in a lock. Raises RequirementInvalid."""
    for line in lines:
        if CONTENT in line:
            local = local_package(line.partition(CONTENT)[0])
            if local is None or local.path.is_absolute() or not _CONTENT.fullmatch(content_of(line)):
                raise RequirementInvalid(f"`{line}` is no local package with its content")
        elif not _EXTRAS.fullmatch(line):
            checked_requirements([line.removeprefix(BOUND)])


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
