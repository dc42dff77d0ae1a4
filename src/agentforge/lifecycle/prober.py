"""The process that probes one environment: `python -m agentforge.lifecycle.prober`, started by `probing`.

It reads one job as a line of JSON, writes one line of findings, and ends when its stdin does: with its host. Being a
process of its own, a probe that reads a gigabyte of files and imports a framework takes nothing from the host's loop.
"""

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path

import msgspec

from agentforge.engine.adapters import AdapterStore
from agentforge.engine.check import EnvironmentCheck
from agentforge.environments import CheckReport, Environment, Environments, Inspection, inspect, installed
from agentforge.errors import AgentForgeError, InternalError
from agentforge.errors.environments import (
    DiskFull,
    EnvironmentUnknown,
    HomeNotWritable,
    IndexUnreachable,
    InstallFailed,
)
from agentforge.errors.sandbox import SandboxTooWeak, SandboxUnavailable, WorkspaceReplaced
from agentforge.frameworks import Catalogue, Release, is_release, load_manifest
from agentforge.sandbox import Level

__all__ = ["Findings", "Job", "Unable", "main"]

_UNABLE = frozenset(
    kind.code
    for kind in (DiskFull, HomeNotWritable, IndexUnreachable, SandboxTooWeak, SandboxUnavailable, WorkspaceReplaced)
)
"""What keeps a check from being made and says nothing of the environment."""
_NICENESS = 15


class Job(msgspec.Struct):
    """What to probe, and how."""

    home: str
    environment: str
    level: Level
    manifest: str = ""
    """Folder of the framework's manifest; empty: no scripted run is made."""
    gently: bool = False
    """Whether everything else on the machine goes before."""


class Unable(msgspec.Struct):
    """Why a probe could not be made."""

    code: str
    message: str


class Findings(msgspec.Struct):
    """What a probe found."""

    inspection: Inspection | None = None
    problem: str = ""
    """Why the environment can't be used, as far as its files do not show it."""
    details: str = ""
    once: str = ""
    """What went wrong at the first try and not at the second."""
    python: str = ""
    """Exact version of its interpreter."""
    start_s: float | None = None
    run_s: float | None = None
    cpu_s: float | None = None
    memory_mib: float | None = None
    loaded: bool = False
    """Whether the machine had more to do than it has processors for, so that times say little."""
    unable: Unable | None = None


async def findings_of(job: Job) -> Findings:
    """Return what is found of an environment: its files, its interpreter and release, one scripted run."""
    environments = Environments(Path(job.home))
    environment = environments.standing(job.environment)
    if environment is None:
        return Findings(unable=Unable(EnvironmentUnknown.code, f"There is no environment `{job.environment}`"))
    found = Findings(inspection=await asyncio.to_thread(inspect, environment, every_file=True))
    if found.inspection is not None and found.inspection.broken:
        return found
    with environments.hold(environment.id):
        release = _release_of(job, environment)
        try:
            await _look_inside(found, environment, release)
            if release is not None and not found.problem:
                await _try(found, environment, EnvironmentCheck(
                    release, AdapterStore(Path(job.home) / "adapters"), job.level, keep_bytecode=False
                ))  # fmt: skip
        except AgentForgeError as error:
            found.unable = Unable(error.code, error.message)
    return found


def _release_of(job: Job, environment: Environment) -> Release | None:
    if not job.manifest:
        return None
    catalogue = Catalogue([load_manifest(Path(job.manifest))], lambda python: True)
    return catalogue.resolve(f"{environment.framework}=={environment.release}")


async def _look_inside(found: Findings, environment: Environment, release: Release | None) -> None:
    distribution = release.distribution if release is not None else ""
    try:
        found.python, version = await installed(environment, distribution)
    except (InstallFailed, OSError) as error:
        found.problem = str(error)
        return
    if distribution and release is not None:
        if version is None:
            found.problem = f"it does not have `{distribution}`"
        elif not is_release(version, release.version, distribution):
            found.problem = f"it has `{distribution}` {version}, and {release.version} was built"


async def _try(found: Findings, environment: Environment, check: EnvironmentCheck) -> None:
    """Make the scripted run; a second time where the first goes wrong, and take the quicker one where it is right."""
    report = first = await check(environment)
    if first.code in _UNABLE:
        found.unable = Unable(first.code, first.problem or "")
        return
    if first.problem is not None:
        report = await check(environment)
        if report.problem is None:
            found.once = first.problem
        else:
            found.problem, found.details = report.problem, report.details
    found.start_s, found.run_s = _times(report)
    found.cpu_s = round(report.cpu_s, 3) if report.cpu_s else None
    found.memory_mib = round(report.memory_bytes / 2**20, 1) if report.memory_bytes else None
    found.loaded = os.getloadavg()[0] > (os.cpu_count() or 1)


def _times(report: CheckReport) -> tuple[float | None, float | None]:
    if not report.start_s:
        return None, None
    return round(report.start_s, 3), round(report.duration_s - report.start_s, 3)


async def _while_wanted(reader: asyncio.StreamReader, job: Job) -> Findings | None:
    """Return the findings; None if whoever wants them is gone."""
    work = asyncio.ensure_future(findings_of(job))
    gone = asyncio.ensure_future(reader.read())
    await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        return None
    gone.cancel()
    return work.result()


async def _serve() -> None:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    job = msgspec.json.decode(await reader.readline(), type=Job)
    if job.gently:
        os.nice(_NICENESS)
    started = time.monotonic()
    try:
        found = await _while_wanted(reader, job)
    except Exception as error:
        taken = f"after {time.monotonic() - started:.1f} s"
        found = Findings(unable=Unable(InternalError.code, f"`{type(error).__name__}` {taken}: {error}"))
    if found is None:
        os._exit(1)  # a thread may be reading a large file
    os.write(1, msgspec.json.encode(found) + b"\n")


def main() -> None:
    """Do one job."""
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
