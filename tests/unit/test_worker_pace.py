"""How fast a worker may send, with a clock that the test moves."""

import pytest

from agentforge.workers.pace import Pace


class World:
    """A worker of which each message is read once its wait is over."""

    def __init__(self, per_s: float) -> None:
        self.now = 100.0
        self.ended_at: float | None = None
        self.pace = Pace(per_s, self._flooded, patience_s=30, clock=lambda: self.now)

    def _flooded(self) -> None:
        self.ended_at = self.ended_at or self.now

    def send(self, count: int, size: int = 10) -> float:
        """Send as fast as the host reads; return how long that took."""
        begun = self.now
        for _ in range(count):
            self.now += self.pace.take(size)
        return self.now - begun


@pytest.fixture
def world() -> World:
    return World(1000)


def test_two_seconds_worth_come_at_once(world: World) -> None:
    assert world.send(2000) == 0


def test_beyond_that_the_rate_holds(world: World) -> None:
    world.send(2000)
    assert world.send(5000) == pytest.approx(5, abs=0.1)


def test_after_a_pause_there_is_room_again(world: World) -> None:
    world.send(3000)
    world.now += 2
    assert world.send(2000) == 0


def test_a_large_message_counts_as_what_it_takes(world: World) -> None:
    world.send(1990)
    assert world.send(2, 1 << 20) > 1.0


def test_a_worker_that_is_held_back_all_the_time_is_ended_after_its_patience(world: World) -> None:
    world.send(40_000)
    assert world.ended_at is not None
    assert 30 <= world.ended_at - 100 < 31


def test_a_worker_that_pauses_now_and_then_is_not(world: World) -> None:
    for _ in range(20):
        world.send(8000)  # six seconds of being held back
        world.now += 2
    assert world.ended_at is None


def test_a_host_that_itself_stood_still_blames_nobody(world: World) -> None:
    world.send(3000)
    world.now += 3600
    world.send(100)
    assert world.ended_at is None
