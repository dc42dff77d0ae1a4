"""How fast a worker may send: back-pressure for one that sends too fast, an end for one that never stops."""

import time
from collections.abc import Callable

__all__ = ["Pace"]

_BURST_S = 2.0
"""So many seconds' worth may come at once."""
_PATIENCE_S = 30.0
"""A worker that is held back for so long without a break is given up."""
_REST_S = 0.02
"""A worker that is held back is read from again when there is room for so many seconds' worth."""
_UNIT = 1024
"""A message counts once more for each so many bytes: large ones cost the host what many small ones do."""


class Pace:
    """Counts one worker's messages against its rate. Lives on the event loop."""

    def __init__(
        self,
        per_s: float,
        flooded: Callable[[], None],
        *,
        patience_s: float = _PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`flooded` is called once the worker has been held back for `patience_s` without a break."""
        self._per_s = per_s
        self._burst = per_s * _BURST_S
        self._flooded = flooded
        self._patience_s = patience_s
        self._clock = clock
        self._room = self._burst
        self._counted_at = clock()
        self._held_since: float | None = None

    def take(self, size: int) -> float:
        """Count a message of so many bytes; return the seconds to wait before the next one is read."""
        now = self._clock()
        self._room = min(self._burst, self._room + (now - self._counted_at) * self._per_s)
        self._counted_at = now
        self._room -= 1 + size // _UNIT
        if self._room >= 0:
            if self._room > self._burst / 2:  # it has had a break
                self._held_since = None
            return 0.0
        if self._held_since is None:
            self._held_since = now
        elif now - self._held_since > self._patience_s:
            self._flooded()
        return -self._room / self._per_s + _REST_S
