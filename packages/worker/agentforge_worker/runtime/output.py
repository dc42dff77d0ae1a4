"""Capture of everything a framework writes to stdout and stderr, line by line, with the run it belongs to.

Two levels: `sys.stdout` and `sys.stderr` are replaced by writers that know the current run through its ContextVar;
descriptors 1 and 2 become pipes, for native code and child processes, whose lines belong to the only run or to none.
"""

import asyncio
import io
import os
import sys
import threading
from typing import Callable, List, Optional, Tuple

from agentforge_worker.adapter import current_run

__all__ = ["Output"]

Sink = Callable[[Optional[str], str, str], None]
"""(run_id or None, stream name, text) -> None, called on the loop."""
MAX_LINE = 16384
"""Characters of one line; longer ones are cut into several."""


class Output:
    """The captured output of this process. Lines written before `start` are kept and delivered then."""

    def __init__(self) -> None:
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._sink: Optional[Sink] = None
        self._early: List[Tuple[Optional[str], str, str]] = []
        self._writers = [_LineWriter(self, "stdout"), _LineWriter(self, "stderr")]
        sys.stdout, sys.stderr = self._writers
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            self._capture_descriptor(descriptor, name)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)

    def start(self, loop: asyncio.AbstractEventLoop, sink: Sink) -> None:
        """Deliver lines to `sink` on `loop` from now on."""
        self._loop, self._sink = loop, sink
        for line in self._early:
            sink(*line)
        self._early = []

    def flush(self) -> None:
        """Deliver lines that have no newline yet."""
        for writer in self._writers:
            writer.finish()

    def deliver(self, run_id: Optional[str], stream: str, text: str) -> None:
        """Pass one line on, from any thread."""
        if self._loop is None or self._sink is None:
            self._early.append((run_id, stream, text))
            return
        try:
            self._loop.call_soon_threadsafe(self._sink, run_id, stream, text)
        except RuntimeError:
            pass  # the loop has ended, and with it everybody who could read the line

    def _capture_descriptor(self, descriptor: int, name: str) -> None:
        reader, writer = os.pipe()
        os.dup2(writer, descriptor)
        os.close(writer)
        threading.Thread(target=self._read, args=(reader, name), name="output-" + name, daemon=True).start()

    def _read(self, reader: int, name: str) -> None:
        with io.open(reader, "r", encoding="utf-8", errors="replace", newline=None) as lines:
            while True:
                line = lines.readline(MAX_LINE)
                if not line:
                    return
                self.deliver(_run_id(), name, line.rstrip("\n"))


class _LineWriter(io.TextIOBase):
    """A text stream whose lines carry the run of the code that wrote them."""

    def __init__(self, output: Output, name: str) -> None:
        self._output = output
        self._name = name
        self._lock = threading.Lock()
        self._partial = ""

    def write(self, text: str) -> int:
        run_id = _run_id()
        with self._lock:
            lines = (self._partial + text).split("\n")
            self._partial = lines.pop()
            if len(self._partial) > MAX_LINE:
                lines.append(self._partial)
                self._partial = ""
        for line in lines:
            for start in range(0, max(len(line), 1), MAX_LINE):
                self._output.deliver(run_id, self._name, line[start : start + MAX_LINE])
        return len(text)

    def finish(self) -> None:
        if self._partial:
            self.write("\n")

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "replace"

    def fileno(self) -> int:
        return 1 if self._name == "stdout" else 2


def _run_id() -> Optional[str]:
    try:
        return current_run().run_id
    except LookupError:
        return None
