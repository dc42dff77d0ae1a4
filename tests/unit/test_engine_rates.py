import asyncio
from bisect import bisect_left
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentforge.config.checking import check
from agentforge.config.project_file import ProjectConfig
from agentforge.config.source import Source
from agentforge.engine.rates import RateLimit, Rates, rate_limits

pytestmark = pytest.mark.feature("AF-074")

about = partial(pytest.approx, abs=0.01)


class World:
    """A clock that only sleeping moves."""

    def __init__(self, **limits: RateLimit) -> None:
        self.now = 1000.0
        self.rates = Rates(limits, clock=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now += seconds


async def test_a_model_without_limits_is_never_waited_for():
    world = World(other=RateLimit(1, 1))
    assert [await world.rates.acquire("default") for _ in range(100)] == [0.0] * 100
    world.rates.charge("default", 1_000_000)
    assert await world.rates.acquire("default") == 0.0


async def test_the_first_request_too_many_waits_until_the_first_one_is_a_minute_old():
    world = World(default=RateLimit(requests_per_minute=2))
    assert await world.rates.acquire("default") == 0.0
    world.now += 10
    assert await world.rates.acquire("default") == 0.0
    assert await world.rates.acquire("default") == about(50)
    assert await world.rates.acquire("default") == about(10)


@given(st.integers(1, 5), st.lists(st.floats(0, 40), min_size=1, max_size=30))
@settings(deadline=None)
def test_no_sixty_seconds_see_more_requests_than_the_limit_and_none_waits_longer_than_it_must(limit, gaps):
    async def scenario() -> None:
        world = World(default=RateLimit(requests_per_minute=limit))
        granted: list[float] = []
        for gap in gaps:
            world.now += gap
            earliest = max(world.now, granted[-limit] + 60) if len(granted) >= limit else world.now
            await world.rates.acquire("default")
            granted.append(world.now)
            assert world.now == about(earliest)
        for index, at in enumerate(granted):
            assert bisect_left(granted, at + 60 - 1e-6) - index <= limit

    asyncio.run(scenario())


async def test_an_overdrawn_account_is_waited_for_until_it_is_in_credit_again():
    world = World(default=RateLimit(tokens_per_minute=600))
    assert await world.rates.acquire("default") == 0.0
    world.rates.charge("default", 599)
    assert await world.rates.acquire("default") == 0.0, "one token is left"
    world.rates.charge("default", 1200)
    assert await world.rates.acquire("default") == about(120)
    world.now += 3600
    world.rates.charge("default", 600)
    assert await world.rates.acquire("default") == about(0.1), "an hour saves up a minute's tokens, not more"


async def test_both_limits_hold():
    world = World(default=RateLimit(1, 600))
    await world.rates.acquire("default")
    world.rates.charge("default", 1800)
    assert await world.rates.acquire("default") == about(120.1)
    world.rates.charge("default", 1)
    assert await world.rates.acquire("default") == about(60)


async def test_tokens_that_come_in_while_a_request_waits_make_it_wait_longer():
    world = World(default=RateLimit(tokens_per_minute=60))
    await world.rates.acquire("default")
    world.rates.charge("default", 60)
    waiting = asyncio.ensure_future(world.rates.acquire("default"))
    await asyncio.sleep(0)
    world.rates.charge("default", 60)
    assert await waiting == about(61)


async def test_requests_go_in_the_order_in_which_they_came_and_each_model_has_its_own_line():
    world = World(default=RateLimit(requests_per_minute=1), other=RateLimit(requests_per_minute=1))
    order: list[int] = []

    async def ask(number: int) -> None:
        await world.rates.acquire("default")
        order.append(number)

    tasks = [asyncio.create_task(ask(number)) for number in range(20)]
    await asyncio.sleep(0)
    assert await world.rates.acquire("other") == 0.0
    await asyncio.gather(*tasks)
    assert order == list(range(20))


async def test_who_is_cancelled_while_waiting_has_used_nothing_and_holds_nobody_up():
    world = World(default=RateLimit(requests_per_minute=1))
    await world.rates.acquire("default")
    first, second, third = (asyncio.create_task(world.rates.acquire("default")) for _ in range(3))
    await asyncio.sleep(0)
    second.cancel()
    first.cancel()
    began = world.now
    await third
    assert world.now - began <= 60
    assert (first.cancelled(), second.cancelled()) == (True, True)


async def test_a_limit_that_is_lifted_lets_those_who_wait_go():
    world = World(default=RateLimit(1, 1))
    await world.rates.acquire("default")
    world.rates.charge("default", 1_000_000)
    waiting = asyncio.create_task(world.rates.acquire("default"))
    await asyncio.sleep(0)
    world.rates.set_limits({})
    assert await waiting <= 1.0
    world.rates.set_limits({"default": RateLimit(5, 100)})
    assert await world.rates.acquire("default") == 0.0


async def test_a_lower_limit_counts_what_was_sent_before():
    world = World(default=RateLimit(requests_per_minute=5))
    for _ in range(5):
        await world.rates.acquire("default")
        world.now += 1
    world.rates.set_limits({"default": RateLimit(requests_per_minute=2)})
    assert await world.rates.acquire("default") == about(58), "the fourth of five is a minute old"


def test_limits_come_from_the_configuration():
    models = {
        "default": {"model": "m", "requests_per_minute": 60},
        "big": {"model": "m", "tokens_per_minute": 1000},
        "free": {"model": "m", "concurrency": 2},
    }
    config = check(ProjectConfig, Source("agentforge.toml", {"models": models}))
    assert rate_limits(config) == {"default": RateLimit(60, None), "big": RateLimit(None, 1000)}


async def test_a_request_that_comes_just_as_the_model_is_free_goes_after_those_that_wait():
    now, woken = 0.0, asyncio.Event()

    async def sleep(_: float) -> None:
        await woken.wait()
        woken.clear()

    rates = Rates({"default": RateLimit(requests_per_minute=1)}, clock=lambda: now, sleep=sleep)
    await rates.acquire("default")
    waits = asyncio.create_task(rates.acquire("default"))
    await asyncio.sleep(0)
    now = 60.0
    comes = asyncio.create_task(rates.acquire("default"))
    await asyncio.sleep(0)
    assert not comes.done()
    woken.set()
    assert await waits == 60
    assert not comes.done()
    comes.cancel()


async def test_who_does_not_wait_has_waited_for_no_time_at_all():
    assert await Rates({"default": RateLimit(5, 100)}).acquire("default") == 0.0
