"""Work that is shared: nobody gets what began before it asked, and few do the work of many."""

import asyncio
from collections.abc import Callable

import pytest

from agentforge.engine.sharing import JoinedWork, SharedWork


class Counted:
    """Work that ends when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()

    async def work(self) -> int:
        self.begun += 1
        number = self.begun
        await self.go_on.wait()
        return number


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_those_who_ask_before_it_begins_share_it() -> None:
    shared, counted = SharedWork[int](), Counted()
    counted.go_on.set()
    assert await asyncio.gather(*(shared.do("k", counted.work) for _ in range(10))) == [1] * 10


async def test_those_who_ask_after_it_began_share_the_next() -> None:
    shared, counted = SharedWork[int](), Counted()
    first = asyncio.ensure_future(shared.do("k", counted.work))
    await turns()
    later = []
    for _ in range(5):
        later.append(asyncio.ensure_future(shared.do("k", counted.work)))
        await turns()
    assert counted.begun == 1
    counted.go_on.set()
    assert (await first, await asyncio.gather(*later)) == (1, [2] * 5)
    assert await shared.do("k", counted.work) == 3


async def test_other_work_does_not_wait() -> None:
    shared, slow, quick = SharedWork[int](), Counted(), Counted()
    waiting = asyncio.ensure_future(shared.do("slow", slow.work))
    quick.go_on.set()
    assert await shared.do("quick", quick.work) == 1
    slow.go_on.set()
    assert await waiting == 1


async def test_a_failure_is_everybodys_and_the_next_one_tries_again() -> None:
    shared = SharedWork[int]()
    fails = [True, False]

    async def work() -> int:
        if fails.pop(0):
            raise ValueError("no")
        return 1

    failed = await asyncio.gather(*(shared.do("k", work) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in failed] == [ValueError] * 3
    assert await shared.do("k", work) == 1


async def test_it_goes_on_for_the_others_when_who_asked_first_gives_up() -> None:
    shared, counted = SharedWork[int](), Counted()
    first = asyncio.ensure_future(shared.do("k", counted.work))
    second = asyncio.ensure_future(shared.do("k", counted.work))
    await turns()
    first.cancel()
    await turns()
    counted.go_on.set()
    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first


class Telling:
    """Work that tells how far it is, and ends when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = False
        self.go_on = asyncio.Event()

    async def work(self, tell: Callable[[str], None]) -> int:
        self.begun += 1
        tell("begun")
        try:
            await self.go_on.wait()
            tell("done")
        finally:
            self.ended = True
        return self.begun


async def test_those_who_ask_before_it_ends_join_it_and_hear_of_it_from_where_it_is() -> None:
    joined, telling = JoinedWork[int, str](), Telling()
    heard: list[list[str]] = [[], []]
    first = asyncio.ensure_future(joined.do("k", telling.work, heard[0].append))
    await turns()
    second = asyncio.ensure_future(joined.do("k", telling.work, heard[1].append))
    await turns()
    telling.go_on.set()
    assert await asyncio.gather(first, second) == [1, 1]
    assert heard == [["begun", "done"]] * 2
    assert await joined.do("k", telling.work) == 2


async def test_joined_work_goes_on_when_a_caller_gives_up_and_tells_it_nothing_more() -> None:
    joined, telling = JoinedWork[int, str](), Telling()
    heard: list[str] = []
    first = asyncio.ensure_future(joined.do("k", telling.work, heard.append))
    await turns()
    second = asyncio.ensure_future(joined.do("k", telling.work))
    await turns()
    first.cancel()
    await turns()
    telling.go_on.set()
    assert await second == 1
    assert heard == ["begun"]


async def test_closing_ends_what_is_under_way() -> None:
    joined, telling = JoinedWork[int, str](), Telling()
    waiting = asyncio.ensure_future(joined.do("k", telling.work))
    await turns()
    await joined.close()
    assert telling.ended
    with pytest.raises(asyncio.CancelledError):
        await waiting
