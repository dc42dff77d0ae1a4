"""A process that journals and is killed with SIGKILL: what it had acknowledged is there for the next one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentforge.store import open_store
from agentforge_conformance.store import PROJECT, effect, events, new_run

TOLD = 200
"""How many acknowledgements are awaited before the process is killed, in the middle of the next ones."""


async def journal(path: str, durability: str) -> None:
    """Append effects for ever and print each position once it is acknowledged. The process to be killed does this."""
    import asyncio
    import itertools

    async with open_store(path, durability) as store:
        lease = await store.acquire_lease(PROJECT, "killed")
        runs = [await new_run(store, lease) for _ in range(8)]

        async def append(run_id) -> None:
            for position in itertools.count():
                request = b"q" * (70_000 if position % 10 == 0 else 500)
                await store.append_effect(
                    effect(run_id, position, request=request), lease.epoch, events(run_id, position + 1)
                )
                os.write(1, f"{run_id} {position}\n".encode())

        await asyncio.gather(*map(append, runs))


@pytest.mark.parametrize("durability", ["process", "full"])
async def test_a_killed_process_loses_nothing_that_it_had_acknowledged(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "state.db"
    code = f"import asyncio; from {__name__} import journal; asyncio.run(journal({str(path)!r}, {durability!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().split() for _ in range(TOLD)]
        process.kill()
        told += [line.split() for line in process.stdout.read().splitlines()]
    async with open_store(path, durability) as store:
        lease = await store.acquire_lease(PROJECT, "next host")
        for run in await store.claim_runs(PROJECT, lease.epoch):
            kept = [one.position for one in await store.list_effects(run.run_id, limit=None)]
            acknowledged = [int(position) for run_id, position in told if run_id == run.run_id]
            assert kept == list(range(len(kept)))
            assert kept[: len(acknowledged)] == acknowledged
            assert len(await store.list_events(run.run_id, limit=None)) == len(kept)
            await store.append_effect(effect(run.run_id, len(kept)), lease.epoch)
