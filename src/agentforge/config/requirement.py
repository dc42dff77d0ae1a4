"""One line of a `requirements` list: a package of the index, or a local one by its path."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Strict

from agentforge.config.checking import refusal

__all__ = ["LocalPackage", "PackageLines", "RequirementLine", "Requirements", "local_package"]

_LOCAL = re.compile(r"(?P<path>(?:\.{1,2}/|/).*?|\.{1,2})(?:\[(?P<extras>[A-Za-z0-9._,\s-]*)\])?")
_ARCHIVES = (".whl", ".tar.gz", ".zip")
_PROJECT_FILES = ("pyproject.toml", "setup.py")


@dataclass(frozen=True, slots=True)
class LocalPackage:
    """A package that is built from a folder or taken from a file: `./mylib`, `../dist/mylib-1.0-py3-none-any.whl`."""

    path: Path
    """As it was written: relative to whatever names it."""
    extras: str = ""
    """With their brackets: `[fast]`; empty without any."""

    def problem(self, base: Path) -> str:
        """Return why nothing can be installed from it, seen from the folder `base`; empty if something can."""
        place = base / self.path
        if place.is_dir():
            if any((place / name).is_file() for name in _PROJECT_FILES):
                return ""
            return f"the folder `{place}` has neither `pyproject.toml` nor `setup.py`"
        if not place.exists():
            return f"`{place}` does not exist"
        if not place.name.endswith(_ARCHIVES):
            return f"`{place}` is no folder, wheel (`.whl`) or source archive (`.tar.gz`)"
        return ""


def local_package(line: str) -> LocalPackage | None:
    """Return the local package that a line names; None for a package of the index."""
    found = _LOCAL.fullmatch(line.strip())
    if found is None:
        return None
    extras = re.sub(r"\s", "", found["extras"] or "")
    return LocalPackage(Path(found["path"].strip()), f"[{extras}]" if extras else "")


def _checked_requirement(value: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement  # slow to import, and rarely needed

    try:
        requirement = Requirement(value)
    except InvalidRequirement:
        hint = "Write a package with an optional version, for example `pandas>=2`."
        raise refusal(f"is `{value}`, which is not a requirement", hint) from None
    if requirement.url:
        hint = "Name a package of the index, with a version range if needed: a lock can't hold an address."
        raise refusal(f"is `{value}`, which names an address", hint)
    return value


def _checked_line(value: str) -> str:
    if value.startswith(("-e ", "--editable")):
        hint = "Write the path alone (`./mylib`): what runs is a copy, built anew when the folder changes."
        raise refusal(f"is `{value}`; nothing is installed as editable", hint)
    if local_package(value) is not None:
        return value
    if "/" in value.partition("@")[0].partition(";")[0]:
        raise refusal(f"is `{value}`, which is not a requirement", f"Begin a path with `./`: `./{value}`.")
    return _checked_requirement(value)


RequirementLine = Annotated[str, AfterValidator(_checked_requirement)]
Requirements = Annotated[tuple[RequirementLine, ...], Strict(False)]
"""Packages of the index."""
PackageLines = Annotated[tuple[Annotated[str, AfterValidator(_checked_line)], ...], Strict(False)]
"""Packages of the index, and local ones by their paths."""
