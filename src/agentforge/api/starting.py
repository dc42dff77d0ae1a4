"""Finding a project's host, and starting one where there is none."""

import asyncio
import concurrent.futures
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from agentforge.api.place import HostPlace, answers, host_place, listens, writing_state
from agentforge.config import STATE_DIR
from agentforge.errors import ErrorInfo
from agentforge.errors.host import HostAlreadyRuns, HostGone, HostStartFailed, RemoteError

__all__ = ["ensure_host", "make_state_folder", "started_host"]

_START_TIMEOUT_S = 60
_LEAVE_TIMEOUT_S = 15
_LOG_LIMIT = 5 * 2**20
# What a host needs to reach package indexes and to find its folders; keys come with each run instead.
_PASSED_PREFIXES = ("AGENTFORGE_", "UV_", "PIP_", "XDG_", "LC_", "SSL_CERT")
_PASSED = frozenset(
    """
    HOME PATH USER LOGNAME LANG TMPDIR TZ NETRC LD_LIBRARY_PATH REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy
    CC CXX CFLAGS CXXFLAGS LDFLAGS PYENV_ROOT COVERAGE_PROCESS_START
    """.split()  # noqa: SIM905  a list of names, not of quotes
)


def ensure_host(root: Path, environ: Mapping[str, str] = os.environ) -> HostPlace:
    """Start the project's host unless it runs, and return where it is.

    Of several commands one starts it. One that runs but does not answer is replaced once its lease is over. Raises
    StateNotWritable, HostStartFailed, or what the host itself says is wrong.
    """
    place = host_place(root)
    if _serves(place):
        return place
    make_state_folder(place.root)
    with _starting(place):
        place = host_place(root)
        if not _serves(place):
            try:
                _start(place, environ)
            except RemoteError as error:
                if error.code != HostAlreadyRuns.code or not listens(host_place(root)):
                    raise
                return host_place(root)  # it was only too busy to answer us in time
    return place


async def started_host(root: Path) -> HostPlace:
    """Do `ensure_host` in a thread that nothing waits for, so that Ctrl-C ends the command at once."""
    done: concurrent.futures.Future[HostPlace] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()

    def starting() -> None:
        try:
            done.set_result(ensure_host(root))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=starting, name="agentforge-host-start", daemon=True).start()
    return await asyncio.wrap_future(done)


def _serves(place: HostPlace) -> bool:
    """Whether a host answers for the state that is there: one whose state was deleted is about to leave."""
    deadline = time.monotonic() + _LEAVE_TIMEOUT_S
    while answers(place):
        if place.lock.exists():
            return True
        if time.monotonic() > deadline:
            raise HostGone("a host whose state was deleted does not leave", hint=f"End it: `fuser -k {place.socket}`.")
        time.sleep(0.05)
    return False


def _start(place: HostPlace, environ: Mapping[str, str]) -> None:
    with _log(place) as log:
        reader, writer = os.pipe()
        command = [
            sys.executable,
            "-m",
            "agentforge.api.server",
            "--project",
            str(place.root),
            "--ready-fd",
            str(writer),
        ]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_variables(environ),
                cwd="/",
                pass_fds=(writer,),
                start_new_session=True,
            )
        except OSError as error:
            os.close(reader)
            raise HostStartFailed(f"`{sys.executable}` can't be started: {error.strerror}") from error
        finally:
            os.close(writer)
    # Should it end before us, somebody has to take note of it: a program may go on for days.
    threading.Thread(target=process.wait, name="agentforge-host-end", daemon=True).start()
    line = _first_line(reader)
    if not line:
        raise HostStartFailed(f"the host ended at its start; see `{place.log}`{_last_words(place.log)}")
    message = json.loads(line)
    if "ready" not in message:
        raise RemoteError(ErrorInfo.from_dict(message), message.get("exit_code", 1))


def _first_line(reader: int) -> bytes:
    import select

    with os.fdopen(reader, "rb") as pipe:
        ready, _, _ = select.select([pipe], [], [], _START_TIMEOUT_S)
        return pipe.readline() if ready else b""


@contextlib.contextmanager
def _starting(place: HostPlace) -> Iterator[None]:
    with writing_state(place.lock.parent):
        lock = place.lock.with_suffix(".starting").open("a+")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _log(place: HostPlace) -> BinaryIO:
    """Return the host's log; a new one if it is long, and of the old ones the last is kept."""
    with writing_state(place.log.parent):
        if place.log.exists() and place.log.stat().st_size > _LOG_LIMIT:
            place.log.replace(place.log.with_name(f"{place.log.name}.1"))
        return place.log.open("ab")


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environ.items() if k in _PASSED or k.startswith(_PASSED_PREFIXES)}


def make_state_folder(root: Path) -> None:
    """Make the folder of a project's state. Raises StateNotWritable."""
    state = root / STATE_DIR
    with writing_state(state):
        state.mkdir(parents=True, exist_ok=True)
        ignore = state / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text("utf-8", "replace").strip().splitlines()[-5:]
    except OSError:
        return ""
    return ":\n" + "\n".join(lines) if lines else ""
