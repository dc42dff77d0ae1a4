"""Read TOML into a `Source`.

`tomllib` parses and checks; it tells lines only for syntax errors, so `_Locator` walks the text once more to find
where each key and value stands. It may trust the text, because `tomllib` has accepted it.
"""

import contextlib
import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from agentforge.config.source import KeyPath, Mark, Place, Problem, Source, fault, quoted_line
from agentforge.errors.config import FileSyntaxError

__all__ = ["Spans", "parse_toml", "spans"]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRINGS = (
    re.compile(r'"""(?:\\.|[^\\])*?"{3,5}(?!")', re.DOTALL),
    re.compile(r"'''.*?'{3,5}(?!')", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\\n])*"'),
    re.compile(r"'[^'\n]*'"),
)
_MOST_DOTS = 128
"""Parts of a key, and sentences of a text of many lines."""
_PLAIN = re.compile(r"[^\s,\]}#]+(?: \d\d:[^\s,\]}#]+)?")  # a date and its time may be parted by one space
_SYNTAX_PLACE = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


def parse_toml(text: str, file: str) -> Source:
    """Return the tables that a TOML document holds. Raises FileSyntaxError."""
    if any(line.partition("=")[0].count(".") > _MOST_DOTS for line in text.splitlines()):
        raise _nested(file)  # it would be, and reading it takes the square of that
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_fault(text, file, str(error)) from None
    except RecursionError:
        raise _nested(file) from None
    except ValueError:
        statement = "a number in the file has too many digits"
        raise fault([Problem(FileSyntaxError, Place(file), "", statement, "Put it in quotes if it is text.")]) from None
    locator = _Locator(text)
    # A place less in a message is no reason to fail.
    with contextlib.suppress(ValueError, IndexError, RecursionError):
        locator.document()
    return Source(file, data, locator.keys, locator.values)


class Spans(NamedTuple):
    """Where things stand in a valid TOML text, as offsets."""

    values: Mapping[KeyPath, tuple[int, int]]
    """Begin and end of each value that is written with a key."""
    headers: Sequence[tuple[KeyPath, int]]
    """Path and begin of each `[table]` and `[[table]]`, those of an array with their index."""


def spans(text: str) -> Spans:
    """Return where values and headers stand in a text that `tomllib` accepts, with `\\n` as its line ends."""
    locator = _Locator(text)
    locator.document()
    return Spans(locator.spans, locator.headers)


def _nested(file: str) -> Exception:
    return fault([Problem(FileSyntaxError, Place(file), "", "the file is nested too deeply", "Write it flatter.")])


def _syntax_fault(text: str, file: str, what: str) -> Exception:
    found = _SYNTAX_PLACE.match(what)
    message = found[1] if found else what
    if found and found[2]:
        mark = Mark(int(found[2]), int(found[3]))
    else:
        mark = Mark(text.count("\n") + 1, len(text) - text.rfind("\n"))
    lines = text.split("\n")
    line = lines[mark.line - 1] if mark.line <= len(lines) else ""
    statement = f"not valid TOML: {message[:1].lower()}{message[1:]}{quoted_line(line)}"
    hint = 'Text needs quotes in TOML: `level = "standard"`.'
    return fault([Problem(FileSyntaxError, Place(file, mark), "", statement, hint)])


class _Locator:
    """Finds the positions of keys and values in a valid TOML text."""

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")  # as tomllib does
        self._at = 0
        self._line, self._line_start = 1, 0
        self._lengths: dict[KeyPath, int] = {}
        self.keys: dict[KeyPath, Mark] = {}
        self.values: dict[KeyPath, Mark] = {}
        self.spans: dict[KeyPath, tuple[int, int]] = {}
        self.headers: list[tuple[KeyPath, int]] = []

    def document(self) -> None:
        """Walk the whole text."""
        table: KeyPath = ()
        self.values[()] = Mark(1, 1)
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)

    def _header(self) -> KeyPath:
        start, offset = self._mark(), self._at
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        written = self._dotted_key()
        self._at += 2 if is_array else 1
        path = self._through_arrays((), [key for key, _ in written[:-1]])
        last, mark = written[-1]
        self._note_parents(path, written)
        path = (*path, last)
        self.keys.setdefault(path, mark)
        if is_array:
            self.values.setdefault(path, start)
            path = self._next_item(path)
        elif self._lengths.get(path):
            path = (*path, self._lengths[path] - 1)
        self.values[path] = start
        self.headers.append((path, offset))
        return path

    def _through_arrays(self, path: KeyPath, keys: list[str]) -> KeyPath:
        """Follow a header's path; a name of an array of tables means its last item."""
        for key in keys:
            path = (*path, key)
            if self._lengths.get(path):
                path = (*path, self._lengths[path] - 1)
        return path

    def _next_item(self, path: KeyPath) -> KeyPath:
        index = self._lengths.get(path, 0)
        self._lengths[path] = index + 1
        return (*path, index)

    def _note_parents(self, path: KeyPath, written: list[tuple[str, Mark]]) -> None:
        marks = iter(mark for _, mark in written)
        for length, part in enumerate(path, start=1):
            if isinstance(part, str):
                self.keys.setdefault(path[:length], next(marks))

    def _pair(self, table: KeyPath) -> None:
        for key, mark in self._dotted_key():
            table = (*table, key)
            self.keys.setdefault(table, mark)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(table)

    def _dotted_key(self) -> list[tuple[str, Mark]]:
        found: list[tuple[str, Mark]] = []
        while True:
            self._skip(_SPACE)
            mark = self._mark()
            found.append((self._key(), mark))
            self._skip(_SPACE)
            if self._at >= len(self._text) or self._text[self._at] != ".":
                return found
            self._at += 1

    def _key(self) -> str:
        if self._text[self._at] in "\"'":
            (key,) = tomllib.loads(self._string() + " = 0")
            return str(key)
        return self._take(_BARE_KEY)

    def _value(self, path: KeyPath) -> None:
        self.values[path] = self._mark()
        begin = self._at
        first = self._text[self._at]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        elif first in "\"'":
            self._string()
        else:
            self._take(_PLAIN)
        self.spans[path] = (begin, self._at)

    def _array(self, path: KeyPath) -> None:
        for index in self._items("]"):
            self._value((*path, index))

    def _inline_table(self, path: KeyPath) -> None:
        for _ in self._items("}"):
            self._pair(path)

    def _items(self, closing: str) -> Iterator[int]:
        self._at += 1  # the opening bracket
        for index in itertools.count():
            self._skip(_BLANK)
            if self._text[self._at] == closing:
                break
            yield index
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1
        self._at += 1

    def _string(self) -> str:
        for pattern in _STRINGS:
            if pattern.match(self._text, self._at):
                return self._take(pattern)
        raise ValueError(f"no string at offset {self._at}")

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._take(pattern)

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"nothing to read at offset {self._at}")
        breaks = found[0].count("\n")
        if breaks:
            self._line += breaks
            self._line_start = found.start() + found[0].rfind("\n") + 1
        self._at = found.end()
        return found[0]

    def _mark(self) -> Mark:
        return Mark(self._line, self._at - self._line_start + 1)
