"""The host's side of the embedded model: start its process when it is first needed, stop it when nobody needs it."""

import asyncio
import hashlib
import os
import shutil
import stat
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from agentforge.errors.embedded import EmbeddedModelNotStarted
from agentforge.gateway.embedded.settings import EmbeddedSettings
from agentforge.gateway.embedded.weights import find_weights

__all__ = ["EmbeddedModel"]

_LOG = "embedded.log"
_LONGEST_RUNTIME_DIR = 60
"""A Unix socket's path may have 107 bytes."""
_LOG_TAIL_BYTES = 2000
_TERMINATE_S = 2.0


class EmbeddedModel:
    """The embedded model of one host. Used on one event loop; any number of callers share its process.

    The base URL stays the same for the life of this object, across restarts and unloads.
    """

    def __init__(
        self,
        folder: Path,
        settings: EmbeddedSettings | None = None,
        *,
        idle_s: float = 300.0,
        start_s: float = 60.0,
        python: str = sys.executable,
    ) -> None:
        """`folder` gets the log; one `EmbeddedModel` per folder at a time.

        It is unloaded after `idle_s` without a user; a start may take `start_s`.
        """
        self._folder = folder
        self._settings = settings or EmbeddedSettings()
        self._idle_s = idle_s
        self._start_s = start_s
        self._python = python
        self._sockets: Path | None = None
        self._process: Process | None = None
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._users = 0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process's id while it runs and is ready."""
        return self._process.pid if self._process and _runs(self._process) else None

    @property
    def users(self) -> int:
        """How many callers have acquired it and not released it yet."""
        return self._users

    @property
    def log(self) -> Path:
        """Where the process's output goes; each start begins it anew."""
        return self._folder / _LOG

    async def acquire(self) -> str:
        """Return the base URL of the running model, `unix:///....sock/v1`; starts it if needed. Pair it with `release`.

        Raises EmbeddedModelMissing, EmbeddedModelNotStarted.
        """
        if self._closed:
            raise EmbeddedModelNotStarted("the embedded model was closed", hint="")
        self._users += 1
        if self._idle:
            self._idle.cancel()
            self._idle = None
        try:
            await self._ensure()
        except BaseException:
            self.release()
            raise
        return f"unix://{self._socket}/v1"

    def release(self) -> None:
        """Say that a caller of `acquire` needs it no more. After the last one it stays loaded for `idle_s`."""
        self._users = max(0, self._users - 1)
        if self._users == 0 and not self._closed and self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._unload)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[str]:
        """Acquire it for the body of an `async with`; yields the base URL."""
        base_url = await self.acquire()
        try:
            yield base_url
        finally:
            self.release()

    async def close(self) -> None:
        """End the process and remove its socket. Further calls do nothing; `acquire` raises from now on."""
        self._closed = True
        if self._idle:
            self._idle.cancel()
        if self._starting:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._stop()
        if self._sockets:
            shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def _socket(self) -> Path:
        if self._sockets is None:
            self._sockets = _socket_folder(self._folder)
        return self._sockets / "model.sock"

    async def _ensure(self) -> None:
        """Wait until the process answers. All callers wait for the same start; one that goes away doesn't stop it."""
        if self.pid is not None and self._stopping is None:
            return
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(_retrieve)
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        if self._stopping:
            await self._stopping
        find_weights()
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *self._command(), stdin=PIPE, stdout=PIPE, stderr=log, start_new_session=True
            )
        try:
            async with asyncio.timeout(self._start_s):
                ready = await process.stdout.readline() if process.stdout else b""
        except TimeoutError:
            await _end(process)
            raise self._not_started(f"was not ready within {self._start_s:g} s") from None
        except BaseException:
            await _end(process)
            raise
        if not ready:
            raise self._not_started(f"ended with {_exit(await process.wait())}")
        self._process = process

    def _command(self) -> list[str]:
        module = ["-m", "agentforge.gateway.embedded"]
        return [
            *(self._python, *module, f"--socket={self._socket}", f"--parent={os.getpid()}"),
            *self._settings.arguments(),
        ]

    def _not_started(self, what: str) -> EmbeddedModelNotStarted:
        with suppress(OSError):
            tail = self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
            return EmbeddedModelNotStarted(f"the embedded model {what}; its log is `{self.log}`", log=tail)
        return EmbeddedModelNotStarted(f"the embedded model {what}")

    def _unload(self) -> None:
        self._idle = None
        if self._users == 0 and self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
            self._stopping.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        self._stopping = None

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process:
            await _end(process)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at a failure that no caller may be waiting for any more, so that asyncio doesn't report it as lost."""
    if not task.cancelled():
        task.exception()


def _runs(process: Process) -> bool:
    """Ask the kernel: asyncio learns of a crash a little later, and a caller in between would get a dead address."""
    if process.returncode is not None:
        return False
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


async def _end(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_TERMINATE_S):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    # asyncio closes the pipes of an ended process on the next turns of its loop; an unread one would outlive it.
    if process.stdin:
        process.stdin.close()


def _exit(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


def _socket_folder(folder: Path) -> Path:
    """Return a short folder for the sockets, which only its owner can enter; the same one for the same `folder`.

    Because it is the same, what a killed host left there is taken over by the next one and never piles up.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    parent = Path(runtime) / "agentforge" if 0 < len(runtime) <= _LONGEST_RUNTIME_DIR else None
    parent = parent or Path(f"/tmp/agentforge-{os.getuid()}")  # noqa: S108
    own = parent / ("model-" + hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16])
    for each in (parent, own):
        try:
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = each.lstat()
        except OSError as error:
            raise EmbeddedModelNotStarted(f"`{each}` can't be made: {error.strerror}") from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise EmbeddedModelNotStarted(f"`{each}` is not a folder of your own with mode 700")
    return own
