"""Small changes to a TOML file that somebody wrote by hand: everything else in it, comments too, stays as it is."""

import contextlib
import copy
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from agentforge.config.reading import read_text
from agentforge.config.toml_source import parse_toml, spans
from agentforge.errors.config import NotEditableError

__all__ = ["add_table", "edit", "remove_table", "set_value"]

_CONTENT = re.compile(r"^[ \t]*[^#\s]", re.MULTILINE)


def edit(file: Path, change: Callable[[str], str], expected: Callable[[dict[str, Any]], None]) -> None:
    """Change a file's text, or make the file; `expected` makes the same change to what the file says.

    Raises FileSyntaxError for a file that is no TOML, NotEditableError where the two come out differently.
    """
    before = read_text(file) if file.exists() else ""
    try:
        data = copy.deepcopy(parse_toml(before, str(file)).data)
        expected(data)
        after = change(before.replace("\r\n", "\n"))
        if tomllib.loads(after) != data:
            raise ValueError("something else would change")
    except (ValueError, IndexError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise NotEditableError(
            f"`{file}` is written in a way that can't be changed by program: {why}",
            hint="Make the change by hand; docs/reference/project.md has the keys.",
            file=str(file),
        ) from None
    _write(file, after.replace("\n", "\r\n") if "\r\n" in before else after)


def set_value(text: str, table: str, key: str, value: Any) -> str:
    """Return the text with another value of `key` in `[table]`."""
    written = tomli_w.dumps({"x": value}).removeprefix("x = ").strip()
    found = spans(text)
    span = found.values.get((table, key))
    if span is not None:
        return text[: span[0]] + written + text[span[1] :]
    header = next((offset for path, offset in found.headers if path == (table,)), None)
    if header is None:
        return f"{_ended(text)}[{table}]\n{key} = {written}\n"
    end = text.find("\n", header)
    end = len(text) if end < 0 else end
    return f"{text[:end]}\n{key} = {written}{text[end:]}"


def add_table(text: str, path: tuple[str, str], table: Mapping[str, Any]) -> str:
    """Return the text with one more `[[a.b]]` at its end."""
    return f"{_ended(text)}[[{'.'.join(path)}]]\n{tomli_w.dumps(table)}"


def remove_table(text: str, path: tuple[str, str], index: int) -> str:
    """Return the text without the `index`-th `[[a.b]]`."""
    headers = spans(text).headers
    place = next((n for n, (found, _) in enumerate(headers) if found == (*path, index)), None)
    if place is None:
        raise ValueError(f"`{'.'.join(path)}` is not an array of tables")
    begin = headers[place][1]
    end = headers[place + 1][1] if place + 1 < len(headers) else len(text)
    last = list(_CONTENT.finditer(text, begin, end))[-1]
    line_end = text.find("\n", last.end())
    end = len(text) if line_end < 0 else min(end, line_end + 1)
    rest = text[end:]
    return text[:begin].rstrip("\n") + ("\n" if text[:begin].strip() else "") + rest


def _ended(text: str) -> str:
    return f"{text.rstrip(chr(10))}\n\n" if text.strip() else ""


def _write(file: Path, text: str) -> None:
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
        fresh.write_text(text, encoding="utf-8", newline="")
        fresh.chmod(mode)
        fresh.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):  # of a read-only file system not even what is not there can be removed
            fresh.unlink()
        raise NotEditableError(
            f"`{file}` can't be written: {error.strerror}",
            hint="The file and its folder have to be writable for this command.",
            file=str(file),
        ) from None
