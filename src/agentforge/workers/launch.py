"""Starting a worker's process: its command line, its constructed environment, its folders."""

import asyncio
import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from agentforge.workers.remains import WorkersFolder
from agentforge.workers.spec import WorkerSpec

__all__ = ["Launched", "launch"]

_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Launched:
    """A started process and this side of its connection (blocking, not yet spoken on)."""

    process: asyncio.subprocess.Process
    connection: socket.socket
    home: Path
    log: Path


async def launch(spec: WorkerSpec, pyz: Path, folder: Path, workers: WorkersFolder | None = None) -> Launched:
    """Start the process of a worker. Its HOME and scratch are below `folder`.

    It holds a share of the lock of `workers`, where it is one of a host's. Raises OSError if it can't start, LeaseLost
    if a later host serves the project. What the interpreter says before the worker captures its own output goes to
    `folder`/start.log.
    """
    if workers is not None:
        workers.require()
    home = folder / "home"
    scratch = folder / "tmp"
    for path in (home, scratch):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = folder / "start.log"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    descriptors = [theirs.fileno(), *([workers.descriptor] if workers is not None else [])]
    try:
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *_command(spec, pyz, *descriptors),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_variables(spec, home, scratch),
                cwd=scratch,
                pass_fds=descriptors,
                start_new_session=True,
            )
        if workers is not None:
            _record(workers, folder, process)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Launched(process, ours, home, log)


def _record(workers: WorkersFolder, folder: Path, process: asyncio.subprocess.Process) -> None:
    try:
        workers.record(folder, process.pid)
    except OSError:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        raise


def _command(spec: WorkerSpec, pyz: Path, descriptor: int, lock: int | None = None) -> list[str]:
    return [
        str(spec.python),
        "-s",
        str(pyz),
        "--fd",
        str(descriptor),
        "--kind",
        spec.kind,
        "--parent",
        str(os.getpid()),
        *(["--lock", str(lock)] if lock is not None else []),
    ]


def _variables(spec: WorkerSpec, home: Path, scratch: Path) -> dict[str, str]:
    """Nothing is inherited: what a framework sees is this and no more."""
    return {
        "PATH": f"{spec.python.parent}:{_PATH}",
        "HOME": str(home),
        "TMPDIR": str(scratch),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUTF8": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "DO_NOT_TRACK": "1",
        **spec.variables,
    }
