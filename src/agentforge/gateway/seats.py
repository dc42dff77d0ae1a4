"""Who may have how many connections: a worker that opens all it can leaves the host, and other workers, enough.

A descriptor of the host is a seat. Each door has a few for certain and asks for more as it fills; what it does not
need any more goes back, first to the doors that wait.
"""

from collections.abc import Callable

__all__ = ["Seats", "Share"]

_CERTAIN = 16
"""Seats that each door has, whatever the others take."""
_DOORS = 16
"""Doors that are reckoned with."""


class Seats:
    """All connections that workers may have to one host. Lives on one event loop."""

    def __init__(self, most: int | None) -> None:
        """`most` connections at once, all doors together; None: as many as there are."""
        self._free = None if most is None else max(0, most - _CERTAIN * _DOORS)
        self._short: list[Share] = []

    def share(self, most: int, grant: Callable[[], None]) -> "Share":
        """Return the seats of a door, at most so many at once; `grant` is called for each beyond the first."""
        return Share(self, most, grant)

    def take(self, share: "Share", wanted: int) -> int:
        """Take up to so many free seats; a share that gets none is given some when others leave."""
        if self._free is None:
            return wanted
        taken = min(wanted, self._free)
        self._free -= taken
        if not taken and share not in self._short:
            self._short.append(share)
        return taken

    def give(self, count: int) -> None:
        """Take seats back."""
        if self._free is None:
            return
        self._free += count
        while self._free and self._short:
            self._short.pop(0).widen()

    def forget(self, share: "Share") -> None:
        """Stop reckoning with a share that is closed."""
        if share in self._short:
            self._short.remove(share)


class Share:
    """The seats of one door."""

    def __init__(self, seats: Seats, most: int, grant: Callable[[], None]) -> None:
        self._seats = seats
        self._most = most
        self._grant = grant
        self.granted = min(_CERTAIN, most)
        """Seats that it has, taken or free."""
        self.used = 0

    def sit(self) -> None:
        """Take note of a connection."""
        self.used += 1
        if self.used >= self.granted - self._spare() // 2:
            self.widen()

    def leave(self) -> None:
        """Take note of a connection's end: its seat is free, or goes back if there are many."""
        self.used -= 1
        if self.granted > _CERTAIN and self.granted - self.used > self._spare():
            self.granted -= 1
            self._seats.give(1)
        else:
            self._grant()

    def widen(self) -> None:
        """Ask for more seats."""
        wanted = min(self._spare(), self._most - self.granted)
        if wanted > 0:
            taken = self._seats.take(self, wanted)
            self.granted += taken
            for _ in range(taken):
                self._grant()

    def close(self) -> None:
        """Give all back but those that are its own."""
        self._seats.forget(self)
        self._seats.give(max(0, self.granted - _CERTAIN))
        self.granted = 0

    def _spare(self) -> int:
        return max(_CERTAIN, self.used // 4)
