import asyncio
import resource
import subprocess
import sys

import pytest

from agentforge.gateway.pacing import Turns, most_connections


class Crowd:
    """Takes turns and says who has one."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.having: list[int] = []
        self.leave = asyncio.Event()

    async def take(self, number: int) -> None:
        async with self.turns.taken():
            self.having.append(number)
            await self.leave.wait()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_few_have_a_turn_at_a_time_in_the_order_in_which_they_came():
    crowd = Crowd(Turns(2, slow_s=60))
    tasks = [asyncio.create_task(crowd.take(number)) for number in range(5)]
    await settled()
    assert crowd.having == [0, 1]
    tasks[0].cancel()
    tasks[2].cancel()
    await settled()
    assert crowd.having == [0, 1, 3]
    crowd.leave.set()
    await asyncio.wait(tasks)
    assert crowd.having == [0, 1, 3, 4]


async def test_who_takes_too_long_does_not_hold_others_up_and_counts_once():
    crowd = Crowd(Turns(1, slow_s=0.01))
    tasks = [asyncio.create_task(crowd.take(number)) for number in range(3)]
    async with asyncio.timeout(10):
        while len(crowd.having) < 3:
            await asyncio.sleep(0.005)
    crowd.leave.set()
    await asyncio.wait(tasks)
    crowd.leave.clear()
    crowd.turns._slow_s = 60
    tasks = [asyncio.create_task(crowd.take(number)) for number in (7, 8)]
    await settled()
    assert crowd.having == [0, 1, 2, 7]
    crowd.leave.set()
    await asyncio.wait(tasks)


@pytest.mark.parametrize(
    ("files", "connections"),
    [(16, 64), (1024, 256), (20_000, 9744), (resource.RLIM_INFINITY, None)],
)
def test_the_limit_on_open_files_limits_connections(monkeypatch, files, connections):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert most_connections() == connections


def test_a_host_raises_its_limit_on_open_files():
    program = (
        "import resource\n"
        "from agentforge.api.server import _allow_descriptors\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))\n"
        "_allow_descriptors()\n"
        "soft, after = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "print(soft == min(hard, 1 << 17) if hard != resource.RLIM_INFINITY else soft == 1 << 17, hard == after)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "True"]
