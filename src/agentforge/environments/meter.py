"""How far an installation is, read off the words of `uv pip sync --verbose`."""

import re
from collections.abc import Callable

from agentforge.environments.environment import Stage

__all__ = ["Meter"]


class Meter:
    """Turns uv's stderr into counts. Lines it does not know are ignored: then the bar moves in larger steps."""

    _UNCACHED = re.compile(r"DEBUG Identified uncached distribution: ")
    _FETCHED = re.compile(r"DEBUG (?:No cache entry for|Found \w+ response for): \S+/([^/\s]+\.(?:whl|tar\.gz|zip))$")
    _LARGE = re.compile(r"^\s*Downloading (\S+) \(")
    _LARGE_DONE = re.compile(r"^\s*Downloaded (\S+)")
    _INSTALLED = re.compile(r"^ \+ (\S+)==")

    def __init__(self, total: int, tell: Callable[[Stage, int, int, str], None]) -> None:
        self._total, self._tell = total, tell
        self._uncached = self._installed = 0
        self._shown: tuple[Stage, int] = ("downloading", 0)
        self._fetched: set[str] = set()
        self._large: set[str] = set()

    def read(self, line: str) -> None:
        """Take one line in and tell what changed."""
        if self._UNCACHED.match(line):  # these come all at once, before the first download
            self._uncached += 1
        elif line.startswith("Prepared "):
            self._show("installing", 0, "installing")
        elif found := self._INSTALLED.match(line):
            self._installed += 1
            self._show("installing", self._installed, found[1])
        elif self._is_download(line):
            done = self._total - self._uncached + len(self._fetched) - len(self._large)
            self._show("downloading", done, ", ".join(sorted(self._large)) or "downloading")

    def _is_download(self, line: str) -> bool:
        """Count a download begun or ended; only large ones have a line for their end."""
        if found := self._LARGE.match(line):
            self._large.add(found[1])
        elif found := self._LARGE_DONE.match(line):
            self._large.discard(found[1])
        elif self._uncached and (found := self._FETCHED.match(line)):
            self._fetched.add(found[1])
        else:
            return False
        return True

    def _show(self, stage: Stage, done: int, message: str) -> None:
        done = max(0, min(done, self._total))
        if stage != self._shown[0] or done > self._shown[1]:
            self._shown = stage, done
            self._tell(stage, done, self._total, message)
