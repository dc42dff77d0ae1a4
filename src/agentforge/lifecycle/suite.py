"""The conformance suite as a process of its own: started for one release, heard out, ended with its host."""

import asyncio
import contextlib
import hashlib
import importlib.util
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from agentforge.errors.compat import SuiteBroken, SuiteUnavailable
from agentforge.frameworks import Release
from agentforge.lifecycle.matrix import Outcome

__all__ = ["Suite", "suite_digest"]

_MODULE = "agentforge_conformance.try_release"
_NEEDS = ("pytest", "pytest_asyncio")
_PARTS = ("agentforge_conformance", "agentforge_worker")
_SILENCE_S = 300.0
"""No test takes so long: the longest waits for a worker's answer for a minute, and does so twice."""
_LINE = 2**22
_TAIL = 4000

Told = Callable[[int, int, str], None]
"""Hears how many tests are done, of how many, and which was the last."""


class Suite:
    """Runs the suite; `silence_s` is how long it may say nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ, silence_s: float = _SILENCE_S) -> None:
        self._environ = environ
        self._silence_s = silence_s

    async def run(self, release: Release, python: Path, capabilities: Sequence[str], told: Told) -> list[Outcome]:
        """Return how each test ended that is about one of `capabilities` (none: all of them).

        Raises SuiteUnavailable, SuiteBroken.
        """
        missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
        if missing:
            named = " and ".join(f"`{name}`" for name in missing)
            raise SuiteUnavailable(f"The conformance suite needs {named}, which this Python does not have")
        command = [sys.executable, "-P", "-m", _MODULE, "--folder", str(release.framework.folder)]
        command += ["--release", release.version, "--python", str(python), "--parent", str(os.getpid())]
        command += [part for name in capabilities for part in ("--capability", name)]
        with tempfile.TemporaryDirectory(prefix="af-suite-", ignore_cleanup_errors=True) as folder:
            async with self._started(command, Path(folder)) as process:
                return await self._heard(process, Path(folder), release, told)

    @contextlib.asynccontextmanager
    async def _started(self, command: Sequence[str], folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
        # No key of the host's models, and no options of another pytest: what the suite says depends on neither.
        kept = {key: value for key, value in self._environ.items() if not key.startswith(("OPENAI_", "PYTEST_"))}
        with (folder / "said").open("wb") as said:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=folder, env={**kept, "TMPDIR": str(folder), "NO_COLOR": "1"}, start_new_session=True,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=said, limit=_LINE,
            )  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _heard(
        self, process: asyncio.subprocess.Process, folder: Path, release: Release, told: Told
    ) -> list[Outcome]:
        assert process.stdout is not None
        outcomes: list[Outcome] = []
        total = 0
        try:
            while line := await self._line(process.stdout):
                message = _read(line)
                if "tests" in message:
                    total = int(message["tests"])
                elif message.get("ended") and len(outcomes) == total:
                    return outcomes
                elif "outcome" in message:
                    outcomes.append(Outcome(**message))
                    told(len(outcomes), total, outcomes[-1].name)
        except TimeoutError:
            said = f"said nothing for {self._silence_s:g} s"
        else:
            said = f"ended with {await process.wait()}"
        after = f" after {len(outcomes)} of {total} tests" if total else ""
        tail = (folder / "said").read_bytes()[-_TAIL:].decode(errors="replace").strip()
        raise SuiteBroken(
            f"The conformance suite of `{release.reference}` {said}{after}" + (f":\n{tail}" if tail else ""),
            release=release.reference,
        )

    async def _line(self, out: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout(self._silence_s):
            return await out.readline()


def _read(line: bytes) -> dict[str, Any]:
    """Return a line as an object; what is none was printed past pytest, by whatever the suite started."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@cache
def suite_digest() -> str:
    """Return what changes when the suite does, or the guest that it tries: SHA-256 over their code."""
    total = hashlib.sha256()
    for name in _PARTS:
        spec = importlib.util.find_spec(name)
        for place in map(Path, (spec and spec.submodule_search_locations) or ()):
            for file in sorted(place.rglob("*.py")):
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                total.update(f"{name}/{file.relative_to(place)}\0{content}\n".encode())
    return total.hexdigest()
