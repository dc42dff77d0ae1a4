"""What many runs at once cost: all are held inside a model call at the same time, then all finish.

The scripted model is a process of its own that answers nobody until `--hold` requests are open at the same time. The
agent is portable, one model call a run; its answer holds the run's own input, which is checked. Memory is that of the
host and all workers (RSS added up, and PSS, which counts shared pages once), looked at every second; CPU is theirs
from the first submission to the last result. Prints the figures and writes JSON:

    python benchmarks/concurrency.py --on python,langchain --runs 10000 --hold 9500 --json concurrency.json

The host needs two descriptors a run: with a hard limit of 20,000 (`ulimit -Hn`) it can hold 9,500 runs, not all 10,000.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from agentforge import Forge

AGENT = """\
name: crowd
description: Says what it was told.
instructions: Repeat what you are told.
"""
PROJECT = """\
[workers]
runs_per_worker = {runs_per_worker}
workers_per_key = {workers}
max_workers = {workers}
"""
WORKERS = {"python": (2, 5000), "langchain": (10, 1000)}
"""Workers and runs in each: LangChain's client opens 1,000 connections at most."""
CLIENTS = 64
"""Requests that this program has open at once."""


class Watch:
    """Memory and CPU of the host and its workers."""

    def __init__(self, host: psutil.Process) -> None:
        self._host = host
        self.samples: list[dict[str, float]] = []
        self._task = asyncio.create_task(self._look())

    def processes(self) -> list[psutil.Process]:
        """Return host and workers."""
        return [self._host, *self._host.children(recursive=True)]

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds so far."""
        seconds = {}
        for process in self.processes():
            times = process.cpu_times()
            seconds["host" if process == self._host else str(process.pid)] = times.user + times.system
        return seconds

    def memory(self) -> dict[str, float]:
        """Return MiB now."""
        found = {"host_rss": 0.0, "workers_rss": 0.0, "pss": 0.0}
        for process in self.processes():
            rollup = _rollup(process.pid)
            found["host_rss" if process == self._host else "workers_rss"] += rollup.get("Rss", 0) / 1024
            found["pss"] += rollup.get("Pss", 0) / 1024
        return {**found, "rss": found["host_rss"] + found["workers_rss"]}

    async def _look(self) -> None:
        while True:
            self.samples.append(await asyncio.to_thread(self.memory))
            await asyncio.sleep(1)

    def stop(self) -> dict[str, float]:
        """Return the greatest of each, in MiB."""
        self._task.cancel()
        self.samples.append(self.memory())
        return {name: max(sample[name] for sample in self.samples) for name in self.samples[0]}


def _rollup(pid: int) -> dict[str, int]:
    """Return the sums of a process's mappings in KiB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


async def crowd(forge: Forge, agent: Path, framework: str, runs: int, hold: int) -> dict[str, Any]:
    """Submit all, wait for all, check every output."""
    host = psutil.Process((await forge.connection.get("/v1/host"))["pid"])
    watch = Watch(host)
    idle, spent, begun = watch.memory(), watch.cpu_s(), time.perf_counter()
    handles: dict[int, Any] = {}

    async def submit(number: int) -> None:
        handles[number] = await forge.submit(agent, f"run {number}", on=framework, model=f"openai:gate-{hold}")

    await some_at_once(range(runs), submit)
    submitted = time.perf_counter()
    wrong: list[str] = []

    async def wait(number: int) -> None:
        result = await handles[number].result()
        if result.output != f"FINAL: run {number}":
            wrong.append(f"{result.run_id}: {result.status} {result.output!r} {result.error}")

    await some_at_once(range(runs), wait)
    wall, after, peak = time.perf_counter() - begun, watch.cpu_s(), watch.stop()
    if wrong:
        raise SystemExit(f"{len(wrong)} of {runs} runs ended wrong, the first: {wrong[0]}")
    host_cpu = after.pop("host") - spent.pop("host")
    workers_cpu = sum(after.values()) - sum(spent.values())
    return {
        "framework": framework,
        "runs": runs,
        "held": hold,
        "workers": len(after),
        "idle_rss_mib": round(idle["rss"]),
        **{f"peak_{name}_mib": round(value) for name, value in peak.items()},
        "host_kib_per_run": round((peak["host_rss"] - idle["host_rss"]) * 1024 / runs, 1),
        "submitted_s": round(submitted - begun, 1),
        "wall_s": round(wall, 1),
        "host_cpu_ms_per_run": round(host_cpu * 1000 / runs, 2),
        "workers_cpu_ms_per_run": round(workers_cpu * 1000 / runs, 2),
        "cpu_ms_per_run": round((host_cpu + workers_cpu) * 1000 / runs, 2),
        "load": [round(each, 1) for each in os.getloadavg()],
    }


async def some_at_once(numbers: Iterable[int], work: Callable[[int], Awaitable[None]]) -> None:
    """Do the work for each number, in order, `CLIENTS` at a time."""
    left = iter(numbers)

    async def some() -> None:
        for number in left:
            await work(number)

    await asyncio.gather(*(some() for _ in range(CLIENTS)))


async def measure(framework: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one framework in a project and on a host of its own."""
    workers, runs_per_worker = WORKERS.get(framework, (10, 1000))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        project = Path(folder)
        (project / "agent.yaml").write_text(AGENT)
        limits = {"workers": options.workers or workers, "runs_per_worker": options.runs_per_worker or runs_per_worker}
        (project / "agentforge.toml").write_text(PROJECT.format(**limits))
        async with Forge(project, background=True) as forge:
            try:
                (await forge.run(project, "warm", on=framework, model="openai:fake")).check()
                return await crowd(forge, project, framework, options.runs, options.hold or options.runs)
            finally:
                await forge.connection.post("/v1/host/stop")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", default="python,langchain", help="frameworks, with commas")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--hold", type=int, default=0, help="requests open at the same time (default: all)")
    parser.add_argument("--workers", type=int, help="most workers (default: by framework)")
    parser.add_argument("--runs-per-worker", type=int, help="(default: by framework)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    model = subprocess.Popen(
        [sys.executable, "-m", "agentforge_conformance.scripted_model", "--port", "0", "--no-record"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert model.stdout is not None
    os.environ.update(OPENAI_BASE_URL=model.stdout.readline().strip(), OPENAI_API_KEY="sk-benchmark")
    os.environ["AGENTFORGE_HEALTH_INTERVAL_S"] = "0"  # no probe beside what is measured
    try:
        found = [asyncio.run(measure(framework, options)) for framework in options.on.split(",")]
    finally:
        model.terminate()
        model.wait()
    for figures in found:
        print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
