"""What the store costs: CPU and wall time per run, events and effects per second.

A run is what the engine writes for a small one: create_run, start_attempt, 12 events in 4 appends, 3 effects with a
2 KiB request and a 1 KiB response each, finish_attempt, finish_run. `--concurrency` runs are under way at once.

    python benchmarks/store.py --runs 1000 --concurrency 1 32 200 --durability process full
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from agentforge.store import (
    AgentVersion,
    AgentVersionId,
    Attempt,
    Effect,
    Event,
    ProjectId,
    Run,
    RunId,
    Store,
    open_store,
)

PROJECT, VERSION = ProjectId("benchmark"), AgentVersionId("0" * 64)
REQUEST, RESPONSE = b"q" * 2048, b"a" * 1024
DATA = {"model": "default", "usage": {"input_tokens": 120, "output_tokens": 31}, "text": "x" * 100}
EVENTS, EFFECTS = 12, 3


async def one_run(store: Store, run_id: RunId, epoch: int, waits: list[float]) -> None:
    async def timed(write):
        started = time.perf_counter()
        await write
        waits.append(time.perf_counter() - started)

    def events(first, count):
        return [Event(run_id, first + n, 1, "model.responded", 1.7e9, DATA) for n in range(count)]

    run = Run(
        run_id=run_id, project=PROJECT, agent_name="bench", agent_version=VERSION, framework="python",
        input="How much was travel?", lease_epoch=epoch, created_at=1.7e9,
    )  # fmt: skip
    await timed(store.create_run(run))
    await timed(store.start_attempt(Attempt(run_id, 1, "w", 1.7e9), epoch))
    await timed(store.append_events(run_id, epoch, events(1, 3)))
    for position in range(EFFECTS):
        effect = Effect(
            run_id=run_id, position=position, attempt=1, kind="model", request_hash="0" * 64, occurrence=position,
            request=REQUEST, response=RESPONSE, status=200, usage=DATA["usage"], started_at=1.7e9, duration_ms=1,
        )  # fmt: skip
        await timed(store.append_effect(effect, epoch))
        await timed(store.append_events(run_id, epoch, events(4 + 3 * position, 3)))
    await timed(store.finish_attempt(run_id, 1, epoch, status="succeeded", finished_at=1.7e9))
    await timed(store.finish_run(run_id, epoch, {"status": "succeeded", "output": "412.5", "finished_at": 1.7e9}))


async def measure(runs: int, concurrency: int, durability: str) -> dict[str, object]:
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(Path(folder) / "state.db", durability) as store:
            epoch = (await store.acquire_lease(PROJECT, "benchmark")).epoch
            await store.put_agent_version(AgentVersion(id=VERSION, name="bench", spec={}, created_at=1.7e9))
            ids = iter([RunId(f"{n:026}") for n in range(runs)])

            async def some() -> None:
                for run_id in ids:
                    await one_run(store, run_id, epoch, waits)

            await one_run(store, RunId("warm"), epoch, [])
            cpu, wall = time.process_time(), time.perf_counter()
            await asyncio.gather(*(some() for _ in range(concurrency)))
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    waits.sort()
    return {
        "durability": durability,
        "concurrency": concurrency,
        "runs": runs,
        "cpu_ms_per_run": round(cpu / runs * 1e3, 3),
        "wall_ms_per_run": round(wall / runs * 1e3, 3),
        "runs_per_s": round(runs / wall),
        "events_per_s": round(runs * EVENTS / wall),
        "effects_per_s": round(runs * EFFECTS / wall),
        "write_ms_median": round(statistics.median(waits) * 1e3, 3),
        "write_ms_p99": round(waits[int(len(waits) * 0.99)] * 1e3, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 32, 200])
    parser.add_argument("--durability", nargs="+", default=["process", "full"])
    options = parser.parse_args()
    for durability in options.durability:
        for concurrency in options.concurrency:
            json.dump(asyncio.run(measure(options.runs, concurrency, durability)), sys.stdout)
            print(flush=True)


if __name__ == "__main__":
    main()
