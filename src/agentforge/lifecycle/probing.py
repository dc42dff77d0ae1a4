"""Having an environment probed by a process of its own, and what its findings mean."""

import asyncio
import statistics
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from agentforge.environments import Environment
from agentforge.errors.environments import EnvironmentUnknown, ProbeFailed
from agentforge.frameworks import Release
from agentforge.lifecycle.prober import Findings, Job
from agentforge.sandbox import Level
from agentforge.store import HealthRecord, HealthState

__all__ = ["judged", "probe"]

_PATIENCE_S = 300.0
_GRACE_S = 5.0
_LEAST_RECORDS = 3
_TIMES_SLOWER = 3.0
_SECONDS_SLOWER = 3.0


async def probe(
    environment: Environment, release: Release | None, home: Path, level: Level, environ: Mapping[str, str], *,
    gently: bool = False,
) -> Findings:  # fmt: skip
    """Return what a probe of an environment finds; without a `release` no scripted run is made.

    Raises ProbeFailed where it can't be made, and EnvironmentUnknown.
    """
    manifest = str(release.framework.folder) if release is not None else ""
    job = Job(str(home), environment.id, level, manifest, gently)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agentforge.lifecycle.prober",
        stdin=PIPE, stdout=PIPE, stderr=PIPE, env=dict(environ), cwd="/",
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    talk = asyncio.ensure_future(process.stderr.read())
    try:
        process.stdin.write(msgspec.json.encode(job) + b"\n")  # and it stays open: its end is the prober's
        async with asyncio.timeout(_PATIENCE_S):
            line = await process.stdout.read()
            await process.wait()
    except TimeoutError:
        raise ProbeFailed(f"`{environment.id}` could not be probed: it took more than {_PATIENCE_S:g} s") from None
    finally:
        process.stdin.close()  # it tidies up and ends
        try:
            await asyncio.wait_for(process.wait(), _GRACE_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        said = (await talk).decode(errors="replace").strip()
    if not line:
        last = said.splitlines()[-1] if said else f"exit code {process.returncode}"
        raise ProbeFailed(f"`{environment.id}` could not be probed: {last}")
    found = msgspec.json.decode(line, type=Findings)
    if found.unable is not None:
        kind = EnvironmentUnknown if found.unable.code == EnvironmentUnknown.code else ProbeFailed
        raise kind(f"`{environment.id}` could not be probed: {found.unable.code}: {found.unable.message}")
    return found


def judged(
    environment: Environment, found: Findings, earlier: Sequence[HealthRecord], limit_s: float
) -> tuple[HealthState, str]:
    """Return the state that findings mean, and why.

    `earlier` are the records of probes that found it well, `limit_s` is how long a worker may take to start.
    """
    inspection = found.inspection
    if inspection is not None and inspection.broken:
        return "broken", inspection.problem
    if found.problem:
        return "broken", found.problem
    reasons = []
    if found.once:
        reasons.append(f"the first of two scripted runs failed: {found.once}")
    if inspection is not None and inspection.damages:
        reasons.append(inspection.problem)
    if found.python and found.python != environment.python_version:
        reasons.append(f"it was built with Python {environment.python_version} and has {found.python} now")
    reasons += _slow(found, earlier, limit_s)
    return ("degraded" if reasons else "ready"), "; ".join(reasons)


def _slow(found: Findings, earlier: Sequence[HealthRecord], limit_s: float) -> list[str]:
    """Say what is slow: by processor time, and by the clock on the wall where the machine had nothing else to do."""
    reasons = []
    usual_cpu = [each.cpu_s for each in earlier if each.cpu_s is not None]
    if found.cpu_s is not None and (usual := _exceeded(found.cpu_s, usual_cpu)) is not None:
        reasons.append(f"a scripted run took {found.cpu_s:.1f} s of processor time, {usual:.1f} s is usual here")
    if found.loaded or found.start_s is None or reasons:
        return reasons
    if found.start_s > limit_s / 2:
        return [f"a worker took {found.start_s:.1f} s to start, and `[workers] start_timeout_s` is {limit_s:g}"]
    usual_start = [each.start_s for each in earlier if each.start_s is not None]
    if (usual := _exceeded(found.start_s, usual_start)) is not None:
        return [f"a worker took {found.start_s:.1f} s to start, {usual:.1f} s is usual here"]
    return []


def _exceeded(value: float, earlier: Sequence[float]) -> float | None:
    """Return what is usual where a value is far above it; None where it is not, or too little is known."""
    if len(earlier) < _LEAST_RECORDS:
        return None
    usual = statistics.median(earlier)
    return usual if value > usual * _TIMES_SLOWER and value > usual + _SECONDS_SLOWER else None
