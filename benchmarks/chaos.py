"""Kill the host and its workers at random moments, and see that no run is lost and nothing finished is done twice.

A trial is one SIGKILL: of an agent worker, a tool worker, the host, or the host and a worker, while a few runs are
under way in one project. Each run makes 5 model calls and 5 tool calls (`chaos_trials/story.py`); tools leave a line
that is durable before they return, half of the calls are declared idempotent. A killed host is followed by the next one
as a user would start it (`agentforge runs resume --all`, or a client); runs that wait because a tool was in flight are
answered by looking into the tools' log. At the end every run is checked against what happened outside: the requests
that the model saw and the lines that the tools wrote. Exits 1 if a run was lost, an effect repeated or a result wrong:

    python benchmarks/chaos.py --trials 300 --seed 1 --json chaos.json
"""

import argparse
import asyncio
import contextlib
import json
import math
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chaos_trials.checks import Fault, faults_of, faults_of_keys
from chaos_trials.hits import hits_of
from chaos_trials.monkey import Monkey
from chaos_trials.plans import acts
from chaos_trials.records import Kill, RunRecord
from chaos_trials.report import failed, figures, table
from chaos_trials.traffic import Traffic
from chaos_trials.world import World, open_world

from agentforge.store import RunId, open_store

FRAMEWORKS = "langchain,crewai,pydantic-ai,python"


async def main() -> int:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300, help="kills")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn at random; moments vary all the same")
    parser.add_argument("--frameworks", default=FRAMEWORKS, help="with commas")
    parser.add_argument("--concurrency", type=int, default=6, help="runs at once")
    parser.add_argument("--patience-s", type=float, default=180.0, help="after which a run counts as lost")
    parser.add_argument("--minutes", type=float, default=math.inf, help="kill nothing more after so many")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--keep", type=Path, help="keep the project in this folder, for looking into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as temporary:
        root = options.keep or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        found = await attack(root.resolve(), options)
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if failed(found) else 0


async def attack(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Carry out all trials in a new project; returns the figures."""
    rng, began = random.Random(options.seed), time.monotonic()
    frameworks = options.frameworks.split(",")
    async with open_world(root) as world:
        await world.start()
        traffic = Traffic(world, options.concurrency, rng, options.patience_s)
        await traffic.warm_up(frameworks)
        traffic.start()
        monkey = Monkey(world, traffic, acts(rng, frameworks, options.trials), rng)
        while len(monkey.kills) < options.trials and time.monotonic() - began < options.minutes * 60:
            tell(await monkey.trial(), options.trials, began)
        await traffic.finish()
        await collect(world, traffic.records)
        found = evaluate(monkey.kills, traffic.records, world)
    return {
        "seed": options.seed,
        "seconds": round(time.monotonic() - began, 1),
        "missed_moments": monkey.missed,
        **found,
    }


def tell(kill: Kill, trials: int, began: float) -> None:
    """Show how far it is."""
    print(
        f"\r{kill.number}/{trials} kills, {time.monotonic() - began:.0f} s   ",
        end="\n" if kill.number == trials else "",
        file=sys.stderr,
        flush=True,
    )


async def collect(world: World, records: list[RunRecord]) -> None:
    """Add to each run what is known of it at the end."""
    store = open_store(world.root / ".agentforge" / "state.db")
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(store)
        for record in records:
            record.requests = world.requests.of(record.label)
            record.lines = world.log.of(record.label)
            if record.run_id:
                page = await world.get(f"/v1/runs/{record.run_id}/events")
                record.events = page["events"]
                effects = await store.list_effects(RunId(record.run_id))
                record.journal = [(effect.kind, effect.position, effect.voided) for effect in effects]


def evaluate(kills: list[Kill], records: list[RunRecord], world: World) -> dict[str, Any]:
    """Check all runs and return the figures."""
    by_run = {record.label: [hit for kill in kills if (hit := hits_of(kill, record))] for record in records}
    faults: dict[str, list[Fault]] = {record.label: faults_of(record, by_run[record.label]) for record in records}
    outside = [("wrong", each) for each in [*world.requests.strange, *world.log.broken, *world.trouble]]
    faults[""] = [*faults_of_keys(world.log.keys()), *outside]
    return figures(kills, records, [hit for hits in by_run.values() for hit in hits], faults)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
