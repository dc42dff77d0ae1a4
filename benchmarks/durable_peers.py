"""A durable function of two steps, through AgentForge and as a DBOS workflow, in turns on this machine.

AgentForge: an async function on framework `python` whose two steps are journalled (`ctx.tool_effect`, idempotent: like
DBOS's steps they are repeated if the process died in the middle of one). Measured from `forge.run` to its result:
client, host and worker are three processes, and the CPU of all three counts. DBOS: `@DBOS.workflow` with two
`@DBOS.step` on SQLite, in the process that calls it, with the best of what it offers: plain and async functions, called
and started. Both keep their journal in SQLite in write-ahead mode with the same `synchronous` (NORMAL: our durability
`process`; FULL: our `full`), and each step returns a small object.

DBOS gets an environment of its own, made by uv below `--cache`. Prints a table and writes JSON:

    python benchmarks/durable_peers.py --rounds 5 --json durable_peers.json
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
from pathlib import Path
from typing import Any

import platformdirs
import psutil
import uv

from agentforge import Forge

DBOS_PINS = ("dbos==3.4.0", "pysqlite3-binary==0.5.4.post2", "sqlalchemy==2.1.9")
DBOS_THREADS = 64
STYLES = ("call", "start", "async-call", "async-start")
DURABILITY = {"NORMAL": "process", "FULL": "full"}
AGENT = 'name: steps\nnative: {framework: python, entrypoint: "steps:workflow"}\n'
CODE = """\
async def first(n):
    return {"step": 1, "n": n}


async def second(n):
    return {"step": 2, "n": n}


async def workflow(n, ctx):
    return {
        "first": await ctx.tool_effect("first", {"n": n}, lambda: first(n), idempotent=True),
        "second": await ctx.tool_effect("second", {"n": n}, lambda: second(n), idempotent=True),
    }
"""


def figures(latencies_s: list[float], wall_s: float, cpu_s: float) -> dict[str, float]:
    """Return what one measurement says."""
    latencies, runs = sorted(latencies_s), len(latencies_s)
    return {
        "runs_per_s": runs / wall_s,
        "cpu_ms_per_run": 1000 * cpu_s / runs,
        "p50_ms": 1000 * latencies[runs // 2],
        "p99_ms": 1000 * latencies[min(int(runs * 0.99), runs - 1)],
    }


class Dbos:
    """DBOS in a process of its own, asked over its stdin."""

    def __init__(self, python: Path, database: Path, synchronous: str) -> None:
        command = [python, Path(__file__).with_name("_durable_dbos.py"), "--database", database]
        command += ["--synchronous", synchronous, "--threads", str(DBOS_THREADS)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self._answer()

    def measure(self, style: str, concurrency: int, runs: int) -> dict[str, float]:
        """Run workflows one way."""
        request = {"style": style, "concurrency": concurrency, "runs": runs}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return figures(**self._answer())

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("DBOS ended; see above")
        return dict(json.loads(line))


def dbos_python(cache: Path) -> Path:
    """Return the interpreter of DBOS's environment, made if it is not there."""
    folder = cache / "-".join(pin.replace("==", "-") for pin in DBOS_PINS)
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        program = uv.find_uv_bin()
        subprocess.run([program, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([program, "pip", "install", "-q", "--python", python, *DBOS_PINS], check=True)
        (folder / "ready").touch()
    return python


async def measure_forge(forge: Forge, project: Path, concurrency: int, runs: int) -> dict[str, float]:
    """Run the function so many times."""
    left, latencies = iter(range(runs)), []

    async def some() -> None:
        for n in left:
            begun = time.perf_counter()
            result = (await forge.run(project, n)).check()
            assert result.output == {"first": {"step": 1, "n": n}, "second": {"step": 2, "n": n}}, result
            latencies.append(time.perf_counter() - begun)

    processes = await _processes(forge)
    spent, begun = _cpu_s(processes), time.perf_counter()
    await asyncio.gather(*(some() for _ in range(concurrency)))
    wall_s, cpu_s = time.perf_counter() - begun, _cpu_s(processes) - spent
    return figures(latencies, wall_s, cpu_s)


async def _processes(forge: Forge) -> list[psutil.Process]:
    host: dict[str, Any] = await forge.connection.get("/v1/host")
    return [psutil.Process(), psutil.Process(host["pid"]), *(psutil.Process(each["pid"]) for each in host["workers"])]


def _cpu_s(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(float(each.user + each.system) for each in times)


def make_project(folder: str, synchronous: str) -> Path:
    """Make the project, in a folder of its own: what lies beside an agent belongs to it."""
    project = Path(folder, "project")
    project.mkdir()
    (project / "agent.yaml").write_text(AGENT)
    (project / "steps.py").write_text(CODE)
    (project / "agentforge.toml").write_text(f'[durability]\nlevel = "{DURABILITY[synchronous]}"\n')
    return project


async def compare(synchronous: str, python: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure both at every concurrency, in alternating rounds."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True, dir=options.folder) as folder:
        project = make_project(folder, synchronous)
        dbos = Dbos(python, Path(folder, "dbos.db"), synchronous)
        async with Forge(project, background=True) as forge:
            try:
                return [await _compare(forge, project, dbos, synchronous, each, options) for each in options.at]
            finally:
                dbos.stop()
                await forge.connection.post("/v1/host/stop")


async def _compare(
    forge: Forge, project: Path, dbos: Dbos, synchronous: str, concurrency: int, options: argparse.Namespace
) -> dict[str, Any]:
    await measure_forge(forge, project, concurrency, 2 * concurrency)
    for style in STYLES:
        dbos.measure(style, concurrency, 20)
    ours: list[dict[str, float]] = []
    theirs: dict[str, list[dict[str, float]]] = {style: [] for style in STYLES}
    for _ in range(options.rounds):
        ours.append(await measure_forge(forge, project, concurrency, options.runs))
        for style in STYLES:
            theirs[style].append(await asyncio.to_thread(dbos.measure, style, concurrency, options.dbos_runs))
    best = max(STYLES, key=lambda style: statistics.median(each["runs_per_s"] for each in theirs[style]))
    ratios = [ours[n]["runs_per_s"] / theirs[best][n]["runs_per_s"] for n in range(options.rounds)]
    return {
        "synchronous": synchronous,
        "concurrency": concurrency,
        "agentforge": _median(ours),
        "dbos": {style: _median(found) for style, found in theirs.items()},
        "dbos_best": best,
        "runs_per_s_ratio": round(statistics.median(ratios), 2),
        "load": [round(each, 1) for each in os.getloadavg()],
        **dbos.versions,
    }


def _median(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in rounds), 2) for name in rounds[0]}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    print(f"{'':20}{'AgentForge':>38}   {'DBOS, its best way':>48}   ratio   load")
    for row in rows:
        best = row["dbos_best"]
        text = f"{row['synchronous']:7} {row['concurrency']:4} at once"
        for found, name in ((row["agentforge"], ""), (row["dbos"][best], best)):
            text += f"   {name:11}{found['runs_per_s']:7.1f}/s {found['cpu_ms_per_run']:5.2f} ms CPU"
            text += f" p50 {found['p50_ms']:7.1f} p99 {found['p99_ms']:7.1f} ms"
        print(f"{text}   {row['runs_per_s_ratio']:5.2f}   {row['load'][0]}")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=int, nargs="+", default=[1, 32, 200], help="concurrency levels")
    parser.add_argument("--synchronous", nargs="+", default=["NORMAL", "FULL"], choices=list(DURABILITY))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1000, help="of AgentForge, a round")
    parser.add_argument("--dbos-runs", type=int, default=200, help="of each way to use DBOS, a round")
    parser.add_argument("--cache", type=Path, default=Path(platformdirs.user_cache_dir("agentforge-benchmarks")))
    parser.add_argument("--folder", type=Path, help="where the databases are made (default: the temporary folder)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # Nothing asks a model here; a project without one would start the embedded model.
    os.environ.update(OPENAI_BASE_URL="http://127.0.0.1:9/v1", OPENAI_API_KEY="sk-unused", AGENTFORGE_MODEL="unused")
    os.environ["AGENTFORGE_HEALTH_INTERVAL_S"] = "0"  # no probe beside what is measured
    python = dbos_python(options.cache)
    rows = [row for each in options.synchronous for row in asyncio.run(compare(each, python, options))]
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
