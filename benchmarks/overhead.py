"""What AgentForge costs on top of a framework: the same agent natively and through the host, in turns.

The native program is the adapter's own sample (`samples/native.py --loop`) in the same environment; the other side is
the whole path: client, HTTP API, engine, journal, gateway, worker, tool worker. Both ask the scripted model, which is
a process of its own and not counted. CPU is that of all processes of a side (native: its one process; AgentForge: host,
worker and tool worker; the client's is shown apart). Prints a table and writes JSON:

    python benchmarks/overhead.py --on langchain,crewai,pydantic-ai --runs 100 --rounds 3 --json overhead.json
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from agentforge import Forge
from agentforge.environments import EnvironmentRequest, Environments, data_home
from agentforge.frameworks import Catalogue

QUESTION = "How much was it?"
MODEL = "scripted"
AGENT = """\
name: expenses
description: Answers questions about an expense report.
instructions: You answer questions about the expense report. Use the tools.
settings: {temperature: 0.2, max_tokens: 300, top_p: 0.9, stop: [END], seed: 7, presence_penalty: 0.1,
           frequency_penalty: 0.3}
tools:
  - python: tools.py:add
  - python: tools.py:total_for
"""
TOOLS = '''\
from typing import Literal

TOTALS = {"travel": 412.5, "meals": 96.0, "hotel": 730.0}


def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


def total_for(category: Literal["travel", "meals", "hotel"]) -> float:
    """Return the sum of the expenses of one category."""
    return TOTALS[category]
'''


@dataclass(frozen=True)
class Figures:
    """Per run, in milliseconds."""

    cpu_ms: float
    wall_ms: float


@dataclass(frozen=True)
class Comparison:
    """One framework: medians of the rounds, and the ratios AgentForge / native of each round's medians."""

    framework: str
    release: str
    native: Figures
    forge: Figures
    host_cpu_ms: float
    worker_cpu_ms: float
    tools_cpu_ms: float
    client_cpu_ms: float
    cpu_ratio: float
    wall_ratio: float
    concurrent_runs_per_s: float
    concurrent_cpu_ms: float
    native_runs_per_s: float


class Model:
    """The scripted model as a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "agentforge_conformance.scripted_model", "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


async def compare(name: str, runs: int, rounds: int, concurrency: int, model: Model) -> Comparison:
    """Measure one framework, native and through the host in turns."""
    release = Catalogue.discover().resolve(name)
    environments = Environments(data_home())
    lock = await environments.lock(release)
    native: list[Figures] = []
    ours: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        project = Path(folder)
        (project / "agent.yaml").write_text(AGENT)
        (project / "tools.py").write_text(TOOLS)
        (project / "agentforge.toml").touch()
        async with Forge(project, background=True) as forge:
            for _ in range(3):
                (await forge.run(project, QUESTION, on=name)).check()
            environment = environments.find(EnvironmentRequest.for_release(release, lock))
            assert environment is not None
            program = release.framework.folder / release.sample
            for _ in range(rounds):
                native.append(run_native(environment.python, program, runs, model))
                ours.append(await run_forge(forge, project, name, runs))
            crowd = await run_crowd(forge, project, name, max(runs, concurrency), concurrency)
            await forge.connection.post("/v1/host/stop")
    cpu_ratios = [ours[i]["cpu_ms"] / native[i].cpu_ms for i in range(rounds)]
    wall_ratios = [ours[i]["wall_ms"] / native[i].wall_ms for i in range(rounds)]
    middle = {key: statistics.median(each[key] for each in ours) for key in ours[0]}
    native_middle = Figures(
        statistics.median(each.cpu_ms for each in native), statistics.median(each.wall_ms for each in native)
    )
    return Comparison(
        framework=name,
        release=release.version,
        native=native_middle,
        forge=Figures(middle["cpu_ms"], middle["wall_ms"]),
        host_cpu_ms=middle["host"],
        worker_cpu_ms=middle["agent"],
        tools_cpu_ms=middle["tools"],
        client_cpu_ms=middle["client"],
        cpu_ratio=statistics.median(cpu_ratios),
        wall_ratio=statistics.median(wall_ratios),
        concurrent_runs_per_s=crowd["runs_per_s"],
        concurrent_cpu_ms=crowd["cpu_ms"],
        native_runs_per_s=1000 / native_middle.wall_ms,
    )


def run_native(python: Path, program: Path, runs: int, model: Model) -> Figures:
    """Run the native program's loop in a process of its own."""
    environ = {
        "PATH": os.defpath,
        "HOME": tempfile.gettempdir(),
        "OPENAI_BASE_URL": model.url,
        "OPENAI_API_KEY": "sk-native",
        "AGENTFORGE_MODEL": MODEL,
        "OTEL_SDK_DISABLED": "true",
        "CREWAI_DISABLE_TELEMETRY": "true",
        "CREWAI_TRACING_ENABLED": "false",
        "LANGSMITH_TRACING": "false",
    }
    command = [str(python), str(program), "--loop", str(runs), QUESTION]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    return Figures(figures["cpu_ms"], figures["wall_ms"])


async def run_forge(forge: Forge, project: Path, name: str, runs: int) -> dict[str, float]:
    """Run one after the other through the host, as the native loop does."""
    before, client = await cpu_of(forge), time.process_time()
    walls = []
    for _ in range(runs):
        start = time.perf_counter()
        (await forge.run(project, QUESTION, on=name)).check()
        walls.append(time.perf_counter() - start)
    after = await cpu_of(forge)
    parts = {key: 1000 * (after[key] - before.get(key, 0.0)) / runs for key in ("host", "agent", "tools")}
    return {
        **parts,
        "client": 1000 * (time.process_time() - client) / runs,
        "cpu_ms": sum(parts.values()),
        "wall_ms": 1000 * statistics.median(walls),
    }


async def run_crowd(forge: Forge, project: Path, name: str, runs: int, concurrency: int) -> dict[str, float]:
    """Run many at once: throughput and CPU per run."""
    room = asyncio.Semaphore(concurrency)

    async def one() -> None:
        async with room:
            (await forge.run(project, QUESTION, on=name)).check()

    before, start = await cpu_of(forge), time.perf_counter()
    await asyncio.gather(*(one() for _ in range(runs)))
    wall, after = time.perf_counter() - start, await cpu_of(forge)
    cpu = sum(after.values()) - sum(before.values())
    return {"runs_per_s": runs / wall, "cpu_ms": 1000 * cpu / runs}


async def cpu_of(forge: Forge) -> dict[str, float]:
    """Return the CPU seconds so far of the host and of its workers by kind."""
    host: dict[str, Any] = await forge.connection.get("/v1/host")
    seconds = {"host": _cpu_s(host["pid"]), "agent": 0.0, "tools": 0.0}
    for worker in host["workers"]:
        seconds[worker["kind"]] += _cpu_s(worker["pid"])
    return seconds


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def show(found: list[Comparison]) -> None:
    """Print the table."""
    print(f"{'framework':22} {'native':>16} {'AgentForge':>16} {'ratio':>12}   host/worker/tools/client CPU   crowd")
    for each in found:
        print(
            f"{each.framework + ' ' + each.release:22}"
            f" {each.native.cpu_ms:6.1f}/{each.native.wall_ms:6.1f} ms"
            f" {each.forge.cpu_ms:6.1f}/{each.forge.wall_ms:6.1f} ms"
            f" {each.cpu_ratio:5.2f}/{each.wall_ratio:5.2f}"
            f"   {each.host_cpu_ms:.1f}/{each.worker_cpu_ms:.1f}/{each.tools_cpu_ms:.1f}/{each.client_cpu_ms:.1f} ms"
            f"   {each.concurrent_runs_per_s:.1f} runs/s, {each.concurrent_cpu_ms:.1f} ms CPU"
            f" (native {each.native_runs_per_s:.1f}/s)"
        )
    print("(CPU / wall per run)")


async def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", default="langchain,crewai,pydantic-ai")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = Model()
    os.environ.update(OPENAI_BASE_URL=model.url, OPENAI_API_KEY="sk-bench", AGENTFORGE_MODEL=MODEL)
    os.environ["AGENTFORGE_HEALTH_INTERVAL_S"] = "0"  # no probe beside what is measured
    try:
        found = [
            await compare(name, options.runs, options.rounds, options.concurrency, model)
            for name in options.on.split(",")
        ]
    finally:
        model.stop()
    show(found)
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
