"""What the fence costs: starting a worker in it, and a request through its door; each beside the same without it.

Start: from the command to the end of the handshake, of a worker of tools on this very Python, with and without a
sandbox in turns. Request: a GET of the gateway's list of models over one kept connection, from a worker in a sandbox
through its door, and from an ordinary process over the machine's own loopback to the same server. Prints a table and
writes JSON:

    python benchmarks/sandbox.py --starts 20 --calls 3000 --rounds 5 --json sandbox.json
"""

import argparse
import asyncio
import itertools
import json
import os
import socket
import statistics
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any, Literal

from agentforge.gateway import Gateway, Grant, Upstream
from agentforge.sandbox import Fence, Level, sandbox_for
from agentforge.workers import AdapterCode, Handlers, Worker, WorkerSpec, worker_zip
from agentforge_worker.wire import Method

_NUMBERS = itertools.count()
LEVELS: tuple[Level, ...] = ("none", "standard")
CLIENT = '''
import http.client, statistics, time


def measure(port, token, calls):
    """Return the median of the calls, in microseconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    taken = []
    for number in range(calls + 100):
        started = time.perf_counter()
        connection.request("GET", "/v1/models", headers={"Authorization": "Bearer " + token})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        response.read()
        if number >= 100:
            taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e6
'''
ADAPTER = (
    CLIENT
    + """
from urllib.parse import urlsplit
from agentforge_worker.adapter import Adapter, AgentCard, Probe, Result


class Calls(Adapter):
    def probe(self):
        return Probe("1")

    def build(self, spec, ctx):
        return spec

    def describe(self, agent):
        return AgentCard(agent.name)

    def run(self, agent, request, ctx):
        return Result(measure(urlsplit(ctx.gateway.base_url).port, ctx.gateway.token, request.input))
"""
)
Observer: Any = object()
"""Listing the models tells nobody."""


async def start_ms(folder: Path, level: Level) -> float:
    """Start a worker of tools and end it; returns what the start took."""
    spec = WorkerSpec("tools", "env", Path(sys.executable), "v", fence=Fence(level), label="start")
    started = time.perf_counter()
    worker = await Worker.start("w", spec, pyz=worker_zip(folder), folder=_own(folder), handlers=Handlers())
    taken = time.perf_counter() - started
    await worker.stop()
    return taken * 1000


async def python_ms() -> float:
    """Return what the interpreter alone takes."""
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(sys.executable, "-s", "-c", "pass")
    await process.wait()
    return (time.perf_counter() - started) * 1000


async def request_us(folder: Path, kind: Literal["door", "loopback"], calls: int) -> float:
    """Return the median time of a request."""
    gateway = Gateway(Observer)
    try:
        return await (_through_door if kind == "door" else _over_loopback)(folder, gateway, calls)
    finally:
        await gateway.close()


async def _through_door(folder: Path, gateway: Gateway, calls: int) -> float:
    code = AdapterCode(folder / "adapter", "adapter", "Calls")
    spec = WorkerSpec("agent", "env", Path(sys.executable), "v", code, label="request")
    worker = await Worker.start("w", spec, pyz=worker_zip(folder), folder=_own(folder), handlers=Handlers())
    try:
        assert worker.door is not None
        listening, worker.door = worker.door, None
        await gateway.open_door(listening, "w")
        await worker.call(Method.AGENT_OPEN, {"agent_id": "a", "spec": {"name": "n", "instructions": "", "model": "m"}})
        run = {"run_id": "r", "agent_id": "a", "token": _token(gateway), "workspace": "/tmp", "input": calls}
        answer = await worker.call(Method.RUN_START, run)
        return float(answer["output"])
    finally:
        await worker.stop()


async def _over_loopback(folder: Path, gateway: Gateway, calls: int) -> float:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    await gateway.open_door(listening, "w")
    program = CLIENT + f"print(measure({port}, {_token(gateway)!r}, {calls}))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-s", "-c", textwrap.dedent(program), stdout=asyncio.subprocess.PIPE
    )
    return float((await process.communicate())[0])


def _own(folder: Path) -> Path:
    """Return a name for a worker's folder: that of the one before may still be being removed."""
    return folder / f"w{next(_NUMBERS)}"


def _token(gateway: Gateway) -> str:
    return gateway.grant(Grant("r", 1, "w", {"m": Upstream("m", "openai", "http://127.0.0.1:9/v1", "m")}))


def _with_adapter(folder: Path) -> Path:
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter.py").write_text(ADAPTER)
    return folder


async def measure(starts: int, calls: int, rounds: int) -> dict[str, Any]:
    """Return all figures."""
    taken: dict[str, list[float]] = {"python": [], **{level: [] for level in LEVELS}}
    requests: dict[Literal["door", "loopback"], list[float]] = {"loopback": [], "door": []}
    with tempfile.TemporaryDirectory() as name:
        folder = _with_adapter(Path(name))
        sandbox_for("standard")  # found once per host, not per worker
        for _ in range(starts):
            taken["python"].append(await python_ms())
            for level in LEVELS:
                taken[level].append(await start_ms(folder, level))
        for _ in range(rounds):
            for kind, found in requests.items():
                found.append(await request_us(folder, kind, calls))
    return {
        "root": os.geteuid() == 0,
        "starts": starts,
        "start_ms": {name: _spread(found) for name, found in taken.items()},
        "start_added_ms": _paired(taken["none"], taken["standard"]),
        "calls": calls * rounds,
        "request_us": {name: _spread(found) for name, found in requests.items()},
        "request_added_us": _paired(requests["loopback"], requests["door"]),
    }


def _spread(found: list[float]) -> dict[str, float]:
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}


def _paired(before: list[float], after: list[float]) -> dict[str, float]:
    return _spread([each - other for each, other in zip(after, before, strict=True)])


def _print(figures: dict[str, Any]) -> None:
    print(f"as {'root' if figures['root'] else 'an ordinary user'}")
    for title, unit, rows, added in (
        ("start of a worker", "ms", figures["start_ms"], figures["start_added_ms"]),
        ("request", "us", figures["request_us"], figures["request_added_us"]),
    ):
        for name, spread in {**rows, "added": added}.items():
            said = "  ".join(f"{key} {value:8.1f}" for key, value in spread.items())
            print(f"{title:18} {name:10} {said} {unit}")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--calls", type=int, default=3000, help="requests in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = asyncio.run(measure(options.starts, options.calls, options.rounds))
    _print(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
