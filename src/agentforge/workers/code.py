"""Running code that a model wrote: for each call a process in a sandbox of its own, which ends with it.

What comes from such a process is read up to a limit and given on as bytes: nothing of it is believed here.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from agentforge.errors.sandbox import LimitExceeded
from agentforge.errors.tools import CodeUnfenced
from agentforge.errors.workers import WorkerStartFailed
from agentforge.sandbox import Fence, Inmate, Sandbox, Watch
from agentforge.workers.inside import Inside
from agentforge.workers.interpreter import started_from
from agentforge.workers.launch import constructed_variables
from agentforge.workers.process import status_text
from agentforge.workers.remains import WorkersFolder
from agentforge.workers.removal import remove_tree

__all__ = ["CodeEnd", "CodeSpec", "run_code"]

_GRACE_S = 10.0
"""How much longer than the code its process may take: to start, to look for files, to report."""
_SAID = 500


@dataclass(frozen=True, slots=True)
class CodeSpec:
    """What code runs in."""

    python: Path
    """The interpreter of its environment."""
    fence: Fence
    """Of it only the level and the limits count: code gets its workspace and nothing else."""
    user: int | None = None
    """The user id that the workspace belongs to, where the host can give one."""


@dataclass(frozen=True, slots=True)
class CodeEnd:
    """What came of a process that ran code."""

    report: bytes
    """What it wrote, cut after one byte more than was asked for."""
    status: str
    """How it ended, in words."""


async def run_code(
    sandbox: Sandbox,
    spec: CodeSpec,
    code: str,
    *,
    workspace: Path,
    pyz: Path,
    folder: Path,
    workers: WorkersFolder,
    watch: Watch,
    timeout_s: float,
    most_bytes: int,
) -> CodeEnd:
    """Run code to its end. What the sandbox needs on disk is in `folder`, which is removed.

    Raises CodeUnfenced if there would be no fence, SandboxUnavailable or WorkerStartFailed if it can't be started,
    TimeoutError if it takes far longer than `timeout_s`, the LimitExceeded that it was ended for, LeaseLost if a later
    host serves the project.
    """
    if spec.fence.level == "none":
        raise CodeUnfenced("code that a model wrote is not run without a sandbox")
    _make(folder)
    try:
        with contextlib.ExitStack() as stack:
            share = stack.enter_context(workers.share())
            try:
                inode = _inode(workspace)
                await asyncio.to_thread(sandbox.take_over, workspace, spec.user)
                inmate = _inmate(spec, workspace, inode, pyz, folder, share, timeout_s)
                process = await _started(sandbox, inmate)
            except OSError as error:
                raise WorkerStartFailed(f"the sandbox of the code can't be started: {error}") from error
            try:
                workers.record(folder, process.pid)
                if (inside := await Inside.appear(process)) is not None:
                    stack.callback(inside.close)
                    stack.callback(inside.kill)  # its first process may have been made to stay when the others end
                    workers.record_inside(folder, inside.process)
                async with _watched(process, spec.fence, folder.name, watch), asyncio.timeout(timeout_s + _GRACE_S):
                    return await _conversation(process, code, most_bytes)
            finally:
                _kill(process)
                await asyncio.shield(process.wait())
    finally:
        await asyncio.shield(asyncio.to_thread(remove_tree, folder))


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o700)


def _inode(workspace: Path) -> str:
    """Return which folder the workspace is. Raises OSError if it is none, or a link: others may write beside it.

    What is mounted in the sandbox is found by its path once more; the process there looks whether it is still this.
    """
    descriptor = os.open(workspace, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return f"{found.st_dev}:{found.st_ino}"


def _inmate(
    spec: CodeSpec, workspace: Path, inode: str, pyz: Path, folder: Path, share: int, timeout_s: float
) -> Inmate:
    command = (str(spec.python), "-s", str(pyz), "code", "--folder", str(workspace), "--inode", inode)
    return Inmate(
        command=(*command, "--timeout", repr(timeout_s)),
        variables=constructed_variables(spec.python),
        fence=Fence(level=spec.fence.level, workspaces=workspace, limits=spec.fence.limits),
        reads=(*started_from(spec.python), pyz),
        folder=folder,
        user=spec.user,
        share=share,
    )


async def _started(sandbox: Sandbox, inmate: Inmate) -> asyncio.subprocess.Process:
    enclosed = sandbox.enclose(inmate)
    try:
        return await asyncio.create_subprocess_exec(
            *enclosed.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,  # no file: the code gets at whatever its first process has open
            env=dict(enclosed.variables),
            cwd=enclosed.folder,
            pass_fds=enclosed.descriptors,
            start_new_session=True,
        )
    finally:
        enclosed.started()


@contextlib.asynccontextmanager
async def _watched(process: asyncio.subprocess.Process, fence: Fence, name: str, watch: Watch) -> AsyncIterator[None]:
    """Hold a process, which has been given no code yet, to its limits. Raises the LimitExceeded it is ended for."""
    exceeded: list[LimitExceeded] = []

    def end(error: LimitExceeded) -> None:
        exceeded.append(error)
        _kill(process)

    ward = await watch.admit(name, process.pid, fence, end)
    try:
        yield
        if (error := next(iter(exceeded), None) or ward.verdict()) is not None:
            raise error
    finally:
        _kill(process)
        await asyncio.shield(watch.dismiss(ward))


async def _conversation(process: asyncio.subprocess.Process, code: str, most_bytes: int) -> CodeEnd:
    """Give the code to its process and return what comes back; one that sends too much is ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with contextlib.suppress(ConnectionError):  # it has ended already
        process.stdin.write(code.encode("utf-8", "replace"))
        process.stdin.close()
    report = bytearray()
    while len(report) <= most_bytes and (data := await process.stdout.read(most_bytes + 1 - len(report))):
        report += data
    if len(report) > most_bytes:
        _kill(process)
    status = status_text(await process.wait())
    said = (await process.stderr.read(_SAID)).decode("utf-8", "replace").strip()
    return CodeEnd(bytes(report), f"{status}; it said: {said}" if said else status)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
