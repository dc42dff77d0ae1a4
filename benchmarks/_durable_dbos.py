"""The DBOS side of durable_peers.py: runs in DBOS's own environment, takes measurements as lines of JSON on stdin.

A measurement is {"style", "concurrency", "runs"}; the answer is one line of JSON. Styles: how a user may run a
workflow and wait for its result: `call` and `start` are a plain function (called, or started and waited for by its
handle), `async-call` and `async-start` the same for an async function.
"""

import argparse
import asyncio
import json
import sys
import threading
import time
from importlib.metadata import version

import pysqlite3

sys.modules["sqlite3"] = pysqlite3  # DBOS needs SQLite 3.42

import sqlalchemy as sa  # noqa: E402
from dbos import DBOS, DBOSConfig  # noqa: E402


@DBOS.step()
def first(n):
    return {"step": 1, "n": n}


@DBOS.step()
def second(n):
    return {"step": 2, "n": n}


@DBOS.workflow()
def workflow(n):
    return {"first": first(n), "second": second(n)}


@DBOS.step()
async def async_first(n):
    return {"step": 1, "n": n}


@DBOS.step()
async def async_second(n):
    return {"step": 2, "n": n}


@DBOS.workflow()
async def async_workflow(n):
    return {"first": await async_first(n), "second": await async_second(n)}


def call(n):
    return workflow(n)


def start(n):
    return DBOS.start_workflow(workflow, n).get_result()


async def async_call(n):
    return await async_workflow(n)


async def async_start(n):
    handle = await DBOS.start_workflow_async(async_workflow, n)
    return await handle.get_result()


STYLES = {"call": call, "start": start, "async-call": async_call, "async-start": async_start}


def check(n, result):
    assert result == {"first": {"step": 1, "n": n}, "second": {"step": 2, "n": n}}, result


def in_threads(one, concurrency, runs, taken):
    numbers, failed = iter(range(runs)), []

    def some():
        try:
            for n in numbers:
                begun = time.perf_counter()
                check(n, one(n))
                taken.append(time.perf_counter() - begun)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=some) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


async def in_tasks(one, concurrency, runs, taken):
    numbers = iter(range(runs))

    async def some():
        for n in numbers:
            begun = time.perf_counter()
            check(n, await one(n))
            taken.append(time.perf_counter() - begun)

    await asyncio.gather(*(some() for _ in range(concurrency)))


def measure(loop, style, concurrency, runs):
    taken = []
    cpu, wall = time.process_time(), time.perf_counter()
    if style.startswith("async"):
        loop.run_until_complete(in_tasks(STYLES[style], concurrency, runs, taken))
    else:
        in_threads(STYLES[style], concurrency, runs, taken)
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "latencies_s": taken}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", required=True)
    parser.add_argument("--synchronous", required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()

    @sa.event.listens_for(sa.Engine, "connect")
    def configure(connection, record):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {options.synchronous}")

    config: DBOSConfig = {
        "name": "durable-peers",
        "system_database_url": f"sqlite:///{options.database}",
        "max_executor_threads": options.threads,
        "run_admin_server": False,
        "console_log_level": "ERROR",
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    loop = asyncio.new_event_loop()
    print(json.dumps({"dbos_version": version("dbos"), "sqlite_version": pysqlite3.sqlite_version}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(loop, **json.loads(line))), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    main()
