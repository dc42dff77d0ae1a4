"""Starting a worker's process: its command line, its constructed environment, the fence around it."""

import asyncio
import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from agentforge.sandbox import Inmate, Sandbox, sandbox_for
from agentforge.workers.interpreter import started_from
from agentforge.workers.remains import WorkersFolder
from agentforge.workers.spec import WorkerSpec
from agentforge.workers.startlog import StartLog

__all__ = ["Launched", "constructed_variables", "launch"]

_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Launched:
    """A started process and this side of its connection (blocking, not yet spoken on)."""

    process: asyncio.subprocess.Process
    connection: socket.socket
    folder: Path
    log: StartLog
    separate: bool
    """Whether its processes have ids of their own, in a sandbox."""


async def launch(spec: WorkerSpec, pyz: Path, folder: Path, workers: WorkersFolder | None = None) -> Launched:
    """Start the process of a worker, behind its fence. What it needs on disk for itself is in `folder`.

    It holds a share of the lock of `workers`, where it is one of a host's. Raises OSError if it can't start,
    SandboxUnavailable if there is no fence, LeaseLost if a later host serves the project.
    """
    sandbox = await asyncio.to_thread(sandbox_for, spec.fence.level)
    _make(folder)
    log = StartLog()
    with contextlib.ExitStack() as stack:
        share = stack.enter_context(workers.share()) if workers is not None else None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        stack.enter_context(theirs)
        try:
            process = await _start(sandbox, _inmate(spec, sandbox, pyz, folder, theirs.fileno(), share), log)
            if workers is not None:
                _record(workers, folder, process)
        except BaseException:
            ours.close()
            log.close()
            raise
    return Launched(process, ours, folder, log, sandbox.separate)


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


async def _start(sandbox: Sandbox, inmate: Inmate, log: StartLog) -> asyncio.subprocess.Process:
    enclosed = sandbox.enclose(inmate)
    try:
        return await asyncio.create_subprocess_exec(
            *enclosed.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log.descriptor,
            stderr=log.descriptor,
            env=dict(enclosed.variables),
            cwd=enclosed.folder,
            pass_fds=enclosed.descriptors,
            start_new_session=True,
        )
    finally:
        enclosed.started()


def _inmate(spec: WorkerSpec, sandbox: Sandbox, pyz: Path, folder: Path, connection: int, share: int | None) -> Inmate:
    adapter = (spec.adapter.folder,) if spec.adapter is not None else ()
    return Inmate(
        command=_command(spec, pyz, connection, None if sandbox.separate else share, separate=sandbox.separate),
        variables={**constructed_variables(spec.python), **spec.variables},
        fence=spec.fence,
        reads=(*started_from(spec.python), pyz, *adapter),
        folder=folder,
        descriptors=(connection,),
        user=spec.user,
        share=share,
    )


def _record(workers: WorkersFolder, folder: Path, process: asyncio.subprocess.Process) -> None:
    try:
        workers.record(folder, process.pid)
    except OSError:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        raise


def _command(spec: WorkerSpec, pyz: Path, descriptor: int, lock: int | None, *, separate: bool) -> list[str]:
    return [
        str(spec.python),
        "-s",
        str(pyz),
        "--fd",
        str(descriptor),
        "--kind",
        spec.kind,
        *(["--gate"] if spec.fence.network else []),
        *(["--parent", str(os.getpid())] if not separate else []),
        *(["--lock", str(lock)] if lock is not None else []),
    ]


def constructed_variables(python: Path) -> dict[str, str]:
    """Return what foreign code gets for an environment besides its folders: nothing is inherited."""
    return {
        "PATH": f"{python.parent}:{_PATH}",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUTF8": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "DO_NOT_TRACK": "1",
    }
