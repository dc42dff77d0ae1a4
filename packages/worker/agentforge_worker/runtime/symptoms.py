"""What a program sees of a limit of its sandbox: exceptions that stand for one, wherever they were wrapped."""

import errno
import linecache
import os
import subprocess
import types
from typing import Iterable, NamedTuple, Optional

__all__ = ["Symptom", "symptom"]


class Symptom(NamedTuple):
    """A limit that was hit."""

    code: str
    what: str
    hint: str


def _hint(*keys: str) -> str:
    return "Raise %s under `limits` in the agent file, or under `[limits]` in agentforge.toml." % " or ".join(
        "`%s`" % key for key in keys
    )


_MEMORY = Symptom("AF442", "memory", _hint("memory_mib"))
_PROCESSES = Symptom("AF443", "processes and threads", _hint("processes"))
_OPEN_FILES = Symptom("AF444", "open files", _hint("open_files"))
_FILE_SIZE = Symptom("AF445", "the size of a file", _hint("file_mib"))
_DISK = Symptom("AF446", "disk or scratch space", _hint("disk_mib", "scratch_mib"))

_BY_NUMBER = {
    errno.ENOMEM: _MEMORY,
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.EFBIG: _FILE_SIZE,
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
}
_NO_THREAD = "can't start new thread"
_NO_SCRATCH = "No usable temporary directory"
"""What `tempfile` says of one that is full."""
_SIGXFSZ = 25
"""The signal that a program gets that goes beyond the size of a file and does not ask to be told otherwise."""
_FORKING = {"subprocess.py", "popen_fork.py", "pty.py"}


def symptom(errors: Iterable[BaseException]) -> Optional[Symptom]:
    """Return the limit that one of an exception and its causes stands for, None if they have other reasons."""
    for error in errors:
        found = _of(error)
        if found is not None:
            return found
    return None


def _of(error: BaseException) -> Optional[Symptom]:
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return _PROCESSES
    if isinstance(error, subprocess.CalledProcessError) and error.returncode in (-_SIGXFSZ, 128 + _SIGXFSZ):
        return _FILE_SIZE
    if isinstance(error, FileNotFoundError) and _NO_SCRATCH in str(error):
        return _DISK
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno == errno.EAGAIN and _was_forking(error.__traceback__):
            return _PROCESSES
        return _BY_NUMBER.get(error.errno)
    return None


def _was_forking(trace: Optional[types.TracebackType]) -> bool:
    """Whether the innermost call was one that starts a process: sockets that have nothing to read fail alike."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    if os.path.basename(code.co_filename) in _FORKING:
        return True
    return "fork" in linecache.getline(code.co_filename, trace.tb_lineno)
