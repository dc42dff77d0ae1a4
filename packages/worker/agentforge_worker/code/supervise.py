"""The first process of the sandbox: `python -s worker.pyz code --folder PATH --inode DEV:INO --timeout SECONDS`.

The code comes on stdin. What goes out on stdout is one JSON object and nothing else:
{ended, stdout, stderr, result, error, files}. `ended` is `done`, `timed_out`, or `refused` where nothing was run.
"""

import argparse
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

from agentforge_worker.code.cell import run_cell

__all__ = ["main"]

MOST_OUTPUT = 20000
"""Bytes that are kept of stdout, and of stderr: half of it from the beginning, half from the end."""
MOST_FILES = 100
_MOST_LOOKED_AT = 20000
_MOST_OUTCOME = 1 << 18
_MOST_NAME = 500
_CHUNK = 1 << 16
_COARSE = 5  # CLOCK_REALTIME_COARSE, clock_gettime(2): the clock of file times

Report = Dict[str, Any]


def main(arguments: List[str]) -> int:
    """Run the code and report; in the process that runs it, return when it is over."""
    parser = argparse.ArgumentParser(prog="worker.pyz code")
    parser.add_argument("--folder", required=True, help="where the code runs and may keep files")
    parser.add_argument("--inode", required=True, help="which folder that has to be, DEVICE:INODE")
    parser.add_argument("--timeout", type=float, required=True, help="seconds that the code may take")
    options = parser.parse_args(arguments)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])  # whatever came along with the three that count
    with open(0, "rb", closefd=False) as stdin:
        code = stdin.read().decode("utf-8", "replace")
    os.chdir(options.folder)
    found = os.stat(".")
    if "%d:%d" % (found.st_dev, found.st_ino) != options.inode:
        _report({"ended": "refused"})  # somebody has put another folder there since the host looked
        return 0
    return _supervised(code, options.timeout)


def _supervised(code: str, timeout_s: float) -> int:
    began = time.clock_gettime(_COARSE)
    pipes = [os.pipe() for _ in range(3)]
    woken, waker = os.pipe()  # tells of the child's end
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _become_cell([woken, waker, *(reader for reader, _ in pipes)], [writer for _, writer in pipes])
        run_cell(code, pipes[2][1])
        return 0
    for _, writer in pipes:
        os.close(writer)
    kept = {pipes[0][0]: _Kept(MOST_OUTPUT), pipes[1][0]: _Kept(MOST_OUTPUT), pipes[2][0]: _Kept(_MOST_OUTCOME)}
    status = _watch(child, kept, woken, time.monotonic() + timeout_s)
    stdout, stderr, answer = kept.values()
    told = _told(answer.whole(), status)
    told.update(stdout=stdout.text(), stderr=stderr.text(), files=_changed(began))
    _report(told)
    return 0


def _become_cell(readers: List[int], writers: List[int]) -> None:
    """Leave what is the supervisor's alone, and have what is printed go to it."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(writers[0], 1)
    os.dup2(writers[1], 2)
    for descriptor in (null, writers[0], writers[1], *readers):
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)  # what was printed is not lost with a process that ends in no order
    sys.argv = [""]
    sys.path[0] = ""  # in place of this program: what the code has written may be imported


def _watch(child: int, kept: "Dict[int, _Kept]", woken: int, deadline: float) -> Optional[int]:
    """Read until the child has ended; return how (None: it was stopped because time was up)."""
    open_ones = set(kept)
    status: Optional[int] = None
    while True:
        left_s = deadline - time.monotonic()
        ready, _, _ = select.select([woken, *open_ones], [], [], max(left_s, 0.0))
        for reader in ready:
            if reader == woken:
                os.read(woken, _CHUNK)
            elif not kept[reader].take(os.read(reader, _CHUNK)):
                open_ones.discard(reader)
        pid, ended = os.waitpid(child, os.WNOHANG)
        if pid:
            status = ended
            break
        if left_s <= 0:
            break
    if status is None:
        _kill(child)
        os.waitpid(child, 0)
    else:
        _kill_group(child)
    for reader in open_ones:  # what is in the pipes; others that the code has started may still write there
        os.set_blocking(reader, False)
        for _ in range(16):
            if not _take_ready(reader, kept[reader]):
                break
    return status


def _take_ready(reader: int, kept: "_Kept") -> bool:
    try:
        return kept.take(os.read(reader, _CHUNK))
    except BlockingIOError:
        return False


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)  # by itself too: it may not have got to making its group yet
    _kill_group(child)


def _kill_group(child: int) -> None:
    """End what the code has started; processes that have left its group end with the sandbox."""
    try:
        os.killpg(child, signal.SIGKILL)
    except OSError:
        pass


class _Kept:
    """The beginning and the end of what came."""

    def __init__(self, most: int) -> None:
        self._half = most // 2
        self._head = b""
        self._tail = b""
        self._count = 0

    def take(self, data: bytes) -> bool:
        """Take what was read; False at the end."""
        self._count += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail = (self._tail + data[room:])[-self._half :]
        return bool(data)

    def text(self) -> str:
        left_out = self._count - len(self._head) - len(self._tail)
        middle = b"\n[... %d bytes left out ...]\n" % left_out if left_out else b""
        return (self._head + middle + self._tail).decode("utf-8", "replace")

    def whole(self) -> Optional[bytes]:
        """Return all that came, None if that is too much."""
        return self._head + self._tail if self._count == len(self._head) + len(self._tail) else None


def _told(answer: Optional[bytes], status: Optional[int]) -> Report:
    """Return what the cell has said of the code, or what can be said of one that has said nothing."""
    if status is None:
        return {"ended": "timed_out", "result": None, "error": None}
    outcome = _parsed(answer)
    if outcome is None:
        outcome = {"result": None, "error": {"type": "ProcessEnded", "message": _end(status), "traceback": ""}}
    return {"ended": "done", "result": outcome.get("result"), "error": outcome.get("error")}


def _parsed(answer: Optional[bytes]) -> Optional[Report]:
    try:
        found = json.loads(answer) if answer else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _end(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        names = {each.value: each.name for each in signal.Signals}
        why = ": it may have used more memory than it is allowed" if number == signal.SIGKILL else ""
        return "the process of the code was ended by %s%s" % (names.get(number, "signal %d" % number), why)
    return "the process of the code ended with status %d before the code did" % os.WEXITSTATUS(status)


def _changed(since: float) -> List[str]:
    """Return names of files in this folder that were made or changed since then, sorted, the first of them."""
    found: List[str] = []
    folders = [""]
    looked_at = 0
    while folders and looked_at < _MOST_LOOKED_AT:
        folder = folders.pop()
        for name, is_folder, changed in _entries(folder):
            looked_at += 1
            if is_folder:
                folders.append(name)
            elif changed >= since and len(name) <= _MOST_NAME:
                found.append(os.fsencode(name).decode("utf-8", "replace"))
    return sorted(found)[:MOST_FILES]


def _entries(folder: str) -> "List[Tuple[str, bool, float]]":
    found: List[Tuple[str, bool, float]] = []
    try:
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                if len(found) >= _MOST_LOOKED_AT:
                    break
                name = "%s/%s" % (folder, entry.name) if folder else entry.name
                is_folder = entry.is_dir(follow_symlinks=False)
                found.append((name, is_folder, 0.0 if is_folder else entry.stat(follow_symlinks=False).st_ctime))
    except OSError:
        pass  # the code may take the right to look from itself
    return found


def _report(report: Report) -> None:
    whole: Report = {"ended": "done", "stdout": "", "stderr": "", "result": None, "error": None, "files": []}
    whole.update(report)
    data = json.dumps(whole).encode("utf-8")
    while data:
        data = data[os.write(1, data) :]
