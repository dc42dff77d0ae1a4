"""Capture of everything a framework writes to stdout and stderr, line by line, with the run it belongs to.

Two levels: `sys.stdout` and `sys.stderr` are replaced by writers that know the current run through its ContextVar;
descriptors 1 and 2 become pipes, for native code and child processes, whose lines belong to the only run or to none.
"""

import asyncio
import contextlib
import io
import os
import sys
import threading
from typing import Callable, Dict, List, Optional, Tuple

from agentforge_worker.adapter import current_run
from agentforge_worker.runtime.bounds import MAX_LINE  # longer lines are cut into several

__all__ = ["Output"]

Owner = Optional[Tuple[str, int]]
"""The run and its attempt that a line belongs to, or None."""
Sink = Callable[[Owner, str, str], None]
"""(owner, stream name, text) -> None, called on the loop."""
_STREAMS = ((1, "stdout"), (2, "stderr"))
_MARK = "\0agentforge-drain-"
"""Written to a captured descriptor to learn when everything before it has been read."""
_DRAIN_S = 1.0


class Output:
    """The captured output of this process. Lines written before `start` are kept and delivered then."""

    def __init__(self) -> None:
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._sink: Optional[Sink] = None
        self._early: List[Tuple[Owner, str, str]] = []
        self._pid = os.getpid()
        self._drains: Dict[str, "asyncio.Future[None]"] = {}
        for descriptor, name in _STREAMS:
            self._capture_descriptor(descriptor, name)
        self._writers = [_LineWriter(self, descriptor, name) for descriptor, name in _STREAMS]
        sys.stdout, sys.stderr = self._writers
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
            writer.finish_all()

    async def finish_run(self, owner: Owner, alone: bool) -> None:
        """Deliver what a run has written: it comes before the run's result.

        `alone`: what native code and child processes wrote is the run's too, so wait for it.
        """
        for writer in self._writers:
            writer.finish(owner)
        if alone:
            await asyncio.wait([self._drain(descriptor, name) for descriptor, name in _STREAMS], timeout=_DRAIN_S)
        await asyncio.sleep(0)  # the lines were passed to the loop, which sends them now

    def deliver(self, owner: Owner, stream: str, text: str) -> None:
        """Pass one line on, from any thread."""
        if os.getpid() != self._pid:  # a forked child has this object but no loop; its descriptors lead here
            os.write(1 if stream == "stdout" else 2, (text + "\n").encode("utf-8", "replace"))
        elif self._loop is None or self._sink is None:
            self._early.append((owner, stream, text))
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody who could read it
                self._loop.call_soon_threadsafe(self._sink, owner, stream, text)

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
                text, mark, _ = line.partition(_MARK + name)
                if text or not mark:
                    self.deliver(_owner(), name, text.rstrip("\n"))
                if mark and self._loop is not None:
                    with contextlib.suppress(RuntimeError):
                        self._loop.call_soon_threadsafe(self._drained, name)

    def _drain(self, descriptor: int, name: str) -> "asyncio.Future[None]":
        """Return what is done once everything written to a descriptor so far has been delivered."""
        assert self._loop is not None
        done = self._drains.get(name)
        if done is None or done.done():
            done = self._drains[name] = self._loop.create_future()
            os.write(descriptor, (_MARK + name + "\n").encode("ascii"))
        return done

    def _drained(self, name: str) -> None:
        if not self._drains[name].done():
            self._drains[name].set_result(None)


class _LineWriter(io.TextIOBase):
    """A text stream whose lines carry the run of the code that wrote them."""

    def __init__(self, output: Output, descriptor: int, name: str) -> None:
        self._output = output
        self._descriptor = descriptor
        self._name = name
        self._lock = threading.Lock()
        self._partial: Dict[Owner, str] = {}
        self.buffer = io.FileIO(descriptor, "w", closefd=False)
        """For bytes, which go the way of native writes."""

    def write(self, text: str) -> int:
        owner = _owner()
        with self._lock:
            lines = (self._partial.pop(owner, "") + text).split("\n")
            rest = lines.pop()
            if len(rest) > MAX_LINE:
                lines.append(rest)
            elif rest:
                self._partial[owner] = rest
        for line in lines:
            for start in range(0, max(len(line), 1), MAX_LINE):
                self._output.deliver(owner, self._name, line[start : start + MAX_LINE])
        return len(text)

    def finish(self, owner: Owner) -> None:
        with self._lock:
            text = self._partial.pop(owner, None)
        if text is not None:
            self._output.deliver(owner, self._name, text)

    def finish_all(self) -> None:
        for owner in list(self._partial):
            self.finish(owner)

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
        return self._descriptor


def _owner() -> Owner:
    try:
        run = current_run()
    except LookupError:
        return None
    return run.run_id, run.attempt
