"""What the gateway costs: the same calls straight to the scripted model and through the gateway, in turns.

Client, gateway and model are three processes; the gateway's CPU is its own process's. Prints a table and writes JSON:

    python benchmarks/gateway.py --calls 2000 --rounds 5 --json gateway.json
"""

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvloop

from agentforge.gateway import Gateway, Grant, ModelCall, ModelFailure, ModelResponse, Secret, Upstream

TOOL = {
    "type": "function",
    "function": {
        "name": "total_for",
        "description": "Return the total of a category.",
        "parameters": {"type": "object", "properties": {"category": {"type": "string"}}, "required": ["category"]},
    },
}
BODY = {
    "model": "fake",
    "messages": [
        {"role": "system", "content": "You answer questions about the expense report. Use the tools. " * 10},
        {"role": "user", "content": "How much was travel in the third quarter?"},
    ],
    "tools": [TOOL],
    "temperature": 0,
}
HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Content-Type": "application/json",
    "User-Agent": "OpenAI/Python 3.54.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Package-Version": "3.54.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Runtime": "CPython",
    "X-Stainless-Runtime-Version": "3.11.7",
    "X-Stainless-Async": "async:asyncio",
    "x-stainless-retry-count": "0",
    "x-stainless-read-timeout": "600",
}


class Unwatched:
    """An observer that does nothing: the journal's cost is measured elsewhere."""

    async def requested(self, call: ModelCall) -> None:
        return None

    def delta(self, call: ModelCall, text: str) -> None:
        pass

    async def completed(self, call: ModelCall, response: ModelResponse) -> None:
        pass

    async def failed(self, call: ModelCall, failure: ModelFailure) -> None:
        raise RuntimeError(failure.message)


async def serve_gateway(model_url: str) -> None:
    """Run in the gateway's process: print base URL and token, serve until stdin ends."""
    gateway = Gateway(Unwatched())
    listening = socket.create_server(("127.0.0.1", 0))
    await gateway.open_door(listening, "w")
    upstream = Upstream("default", "openai", model_url, "fake", Secret("sk-benchmark-key"))
    token = gateway.grant(Grant("r", 1, "w", {"default": upstream}))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", token, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await gateway.close()


async def measure(
    url: str, token: str, calls: int, concurrency: int, stream: bool, watched: psutil.Process
) -> tuple[float, float, float]:
    """Return calls per second, the median milliseconds of a call, and the CPU milliseconds of `watched` per call."""
    body = json.dumps({**BODY, "stream": stream}).encode()
    headers = {**HEADERS, "Authorization": f"Bearer {token}"}
    taken: list[float] = []

    async def ask(client: aiohttp.ClientSession, left: Iterator[int]) -> None:
        for _ in left:
            begun = time.perf_counter()
            async with client.post(url + "/chat/completions", data=body, headers=headers) as answer:
                await answer.read()
                assert answer.status == 200, answer.status
            taken.append((time.perf_counter() - begun) * 1000)

    async def ask_all(client: aiohttp.ClientSession, count: int) -> None:
        left = iter(range(count))
        await asyncio.gather(*(ask(client, left) for _ in range(concurrency)))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        await ask_all(client, 2 * concurrency)  # connections are open and warm
        taken.clear()
        spent, begun = cpu_s(watched), time.perf_counter()
        await ask_all(client, calls)
        wall = time.perf_counter() - begun
        return calls / wall, statistics.median(taken), (cpu_s(watched) - spent) * 1000 / calls


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def compare(
    direct: str, through: str, token: str, gateway: psutil.Process, options: argparse.Namespace
) -> list[dict[str, Any]]:
    rows = []
    for stream in (False, True):
        for concurrency in (1, 32):
            rounds = [
                await one_round(direct, through, token, gateway, options.calls, concurrency, stream)
                for _ in range(options.rounds)
            ]
            row = {name: round(statistics.median(r[name] for r in rounds), 3) for name in rounds[0]}
            rows.append({"stream": stream, "concurrency": concurrency, **row})
    return rows


async def one_round(
    direct: str, through: str, token: str, gateway: psutil.Process, calls: int, concurrency: int, stream: bool
) -> dict[str, float]:
    direct_per_s, direct_ms, _ = await measure(direct, "sk-benchmark-key", calls, concurrency, stream, gateway)
    through_per_s, through_ms, cpu_ms = await measure(through, token, calls, concurrency, stream, gateway)
    return {
        "direct_p50_ms": direct_ms,
        "through_p50_ms": through_ms,
        "direct_per_s": direct_per_s,
        "through_per_s": through_per_s,
        "gateway_cpu_ms_per_call": cpu_ms,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--asyncio", action="store_true", help="the gateway on asyncio's own loop, not on uvloop")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        run = asyncio.run if options.asyncio else uvloop.run
        run(serve_gateway(options.serve))
        return
    model = subprocess.Popen(
        [sys.executable, "-m", "agentforge_conformance.scripted_model", "--no-record"],
        stdout=subprocess.PIPE,
        text=True,
    )
    direct = model.stdout.readline().strip()
    command = [sys.executable, __file__, "--serve", direct, *(["--asyncio"] if options.asyncio else [])]
    gateway = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    through, token = gateway.stdout.readline().split()
    try:
        rows = asyncio.run(compare(direct, through, token, psutil.Process(gateway.pid), options))
    finally:
        gateway.communicate()
        model.terminate()
        model.wait()
    print(*rows[0], sep="  ")
    for row in rows:
        print("  ".join(f"{value!s:>{len(name)}}" for name, value in row.items()))
    if options.json:
        options.json.write_text(json.dumps({"calls": options.calls, "rounds": options.rounds, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
