"""What the store costs: effects per second at both levels of durability, alone and with many runs at once.

`journal`: every run appends one effect after the other (2 KiB request, 1 KiB response, one event with it) and waits
for each. `runs`: what the engine writes for a small run: create_run, start_attempt, 12 events in 4 appends, 3 effects,
finish_attempt, finish_run. `payload`: the journal with requests of 128 KiB, which are kept as blobs. `disk_sync_ms` is
what one write of 4 KiB with its sync takes in the same folder, for comparison. Both levels take turns, and the fastest
of several turns counts, since whatever else the machine does only makes them slower. The table goes to stderr, JSON to
stdout.

    python benchmarks/store.py --concurrency 1 32 200 --turns 5 > store.json
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from agentforge.store import (
    AgentVersion,
    AgentVersionId,
    Attempt,
    Durability,
    Effect,
    Event,
    ProjectId,
    Run,
    RunId,
    Store,
    open_store,
)

PROJECT, VERSION = ProjectId("benchmark"), AgentVersionId("0" * 64)
AT = 1.7e9
REQUEST, PAYLOAD, RESPONSE = b"q" * 2048, 128 * 1024, b"a" * 1024
DATA = {"model": "default", "usage": {"input_tokens": 120, "output_tokens": 31}, "text": "x" * 100}
EFFECTS = 3
COLUMNS = ("work", "durability", "concurrency", "effects_per_s", "write_ms_median", "write_ms_p99", "cpu_ms_per_effect")

Clocked = Callable[[Awaitable[object]], Awaitable[None]]


def events(run_id: RunId, first: int, count: int) -> list[Event]:
    return [Event(run_id, first + n, 1, "model.responded", AT, DATA) for n in range(count)]


def effect(run_id: RunId, position: int, request: bytes = REQUEST) -> Effect:
    return Effect(
        run_id=run_id,
        position=position,
        attempt=1,
        kind="model",
        request_hash="0" * 64,
        occurrence=position,
        request=request,
        response=RESPONSE,
        status=200,
        usage=DATA["usage"],
        started_at=AT,
        duration_ms=1,
    )


async def make_run(store: Store, run_id: RunId, epoch: int) -> None:
    await store.create_run(
        Run(
            run_id=run_id,
            project=PROJECT,
            agent_name="bench",
            agent_version=VERSION,
            framework="python",
            input="How much was travel?",
            lease_epoch=epoch,
            created_at=AT,
        )
    )


async def whole_run(store: Store, run_id: RunId, epoch: int, clocked: Clocked) -> None:
    """Write what a small run has: three effects and all that goes with them."""
    await clocked(make_run(store, run_id, epoch))
    await clocked(store.start_attempt(Attempt(run_id, 1, "w", AT), epoch))
    await clocked(store.append_events(run_id, epoch, events(run_id, 1, 3)))
    for position in range(EFFECTS):
        await clocked(store.append_effect(effect(run_id, position), epoch))
        await clocked(store.append_events(run_id, epoch, events(run_id, 4 + 3 * position, 3)))
    await clocked(store.finish_attempt(run_id, 1, epoch, status="succeeded", finished_at=AT))
    await clocked(store.finish_run(run_id, epoch, {"status": "succeeded", "output": "412.5", "finished_at": AT}))


async def runs(store: Store, epoch: int, count: int, concurrency: int, clocked: Clocked) -> None:
    """Write `count` effects as whole runs, `concurrency` of them at once."""
    ids = iter([RunId(f"{n:026}") for n in range(count // EFFECTS)])

    async def some() -> None:
        for run_id in ids:
            await whole_run(store, run_id, epoch, clocked)

    await asyncio.gather(*(some() for _ in range(concurrency)))


async def journal(store: Store, epoch: int, count: int, concurrency: int, clocked: Clocked, size: int = 0) -> None:
    """Append `count` effects to `concurrency` runs, each in its own order."""
    numbers: Iterator[int] = iter(range(count))

    async def one(run_id: RunId) -> None:
        await make_run(store, run_id, epoch)
        for position, number in enumerate(numbers):
            request = str(number).encode().ljust(size, b"q") if size else REQUEST
            made = effect(run_id, position, request)
            await clocked(store.append_effect(made, epoch, events(run_id, position + 1, 1)))

    await asyncio.gather(*(one(RunId(f"{n:026}")) for n in range(concurrency)))


async def payload(store: Store, epoch: int, count: int, concurrency: int, clocked: Clocked) -> None:
    """Do as `journal` with requests that are different blobs."""
    await journal(store, epoch, count // 10, concurrency, clocked, PAYLOAD)


WORK = {"journal": journal, "runs": runs, "payload": payload}


async def measure(work: str, count: int, concurrency: int, durability: Durability, parent: str | None) -> dict:
    """Return the figures of one kind of work in a fresh store."""
    waits: list[float] = []

    async def clocked(write: Awaitable[object]) -> None:
        started = time.perf_counter()
        await write
        waits.append(time.perf_counter() - started)

    with tempfile.TemporaryDirectory(dir=parent) as folder:
        sync_ms = disk_sync_ms(Path(folder))
        async with open_store(Path(folder) / "state.db", durability) as store:
            epoch = (await store.acquire_lease(PROJECT, "benchmark")).epoch
            await store.put_agent_version(AgentVersion(id=VERSION, name="bench", spec={}, created_at=AT))
            await whole_run(store, RunId("warm"), epoch, clocked)
            waits.clear()
            cpu, wall = time.process_time(), time.perf_counter()
            await WORK[work](store, epoch, count, concurrency, clocked)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    waits.sort()
    effects = count // 10 if work == "payload" else count
    return {
        "work": work,
        "durability": durability,
        "concurrency": concurrency,
        "effects": effects,
        "effects_per_s": round(effects / wall),
        "write_ms_median": round(statistics.median(waits) * 1e3, 3),
        "write_ms_p99": round(waits[int(len(waits) * 0.99)] * 1e3, 3),
        "cpu_ms_per_effect": round(cpu / effects * 1e3, 3),
        "disk_sync_ms": sync_ms,
    }


def disk_sync_ms(folder: Path) -> float:
    """Return the median time of a small write that is forced to the disk."""
    times = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(50):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return round(statistics.median(times) * 1e3, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effects", type=int, default=6000, help="how many are written (payload: a tenth of it)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 32, 200])
    parser.add_argument("--durability", nargs="+", default=["process", "full"], choices=["process", "full"])
    parser.add_argument("--work", nargs="+", default=list(WORK), choices=list(WORK))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", help="where to make the databases: a folder on the disk to be measured")
    options = parser.parse_args()
    figures = []
    print(" | ".join(COLUMNS), file=sys.stderr)
    for work in options.work:
        for concurrency in options.concurrency:
            found: dict[str, list[dict]] = {durability: [] for durability in options.durability}
            for _ in range(options.turns):
                for durability, turns in found.items():
                    turns.append(asyncio.run(measure(work, options.effects, concurrency, durability, options.folder)))
            for turns in found.values():
                best = max(turns, key=lambda turn: turn["effects_per_s"])
                print(" | ".join(str(best[name]).rjust(len(name)) for name in COLUMNS), file=sys.stderr, flush=True)
                figures.append({**best, "turns": [turn["effects_per_s"] for turn in turns]})
    json.dump(figures, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
