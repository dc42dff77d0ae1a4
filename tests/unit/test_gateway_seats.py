"""Connections shared among doors: nobody goes without, and nobody keeps what others need."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge.gateway.seats import Seats, Share


class Door:
    """Sits down whoever comes, as far as it was granted seats."""

    def __init__(self, seats: Seats, most: int = 16384) -> None:
        self.granted = 0
        self.share: Share = seats.share(most, self._grant)
        self.granted += self.share.granted

    def _grant(self) -> None:
        self.granted += 1

    def come(self, count: int) -> int:
        """Let so many come; return how many got a seat."""
        taken = 0
        while taken < count and self.granted > 0:
            self.granted -= 1
            self.share.sit()
            taken += 1
        return taken

    def go(self, count: int) -> None:
        for _ in range(count):
            self.share.leave()


def test_one_door_alone_may_have_nearly_all() -> None:
    assert Door(Seats(10_000)).come(20_000) >= 9_500


def test_a_door_has_no_more_than_its_own_limit() -> None:
    assert Door(Seats(10_000), 100).come(20_000) == 100


def test_without_a_limit_of_descriptors_only_its_own_holds() -> None:
    assert Door(Seats(None)).come(20_000) == 16384


def test_a_door_that_comes_late_has_some_seats_for_certain() -> None:
    seats = Seats(1000)
    greedy = Door(seats)
    greedy.come(5000)
    assert Door(seats).come(50) >= 16


def test_what_is_given_back_goes_to_who_waits() -> None:
    seats = Seats(1000)
    greedy, late = Door(seats), Door(seats)
    taken = greedy.come(5000)
    before = late.come(500)
    greedy.go(taken)
    assert late.come(500) > before


def test_what_a_closed_door_had_is_free_again() -> None:
    seats = Seats(1000)
    first = Door(seats)
    first.come(5000)
    first.share.close()
    assert Door(seats).come(5000) >= 700


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(1, 300)), max_size=60))
def test_there_are_never_more_seats_than_there_are(moves: list[tuple[int, bool, int]]) -> None:
    seats = Seats(1000)
    doors = [Door(seats) for _ in range(3)]
    sitting = [0, 0, 0]
    for index, comes, count in moves:
        if comes:
            sitting[index] += doors[index].come(count)
        else:
            leaving = min(count, sitting[index])
            doors[index].go(leaving)
            sitting[index] -= leaving
        assert sum(sitting) <= 1000
        assert sum(door.share.granted for door in doors) <= 1000
        for door, used in zip(doors, sitting, strict=True):
            assert door.share.used == used
            assert door.granted == door.share.granted - used


@pytest.mark.parametrize("most", [0, 10, 200])
def test_where_descriptors_are_few_each_door_still_has_some(most: int) -> None:
    assert Door(Seats(most)).come(100) >= 16
