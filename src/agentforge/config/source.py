"""A file as data together with where everything stands, and the problems found in it.

The readers (`yaml_source`, `toml_source`) make a `Source`; the checks make `Problem`s; `fault` turns those into the
one error that the user sees.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentforge.errors.config import ConfigError

__all__ = ["KeyPath", "Mark", "Place", "Problem", "Source", "did_you_mean", "fault", "quoted_line", "shown"]

KeyPath = tuple[str | int, ...]
SHOWN_PROBLEMS = 8
SHOWN_VALUE = 60
SHOWN_LINE = 70
_SECRETIVE = re.compile(r"key|token|secret|passw|bearer", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mark:
    """A position in a text, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a problem is: a file with a position, or the name of a variable."""

    file: str
    mark: Mark | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.mark.line}:{self.mark.column}" if self.mark else self.file


@dataclass(frozen=True)
class Source:
    """What a file says and where each key and value of it stands.

    `overrides` names the variables that replaced values of the file.
    """

    file: str
    data: dict[str, Any]
    keys: Mapping[KeyPath, Mark] = field(default_factory=dict)
    values: Mapping[KeyPath, Mark] = field(default_factory=dict)
    overrides: Mapping[KeyPath, str] = field(default_factory=dict)

    def key_place(self, path: KeyPath) -> Place:
        """Return where a key stands (its parent's value if it is not there)."""
        if path in self.keys and not self._variable(path):
            return Place(self.file, self.keys[path])
        return self.value_place(path)

    def value_place(self, path: KeyPath) -> Place:
        """Return where a value stands, or the nearest thing around it that stands somewhere."""
        variable = self._variable(path)
        if variable:
            return Place(variable)
        for length in range(len(path), -1, -1):
            mark = self.values.get(path[:length]) or self.keys.get(path[:length])
            if mark:
                return Place(self.file, mark)
        return Place(self.file)

    def _variable(self, path: KeyPath) -> str | None:
        for length in range(len(path), 0, -1):
            if path[:length] in self.overrides:
                return self.overrides[path[:length]]
        return None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, which key, what, and what would be right."""

    kind: type[ConfigError]
    place: Place
    key: str
    statement: str
    hint: str = ""

    @property
    def message(self) -> str:
        """The place and the statement."""
        return f"`{self.place}`: {self.statement}"


def fault(problems: Sequence[Problem]) -> ConfigError:
    """Return the error for one or more problems: the first one's code, everybody's text."""
    first = problems[0]
    details: dict[str, Any] = {"file": first.place.file, "key": first.key}
    if first.place.mark:
        details |= {"line": first.place.mark.line, "column": first.place.mark.column}
    if len(problems) == 1:
        return first.kind(first.message, hint=first.hint, **details)
    details["problems"] = [{"code": p.kind.code, "message": p.message, "hint": p.hint, "key": p.key} for p in problems]
    lines = [first.message]
    lines += [f"{p.message} ({p.hint})" if p.hint else p.message for p in problems[1:SHOWN_PROBLEMS]]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"and {len(problems) - SHOWN_PROBLEMS} more")
    return first.kind("\n".join(lines), hint=first.hint, **details)


def quoted_line(line: str) -> str:
    """Return `, at ...` with a line of a file, or nothing if a secret may stand in it."""
    line = line.strip()
    return "" if not line or _SECRETIVE.search(line) else f", at `{line[:SHOWN_LINE]}`"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `Did you mean ...?` with the nearest known word, or the list of them."""
    words = sorted(known)
    lowered = {each.lower(): each for each in reversed(words)}
    near = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    if near:
        return f"Did you mean `{lowered[near[0]]}`?"
    return "Known: " + ", ".join(f"`{each}`" for each in words) + "." if words else ""


def shown(value: object) -> str:
    """Return a value as it may stand in a message: one line, short."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= SHOWN_VALUE else text[: SHOWN_VALUE - 3] + "..."
