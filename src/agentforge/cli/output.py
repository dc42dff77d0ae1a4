"""What commands print: data on stdout, talk on stderr, errors with code and hint, tables for people."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from agentforge.api.encoding import encode
from agentforge.errors import AgentForgeError, ErrorInfo

__all__ = ["Table", "pairs", "print_json", "print_text", "say", "say_error", "say_failure", "say_hint", "shorten"]

_RED, _YELLOW, _DIM, _RESET = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


def print_json(value: Any) -> None:
    """Print one JSON object on one line of stdout."""
    sys.stdout.buffer.write(encode(value) + b"\n")
    sys.stdout.flush()


def print_text(text: str, end: str = "\n") -> None:
    """Print data for people on stdout."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def say(text: str) -> None:
    """Say something on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def say_error(error: AgentForgeError) -> None:
    """Say what went wrong and what to do about it."""
    say_failure(error.info())


def say_failure(info: ErrorInfo, prefix: str = "") -> None:
    """Say an error as it stands in a result."""
    say(f"{_colored(_RED, f'error[{info.code}]')}: {prefix}{info.message}")
    if info.hint:
        say_hint(info.hint)


def say_hint(text: str) -> None:
    """Say what to type or change."""
    say(f"{_colored(_YELLOW, 'hint')}: {text}")


def pairs(values: dict[str, Any]) -> str:
    """Return `key=value` of what is not None."""
    return " ".join(f"{key}={value}" for key, value in values.items() if value is not None)


def shorten(text: str, width: int) -> str:
    """Return one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


class Table:
    """Rows for people: aligned columns on stdout, the last one cut to the terminal's width."""

    def __init__(self, *columns: str) -> None:
        self._rows: list[Sequence[str]] = [columns]

    def add(self, *cells: object) -> None:
        """Add a row; None shows as a dash."""
        self._rows.append(["-" if cell is None or cell == "" else str(cell) for cell in cells])

    def print(self) -> None:
        """Print the table."""
        widths = [max(len(row[i]) for row in self._rows) for i in range(len(self._rows[0]))]
        limit = _terminal_width()
        for number, row in enumerate(self._rows):
            line = "  ".join(_padded(row, widths)).rstrip()
            line = shorten_line(line, limit)
            print_text(_dim(line) if number == 0 else line)


def shorten_line(line: str, limit: int) -> str:
    """Cut a line to the terminal, if there is one."""
    return line if limit <= 0 or len(line) <= limit else line[: limit - 1] + "…"


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    return (cell.ljust(width) for cell, width in zip(row, widths, strict=True))


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def _dim(text: str) -> str:
    return f"{_DIM}{text}{_RESET}" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


def _colored(color: str, text: str) -> str:
    return f"{color}{text}{_RESET}" if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else text
