"""Running the `uv` program: where it is, what it is given, how it is stopped, what its failures mean."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uv as uv_package

from agentforge.environments.index import Index
from agentforge.errors import AgentForgeError
from agentforge.errors.environments import (
    DiskFull,
    HomeNotWritable,
    IndexUnreachable,
    InstallFailed,
    LocalPackageFailed,
    ResolutionFailed,
    UvMissing,
)
from agentforge.errors.keeping import PackageBuildFailed

__all__ = ["Uv", "UvRun", "explanation", "failure", "uv_environment", "uv_program", "without_secrets"]

# What a person may have set to reach an index, to keep a cache, or to compile a source distribution.
# Everything else (VIRTUAL_ENV, UV_PYTHON, UV_EXCLUDE_NEWER, PYTHONPATH, ...) would change what gets built.
_PASSED = frozenset(
    """
    HOME PATH USER LOGNAME LANG LC_ALL TMPDIR NETRC
    XDG_CACHE_HOME XDG_CONFIG_HOME XDG_CONFIG_DIRS XDG_DATA_HOME
    SSL_CERT_FILE SSL_CERT_DIR SSL_CLIENT_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy
    UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL UV_INDEX_STRATEGY UV_FIND_LINKS UV_NO_INDEX
    UV_OFFLINE UV_KEYRING_PROVIDER UV_INSECURE_HOST UV_NATIVE_TLS UV_SYSTEM_CERTS UV_CONFIG_FILE UV_NO_CONFIG
    UV_CACHE_DIR UV_HTTP_TIMEOUT UV_HTTP_CONNECT_TIMEOUT UV_HTTP_RETRIES UV_REQUEST_TIMEOUT
    UV_CONCURRENT_DOWNLOADS UV_CONCURRENT_BUILDS UV_CONCURRENT_INSTALLS UV_LINK_MODE UV_PYTHON_INSTALL_DIR
    CC CXX CFLAGS CXXFLAGS LDFLAGS CARGO_HOME RUSTUP_HOME
    """.split()  # noqa: SIM905  a list of names, not of quotes
)
_CREDENTIALS = re.compile(r"UV_INDEX_[A-Z0-9_]+_(USERNAME|PASSWORD)")
_TALK = re.compile(r"(DEBUG|TRACE|INFO|WARN)\b|warning:|Using Python |Resolved \d| ?Download(ing|ed) ")
# Not indented: the output of a package's build is, within the error that uv says last.
_BUILD = re.compile(r"Failed to (?:download and )?build `([^`\s]+)`")
_VERDICT = re.compile(r"error: | {0,2}× ")
_QUOTE = re.compile(r"\s*\[std(?:err|out)\]\s*")
_BEGUN = re.compile(r"Building .*\.\.\.")
_USER = re.compile(r"://[^\s/@]+@")
_QUERY = re.compile(r"(\w://[^\s?#`)]+)\?[^\s`)]+")
_EXPLANATION_LINES = 24
_LAST_LINES = 8
_GRACE_S = 5.0

_DISK = ("No space left on device", "Disk quota exceeded")
_WRITE = ("Permission denied", "Read-only file system", "Operation not permitted")
_NETWORK = (
    "dns error",
    "client error (Connect)",
    "error sending request",
    "Could not connect",
    "operation timed out",
    "Network connectivity is disabled",
    "the network was disabled",
    "lack of valid authentication credentials",
    "HTTP status server error",
)


def uv_program() -> Path:
    """Return the uv binary that came with this installation. Raises UvMissing."""
    try:
        return Path(uv_package.find_uv_bin())
    except FileNotFoundError as error:
        raise UvMissing(f"The `uv` program is not there: {error}") from None


def uv_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment uv runs with: the user's way to the index and its cache, nothing else."""
    given = {k: v for k, v in environ.items() if k in _PASSED or _CREDENTIALS.fullmatch(k)}
    if "PIP_CERT" in environ:
        given.setdefault("SSL_CERT_FILE", environ["PIP_CERT"])
    given.update(Index.from_environment(environ).for_uv())
    given.update(UV_PYTHON_DOWNLOADS="never", UV_NO_PROGRESS="1", NO_COLOR="1")
    return given


@dataclass(frozen=True, slots=True)
class UvRun:
    """A finished run of uv."""

    code: int
    stdout: str
    stderr: str


class Uv:
    """The uv program with a fixed environment. Runs outside any project, so that only user-wide settings count."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self.environment = uv_environment(environ)

    async def run(
        self,
        *arguments: str | Path,
        on_line: Callable[[str], None] | None = None,
        keep_open: Sequence[int] = (),
        extra: Mapping[str, str] | None = None,
    ) -> UvRun:
        """Run uv to its end, giving each line of its stderr to `on_line`.

        Cancelling stops uv and everything it started before the cancellation goes on. `keep_open`: descriptors
        that uv inherits, so that a lock on them outlives a killed host until uv itself is gone. `extra`: variables
        for this run alone.
        """
        process = await asyncio.create_subprocess_exec(
            uv_program(),
            *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self.environment, **(extra or {})},
            cwd="/",
            start_new_session=True,
            pass_fds=tuple(keep_open),
            limit=2**20,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            out, err = await asyncio.gather(process.stdout.read(), _lines(process.stderr, on_line))
            return UvRun(await process.wait(), out.decode(errors="replace"), err)
        finally:
            if process.returncode is None:
                await _stop(process)


async def _lines(stream: asyncio.StreamReader, on_line: Callable[[str], None] | None) -> str:
    lines = []
    async for raw in stream:
        line = raw.decode(errors="replace").rstrip()
        lines.append(line)
        if on_line is not None:
            on_line(line)
    return "\n".join(lines)


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _GRACE_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def explanation(stderr: str) -> str:
    """Return what uv says about a failure, at most a screenful: no talk, no credentials."""
    lines = _verdict(_without_talk(without_secrets(stderr).splitlines()))
    if len(lines) > _EXPLANATION_LINES:  # what failed stands first, why it did often last
        lines = [*lines[: _EXPLANATION_LINES - _LAST_LINES - 1], "...", *lines[-_LAST_LINES:]]
    return "\n".join(lines).removeprefix("error: ")


def without_secrets(text: str) -> str:
    """Return a text whose addresses hold no user, password or query, which may be a signature."""
    return _QUERY.sub(r"\1?...", _USER.sub("://", text))


def _without_talk(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines that are no talk; an indented line belongs to the one before it."""
    talk = False
    for line in lines:
        if _TALK.match(line):
            talk = True
        elif line.strip():
            talk = talk and line[0].isspace() and not _VERDICT.match(line)
            if not talk:
                yield line


def _verdict(lines: Iterable[str]) -> list[str]:
    """Return the lines from the last one that starts an error of uv's own; all if none does."""
    kept: list[str] = []
    for line in lines:
        if _VERDICT.match(line):
            kept.clear()
        kept.append(line)
    return kept


def failure(stderr: str, what: str, otherwise: type[AgentForgeError] = InstallFailed) -> AgentForgeError:
    """Return the error that a failed run of uv means; `what` starts the sentence (`Installing langchain 1.4.7`)."""
    text = explanation(stderr)
    kind = otherwise
    if any(sign in stderr for sign in _DISK):
        kind = DiskFull
    elif any(sign in text for sign in _NETWORK):
        kind = IndexUnreachable
    elif any(sign in text for sign in _WRITE):
        kind = HomeNotWritable
    elif kind in (InstallFailed, ResolutionFailed) and (found := _BUILD.search(stderr)):
        said = without_secrets(stderr)
        return PackageBuildFailed(
            f"{what} failed: `{found[1]}` has no wheel for this Python and could not be built: "
            f"{_last_words(said) or 'the build said nothing'}",
            package=found[1],
            output=said,
        )
    words = without_secrets(_last_words(stderr)) if kind is LocalPackageFailed else ""
    return kind(f"{what} failed: {words}\n{text}" if words else f"{what} failed: {text}")


def _last_words(stderr: str) -> str:
    """Return the last line that a package's build said, of a traceback the error; "" if it said nothing.

    `uv build` lets a build speak before its own verdict; other commands quote it below theirs.
    """
    lines = stderr.splitlines()
    quoted = [place for place, line in enumerate(lines) if _QUOTE.fullmatch(line)]
    if quoted:
        said = [line for line in lines[quoted[-1] + 1 :] if not line.lstrip().startswith("hint:")]
    else:
        verdicts = [place for place, line in enumerate(lines) if _VERDICT.match(line)]
        said = [line for line in _without_talk(lines[: verdicts[-1] if verdicts else 0]) if not _BEGUN.fullmatch(line)]
    return next((line.strip() for line in reversed(said) if line.strip()), "")
