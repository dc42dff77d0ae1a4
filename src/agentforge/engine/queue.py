"""The line in which runs wait to be executed: how many go on at once, in this host and by framework, agent, model.

The engine draws a ticket for each run, executes the run while it is admitted, and gives the ticket back. Higher
priority goes first, then who came first; but a run that can't begin because of a limit of its own (its framework's,
say) lets others pass. Of those it lets pass for only so long: when what it needs was taken from under it again and
again by later ones, the next that becomes free is kept for it, so that nobody waits for ever for two things at once.

Runs that runs start. A child takes its parent's place in the line: it goes before all who came after its parent. And
it never waits for what its parents hold: for a child only those runs count that have no unfinished child themselves,
since a run that waits for its children needs no share of its own. So whenever any run waits, some run works, and no
chain of parents and children can lock itself up; in exchange a limit can be exceeded by parents that have children.
A run that nobody started as a child begins only while all runs under way, waiting parents too, are below the limit.
"""

import asyncio
import heapq
import itertools
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from agentforge.config import ProjectConfig
from agentforge.errors.runs import QueueFull

__all__ = ["Queue", "QueueLimits", "Ticket", "queue_keys"]

_ALL = "runs"
_PATIENCE = 10
"""How often the last free share of each thing that a run lacks may go to a later run before it is kept free."""
_TIDY_AT = 64

Order = tuple[int, ...]
"""Place in the line, smallest first: priority turned round, number of arrival; a child's begins with its parent's."""


def queue_keys(framework: str, agent: str, model: str) -> tuple[str, ...]:
    """Return what a run counts for; `model` is the alias."""
    return (f"framework:{framework}", f"agent:{agent}", f"model:{model}")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many runs may be admitted at once, by key (see `queue_keys`), and how many may wait."""

    by_key: Mapping[str, int] = field(default_factory=dict)
    max_runs: int | None = None
    max_queued: int = 100_000

    @classmethod
    def of(cls, config: ProjectConfig, most_runs: int | None = None) -> Self:
        """Return the limits that a project's configuration sets; `most_runs` is what this process can take."""
        queue = config.queue
        limits = {f"framework:{name}": limit for name, limit in queue.frameworks.items()}
        limits |= {f"agent:{name}": limit for name, limit in queue.agents.items()}
        limits |= {f"model:{alias}": model.concurrency for alias, model in config.models.items() if model.concurrency}
        bounds = [each for each in (queue.max_runs, most_runs) if each is not None]
        return cls(limits, min(bounds, default=None), queue.max_queued)


class Ticket:
    """A run in the line: it waits, is admitted, and leaves. Drawn with `Queue.enter`; leaving is always necessary."""

    __slots__ = ("_queue", "_woken", "admitted", "keys", "left", "lined_up", "order", "parent", "run_id", "serial")

    def __init__(
        self, queue: "Queue", run_id: str, keys: tuple[str, ...], order: Order, parent: str | None, serial: str | None
    ) -> None:
        self._queue = queue
        self._woken: asyncio.Future[None] | None = None
        self.run_id = run_id
        self.keys = keys
        self.order = order
        self.parent = parent
        self.serial = serial
        self.lined_up = False
        self.admitted = False
        self.left = False

    async def wait(self) -> None:
        """Return once the run is admitted. Cancelled, it leaves the line or gives back what it was just given."""
        if self.admitted:
            return
        self._woken = asyncio.get_running_loop().create_future()
        try:
            await self._woken
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Make room: the run has ended, waits for a human, or is not wanted any more. Leaving twice is fine.

        Whoever is in `wait` then gets CancelledError.
        """
        self._queue._leave(self)
        if self._woken is not None:
            self._woken.cancel()

    def _admit(self) -> None:
        self.admitted = True
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


class Queue:
    """The line of one host. All methods on the engine's loop; nothing but `wait` takes time."""

    def __init__(self, limits: QueueLimits = QueueLimits(), patience: int = _PATIENCE) -> None:
        self._limits = limits
        self._patience = patience
        self._by_key = _all_limits(limits)
        self._tickets: dict[str, Ticket] = {}
        self._children: Counter[str] = Counter()
        """Unfinished children by their parent's run id, whether it holds a ticket or not."""
        self._groups: dict[tuple[bool, tuple[str, ...]], _Group] = {}
        self._held: Counter[str] = Counter()
        """Runs admitted, by key."""
        self._working: Counter[str] = Counter()
        """Those of them without unfinished children."""
        self._serials: dict[str, deque[Ticket]] = {}
        """Tickets that go one after the other, the one whose turn it is first."""
        self._numbers = itertools.count()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Runs in the line."""
        return self._waiting

    @property
    def running(self) -> int:
        """Runs admitted."""
        return len(self._tickets) - self._waiting

    def enter(
        self,
        run_id: str,
        keys: Iterable[str],
        priority: int = 0,
        parent: str | None = None,
        *,
        refusable: bool = False,
        serial: str | None = None,
    ) -> Ticket:
        """Draw a ticket, admitted at once if there is room.

        `parent` is the run that waits for this one. `refusable`: raises QueueFull rather than have one more than
        `max_queued` wait; a child is never refused, nor should be a run that was accepted before. Runs with the same
        `serial` (their thread) go one after the other as they came, whatever their priority; those whose turn has not
        come take no place and hold nobody up.
        """
        if run_id in self._tickets:
            raise ValueError(f"run `{run_id}` is in the queue already")
        above = self._tickets.get(parent) if parent is not None else None
        order = (*(above.order if above else ()), -priority, next(self._numbers))
        ticket = self._tickets[run_id] = Ticket(self, run_id, (_ALL, *keys), order, parent, serial)
        self._waiting += 1
        if parent is not None:
            self._add_child(parent)
        if serial is None or self._join(serial, ticket):
            self._line_up(ticket)
        # Else those before it that wait for the same lack something still, and so does it.
        if parent is not None or (ticket.lined_up and self._group_of(ticket).first() is ticket):
            self._serve()
        if refusable and parent is None and not ticket.admitted and self._waiting > self._limits.max_queued:
            ticket.leave()
            raise QueueFull(f"{self._waiting} runs wait already, and no more than {self._limits.max_queued} may")
        return ticket

    @asynccontextmanager
    async def admitted(
        self, run_id: str, keys: Iterable[str], priority: int = 0, parent: str | None = None
    ) -> AsyncIterator[Ticket]:
        """Wait in the line, and be admitted until the end of the block. Never refuses."""
        ticket = self.enter(run_id, keys, priority, parent)
        await ticket.wait()
        try:
            yield ticket
        finally:
            ticket.leave()

    def position(self, run_id: str) -> int | None:
        """Return a waiting run's place in the line, 1 for the first; None if it doesn't wait. Asks every ticket."""
        mine = self._tickets.get(run_id)
        if mine is None or mine.admitted:
            return None
        return 1 + sum(not each.admitted and each.order < mine.order for each in self._tickets.values())

    def set_limits(self, limits: QueueLimits) -> None:
        """Go by other limits from now on; runs that are admitted stay so."""
        if limits == self._limits:
            return
        self._limits, self._by_key = limits, _all_limits(limits)
        self._groups.clear()
        for ticket in self._tickets.values():
            if ticket.lined_up and not ticket.admitted:
                self._group_of(ticket).push(ticket)
        self._serve()

    # ---- inside

    def _join(self, serial: str, ticket: Ticket) -> bool:
        """Put a ticket behind those of the same serial; return whether there are none."""
        line = self._serials.setdefault(serial, deque())
        line.append(ticket)
        return len(line) == 1

    def _part(self, serial: str, ticket: Ticket) -> None:
        """Take a ticket out of its serial; if it was the first, it is the next one's turn."""
        line = self._serials[serial]
        was_first = line[0] is ticket
        line.remove(ticket)
        if not line:
            del self._serials[serial]
        elif was_first:
            self._line_up(line[0])

    def _line_up(self, ticket: Ticket) -> None:
        """Put a ticket to those that wait for exactly the same."""
        ticket.lined_up = True
        self._group_of(ticket).push(ticket)

    def _group_of(self, ticket: Ticket) -> "_Group":
        name = (ticket.parent is not None, tuple(key for key in ticket.keys if key in self._by_key))
        return self._groups.setdefault(name, _Group(*name))

    def _serve(self) -> None:
        """Admit all who can be, the first in line first."""
        while (group := self._next()) is not None:
            ticket = group.pop()
            self._drop_empty(group)
            self._admit(ticket)

    def _next(self) -> "_Group | None":
        """Return the group whose first ticket is the first in the line that fits."""
        fitting = [group for group in self._groups.values() if not any(self._lacking(group))]
        for group in sorted(fitting, key=_Group.order):
            if group.is_child or not self._kept_for_others(group):
                return group
        return None

    def _lacking(self, group: "_Group") -> Iterator[str]:
        """Yield the limits that a group's first ticket waits for."""
        counts = self._working if group.is_child else self._held
        return (key for key in group.keys if counts[key] >= self._by_key[key])

    def _kept_for_others(self, group: "_Group") -> bool:
        """Whether something that would do for this group is kept free for earlier ones that were passed too often."""
        kept: Counter[str] = Counter()
        for other in self._groups.values():
            if other.passed and not other.is_child and other.order() < group.order():
                lacking = list(self._lacking(other))
                if lacking and all(other.passed[key] >= self._patience for key in lacking):
                    kept.update(key for key in other.keys if key != _ALL)
        return any(self._held[key] + kept[key] >= self._by_key[key] for key in group.keys)

    def _admit(self, ticket: Ticket) -> None:
        self._waiting -= 1
        self._held.update(ticket.keys)
        if not self._children[ticket.run_id]:
            self._working.update(ticket.keys)
        ticket._admit()
        taken = {key for key in ticket.keys if key in self._by_key and self._held[key] >= self._by_key[key]}
        for group in self._groups.values() if taken else ():
            if group.order() < ticket.order:
                group.passed.update(taken.intersection(group.keys))

    def _drop_empty(self, group: "_Group") -> None:
        if not group.tidy():
            del self._groups[group.is_child, group.keys]

    def _leave(self, ticket: Ticket) -> None:
        if ticket.left:
            return
        ticket.left = True
        del self._tickets[ticket.run_id]
        if not ticket.admitted:
            self._waiting -= 1
            if ticket.lined_up:
                self._drop_empty(self._group_of(ticket))
        else:
            _take(self._held, ticket.keys)
            if not self._children[ticket.run_id]:
                _take(self._working, ticket.keys)
        if ticket.parent is not None:
            self._drop_child(ticket.parent)
        if ticket.serial is not None:
            self._part(ticket.serial, ticket)
        self._serve()

    def _add_child(self, parent: str) -> None:
        self._children[parent] += 1
        above = self._tickets.get(parent)
        if self._children[parent] == 1 and above is not None and above.admitted:
            _take(self._working, above.keys)

    def _drop_child(self, parent: str) -> None:
        _take(self._children, (parent,))
        above = self._tickets.get(parent)
        if not self._children[parent] and above is not None and above.admitted:
            self._working.update(above.keys)


class _Group:
    """Tickets that wait for the same limits: if the first doesn't fit, none does."""

    def __init__(self, is_child: bool, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self.is_child = is_child
        self.passed: Counter[str] = Counter()
        """By key, how often a later ticket took the last free share while the first one here waited."""
        self._heap: list[tuple[Order, Ticket]] = []
        self._tidy_at = _TIDY_AT

    def push(self, ticket: Ticket) -> None:
        """Take a ticket; its order is like no other's."""
        if len(self._heap) >= self._tidy_at:
            self._heap = [each for each in self._heap if not each[1].left]
            heapq.heapify(self._heap)
            self._tidy_at = max(_TIDY_AT, 2 * len(self._heap))
        if self._heap and ticket.order < self._heap[0][0]:
            self.passed.clear()
        heapq.heappush(self._heap, (ticket.order, ticket))

    def tidy(self) -> bool:
        """Drop first tickets that have left; return whether anybody waits."""
        while self._heap and self._heap[0][1].left:
            self._drop_first()
        return bool(self._heap)

    def first(self) -> Ticket:
        """Return the first ticket."""
        return self._heap[0][1]

    def order(self) -> Order:
        """Return the first one's place in the line."""
        return self._heap[0][0]

    def pop(self) -> Ticket:
        """Take the first ticket out."""
        return self._drop_first()

    def _drop_first(self) -> Ticket:
        self.passed.clear()
        return heapq.heappop(self._heap)[1]


def _all_limits(limits: QueueLimits) -> dict[str, int]:
    return {**limits.by_key, **({} if limits.max_runs is None else {_ALL: limits.max_runs})}


def _take(counts: Counter[str], keys: Iterable[str]) -> None:
    """Count one less of each, without keeping zeros."""
    for key in keys:
        counts[key] -= 1
        if not counts[key]:
            del counts[key]
