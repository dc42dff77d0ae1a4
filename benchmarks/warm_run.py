"""How long a warm `agentforge run` takes, the start of the command included.

The scripted agent (no model time, one tool) runs once so that host, worker and tool worker are there; then the same
command is run again and again, each a process of its own. `--cancel` also measures `agentforge runs cancel` during a
model call that never answers, and during a tool that never returns. Prints the figures and writes JSON:

    python benchmarks/warm_run.py --on langchain,crewai,pydantic-ai --rounds 10 --cancel --json warm_run.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND = Path(sys.executable).with_name("agentforge")
AGENT = """\
name: warm
instructions: Use the tools.
tools:
  - python: tools.py:NAME
"""
TOOLS = '''\
import time


def total_for(category: str) -> float:
    """Add the expenses of a category up."""
    return 412.5


def hangs(category: str) -> float:
    """Never return."""
    time.sleep(3600)
    return 0.0
'''


class Project:
    """A folder with two agents and the environment that commands run in."""

    def __init__(self, root: Path, model_url: str) -> None:
        self.root = root
        for name, tool in (("warm", "total_for"), ("hanging", "hangs")):
            (root / name).mkdir()
            (root / name / "agent.yaml").write_text(AGENT.replace("NAME", tool))
            (root / name / "tools.py").write_text(TOOLS)
        (root / "agentforge.toml").touch()
        self._variables = {
            **os.environ,
            "OPENAI_BASE_URL": model_url,
            "OPENAI_API_KEY": "sk-benchmark",
            "AGENTFORGE_HEALTH_INTERVAL_S": "0",
        }

    def command(self, *arguments: str) -> str:
        """Run a command; returns its stdout."""
        done = subprocess.run(
            [COMMAND, *arguments], cwd=self.root, env=self._variables, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"agentforge {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def run(self, framework: str) -> None:
        """Run the agent whose tool answers at once."""
        self.command("run", "warm", "How much was travel?", "--on", framework, "--json")

    def cancel(self, framework: str, agent: str, model: str, until: str) -> float:
        """Start a run that never ends, cancel it once it has come to an event; returns the seconds that took."""
        run_id = self.command("run", agent, "x", "--on", framework, "--model", model, "--detach").strip()
        while until not in self.command("runs", "events", run_id):
            time.sleep(0.05)
        return timed(lambda: self.command("runs", "cancel", run_id))


def timed(work: Callable[[], Any]) -> float:
    """Return how many seconds it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def figures(samples: list[float]) -> dict[str, float]:
    """Return minimum, median and maximum in milliseconds."""
    numbers = {"min_ms": min(samples), "median_ms": statistics.median(samples), "max_ms": max(samples)}
    return {name: round(value * 1000, 1) for name, value in numbers.items()}


def measure(project: Project, framework: str, rounds: int, cancel: bool) -> dict[str, dict[str, float]]:
    """Return the figures of one framework by what was measured."""
    cold = timed(lambda: project.run(framework))
    samples = [timed(lambda: project.run(framework)) for _ in range(rounds)]
    found = {"first run": figures([cold]), "second run": figures(samples[:1]), "warm run": figures(samples)}
    if cancel:
        slow = "openai:slow-3600"
        found["cancel in a model call"] = figures(
            [project.cancel(framework, "warm", slow, "model.requested") for _ in range(rounds)]
        )
        found["cancel in a tool"] = figures(
            [project.cancel(framework, "hanging", "openai:fake", "tool.called") for _ in range(rounds)]
        )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", default="langchain", help="frameworks, with commas")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cancel", action="store_true", help="measure cancelling too")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    model = subprocess.Popen(
        [sys.executable, "-m", "agentforge_conformance.scripted_model", "--port", "0", "--no-record"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert model.stdout is not None
    try:
        with tempfile.TemporaryDirectory() as folder:
            project = Project(Path(folder), model.stdout.readline().strip())
            try:
                results = {
                    name: measure(project, name, options.rounds, options.cancel) for name in options.on.split(",")
                }
            finally:
                project.command("host", "stop")
    finally:
        model.kill()
        model.wait()
    for framework, found in results.items():
        for what, numbers in found.items():
            shown = "  ".join(f"{name} {value:8.1f}" for name, value in numbers.items())
            print(f"{framework:14} {what:24} {shown}")
    if options.json:
        options.json.write_text(json.dumps({"rounds": options.rounds, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
