import asyncio
import dataclasses
import itertools
from collections import Counter, deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from agentforge.config.checking import check
from agentforge.config.project_file import ProjectConfig
from agentforge.config.source import Source
from agentforge.engine.queue import Queue, QueueLimits, Ticket, queue_keys
from agentforge.errors.runs import QueueFull

pytestmark = pytest.mark.feature("AF-074")
KEYS = ("framework:f", "framework:g", "agent:a", "agent:b", "model:m")
NEVER = 1 << 30
NUMBERS = itertools.count()


# ---- the order and the limits, against a queue that looks at everybody each time


class NaiveQueue:
    """What `Queue` promises, but for patience, in the plainest way."""

    def __init__(self, limits):
        self.limits = limits
        self.waiting = {}
        self.admitted = {}
        self.serials = {}
        self.count = 0

    def enter(self, run_id, keys, priority, parent, serial):
        if serial is not None:
            self.serials.setdefault(serial, []).append(run_id)
        known = {**self.waiting, **self.admitted}
        above = known[parent][0] if parent in known else ()
        self.waiting[run_id] = ((*above, -priority, self.count), ("runs", *keys), parent)
        self.count += 1
        self.settle()

    def leave(self, run_id):
        self.waiting.pop(run_id, None)
        self.admitted.pop(run_id, None)
        self.serials = {name: [each for each in line if each != run_id] for name, line in self.serials.items()}
        self.settle()

    def settle(self):
        while fitting := [run_id for run_id in self.waiting if self.fits(run_id)]:
            first = min(fitting, key=self.waiting.__getitem__)
            self.admitted[first] = self.waiting.pop(first)

    def fits(self, run_id):
        if run_id in self.later():
            return False
        _, keys, parent = self.waiting[run_id]
        counted = self.held() if parent is None else self.working()
        return all(counted[key] < self.limit(key) for key in keys)

    def later(self):
        """Runs whose turn has not come."""
        return {run_id for line in self.serials.values() for run_id in line[1:]}

    def limit(self, key):
        limit = self.limits.max_runs if key == "runs" else self.limits.by_key.get(key)
        return NEVER if limit is None else limit

    def held(self):
        return Counter(key for _, keys, _ in self.admitted.values() for key in keys)

    def working(self):
        parents = {parent for _, _, parent in (*self.waiting.values(), *self.admitted.values())}
        return Counter(key for run_id, (_, keys, _) in self.admitted.items() if run_id not in parents for key in keys)


LIMITS = st.builds(
    QueueLimits,
    st.dictionaries(st.sampled_from(KEYS), st.integers(1, 3)),
    st.none() | st.integers(1, 4),
)

SOME_KEYS = st.sets(st.sampled_from(KEYS))
SERIALS = st.sampled_from([None, None, "s", "t"])


class QueueMachine(RuleBasedStateMachine):
    """Runs come, have children, end, give up; limits change."""

    runs = Bundle("runs")

    @initialize(limits=LIMITS)
    def begin(self, limits):
        self.queue = Queue(limits, patience=NEVER)
        self.naive = NaiveQueue(limits)
        self.tickets = {}
        self.numbers = 0
        self.had_children = self.had_lower_limits = False

    def enter(self, keys, priority, parent, serial):
        run_id = f"r{self.numbers}"
        self.numbers += 1
        self.tickets[run_id] = self.queue.enter(run_id, keys, priority, parent, serial=serial)
        self.naive.enter(run_id, keys, priority, parent, serial)
        return run_id

    @rule(target=runs, keys=SOME_KEYS, priority=st.integers(-2, 2), serial=SERIALS)
    def comes(self, keys, priority, serial):
        return self.enter(sorted(keys), priority, None, serial)

    @rule(target=runs, parent=runs, keys=SOME_KEYS, priority=st.integers(-1, 1))
    def has_a_child(self, parent, keys, priority):
        self.had_children = True
        return self.enter(sorted(keys), priority, parent, None)

    @rule(run_id=consumes(runs))
    def ends_or_gives_up(self, run_id):
        for _ in range(2):
            self.tickets[run_id].leave()
        self.naive.leave(run_id)

    @rule(limits=LIMITS)
    def other_limits(self, limits):
        self.had_lower_limits = True
        self.queue.set_limits(limits)
        self.naive.limits = limits
        self.naive.settle()

    @invariant()
    def the_same_runs_are_admitted(self):
        admitted = {run_id for run_id, ticket in self.tickets.items() if ticket.admitted and not ticket.left}
        assert admitted == set(self.naive.admitted)
        assert (self.queue.running, self.queue.waiting) == (len(self.naive.admitted), len(self.naive.waiting))

    @invariant()
    def nobody_is_above_a_limit(self):
        if not (self.had_children or self.had_lower_limits):
            assert all(count <= self.naive.limit(key) for key, count in self.naive.held().items())

    @invariant()
    def where_somebody_waits_somebody_works(self):
        assert not self.naive.waiting or self.naive.working()

    @invariant()
    def positions_count_from_the_first(self):
        line = sorted(self.naive.waiting, key=self.naive.waiting.__getitem__)
        assert [self.queue.position(run_id) for run_id in line] == list(range(1, len(line) + 1))
        assert all(self.queue.position(run_id) is None for run_id in self.naive.admitted)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


# ---- the rules, one by one


def admitted(*tickets: Ticket) -> list[str]:
    return [ticket.run_id for ticket in tickets if ticket.admitted]


def test_a_run_that_its_framework_blocks_lets_others_pass():
    queue = Queue(QueueLimits({"framework:crewai": 1}))
    first, blocked = (queue.enter(name, ["framework:crewai"]) for name in ("first", "blocked"))
    other = queue.enter("other", ["framework:langchain"])
    assert admitted(first, blocked, other) == ["first", "other"]
    assert queue.position("blocked") == 1
    first.leave()
    assert blocked.admitted


def test_higher_priority_goes_first_then_who_came_first():
    queue = Queue(QueueLimits({}, 1))
    running = queue.enter("running", [])
    line = [queue.enter(f"p{priority}{name}", [], priority) for priority, name in [(0, "a"), (5, "a"), (0, "b")]]
    line += [queue.enter("p5b", [], 5), queue.enter("p-1", [], -1)]
    begun = []
    while len(begun) < len(line):
        running.leave()
        (running,) = [ticket for ticket in line if ticket.admitted and not ticket.left]
        begun.append(running.run_id)
    assert begun == ["p5a", "p5b", "p0a", "p0b", "p-1"]


def test_a_child_never_waits_for_what_its_parents_hold():
    queue = Queue(QueueLimits({"framework:python": 1, "agent:a": 1}, 1))
    keys = queue_keys("python", "a", "default")
    parent = queue.enter("parent", keys)
    child = queue.enter("child", keys, parent="parent")
    grandchild = queue.enter("grandchild", keys, parent="child")
    assert admitted(parent, child, grandchild) == ["parent", "child", "grandchild"]
    assert not queue.enter("stranger", ["framework:other"]).admitted


def test_children_of_one_parent_keep_to_the_limits_among_themselves():
    queue = Queue(QueueLimits({"framework:crewai": 2}, 1))
    queue.enter("parent", ["framework:python"])
    children = [queue.enter(f"c{number}", ["framework:crewai"], parent="parent") for number in range(4)]
    assert admitted(*children) == ["c0"], "max_runs counts those that work"
    children[0].leave()
    assert admitted(*children[1:]) == ["c1"]
    queue.set_limits(QueueLimits({"framework:crewai": 2}))
    assert admitted(*children[1:]) == ["c1", "c2"]


def test_parents_and_children_of_two_agents_can_not_lock_each_other_up():
    queue = Queue(QueueLimits({"agent:a": 1, "agent:b": 1}))
    a, b = queue.enter("a", ["agent:a"]), queue.enter("b", ["agent:b"])
    b_of_a = queue.enter("b of a", ["agent:b"], parent="a")
    assert not b_of_a.admitted, "b works for itself still"
    a_of_b = queue.enter("a of b", ["agent:a"], parent="b")
    assert admitted(a, b, b_of_a, a_of_b) == ["a", "b", "b of a", "a of b"]


def test_a_child_goes_before_those_that_came_after_its_parent():
    queue = Queue(QueueLimits({"framework:crewai": 1}))
    holder = queue.enter("holder", ["framework:crewai"])
    queue.enter("parent", ["framework:python"])
    later = queue.enter("later", ["framework:crewai"])
    child = queue.enter("child", ["framework:crewai"], parent="parent")
    assert (queue.position("child"), queue.position("later")) == (1, 2)
    holder.leave()
    assert admitted(child, later) == ["child"]


def test_a_child_that_is_resumed_before_its_parent_does_not_lock_it_up():
    queue = Queue(QueueLimits({}, 1))
    other = queue.enter("other", [])
    child = queue.enter("child", [], parent="parent")
    parent = queue.enter("parent", [], priority=1)
    other.leave()
    assert admitted(parent, child) == ["parent", "child"]


class Crossroads:
    """Two lines of runs that need one thing each, and never free both things at the same time."""

    def __init__(self, max_runs: int | None = None) -> None:
        self.queue = Queue(QueueLimits({"agent:a": 1, "framework:f": 1}, max_runs), patience=10)
        self.lines: dict[str, deque[Ticket]] = {"agent:a": deque(), "framework:f": deque()}
        self.come()

    def come(self) -> None:
        for key, line in self.lines.items():
            line.append(self.queue.enter(f"{key} {next(NUMBERS)}", [key]))

    def turn(self) -> None:
        """Let another run into each line, and the first one out."""
        for key, line in self.lines.items():
            line.append(self.queue.enter(f"{key} {next(NUMBERS)}", [key]))
            line.popleft().leave()

    def turns_until(self, ticket: Ticket) -> int:
        for turns in range(1000):
            if ticket.admitted:
                return turns
            self.turn()
        raise AssertionError("it waits for ever")


def test_a_run_that_needs_two_things_is_not_passed_for_ever():
    world = Crossroads()
    both = world.queue.enter("both", ["agent:a", "framework:f"])
    assert world.turns_until(both) == 11
    assert [ticket.admitted for line in world.lines.values() for ticket in line] == [False, False]


def test_who_comes_after_one_that_gave_up_is_as_patient_as_that_was():
    world = Crossroads()
    first, second = (world.queue.enter(name, ["agent:a", "framework:f"]) for name in ("first", "second"))
    for _ in range(10):
        world.turn()
    first.leave()
    assert world.turns_until(second) == 10


def test_those_that_came_before_do_not_try_its_patience():
    world = Crossroads()
    for _ in range(20):
        world.come()
    both = world.queue.enter("both", ["agent:a", "framework:f"])
    assert world.turns_until(both) == 20 + 11


def test_of_max_runs_nothing_is_kept_free():
    world = Crossroads(max_runs=3)
    both = world.queue.enter("both", ["agent:a", "framework:f"])
    for _ in range(10):
        world.turn()
    assert not both.admitted
    assert world.queue.enter("other", ["framework:g"]).admitted


def test_nothing_is_kept_free_for_a_run_whose_other_need_was_never_free():
    queue = Queue(QueueLimits({"agent:a": 1, "framework:f": 1}), patience=10)
    queue.enter("long", ["agent:a"])
    short = queue.enter("short 0", ["framework:f"])
    both = queue.enter("both", ["agent:a", "framework:f"])
    for number in range(1, 100):
        after = queue.enter(f"short {number}", ["framework:f"])
        short.leave()
        assert after.admitted
        assert not both.admitted
        short = after


def test_limits_come_from_the_configuration():
    data = {
        "queue": {"max_runs": 9, "max_queued": 8, "frameworks": {"crewai": 4}, "agents": {"expenses": 2}},
        "models": {"default": {"model": "m", "concurrency": 3}, "free": {"model": "m"}},
    }
    limits = QueueLimits.of(check(ProjectConfig, Source("agentforge.toml", data)))
    assert limits == QueueLimits({"framework:crewai": 4, "agent:expenses": 2, "model:default": 3}, 9, 8)
    assert set(limits.by_key) == set(queue_keys("crewai", "expenses", "default"))


@pytest.mark.parametrize(
    ("max_runs", "most_runs", "limit"), [(None, None, None), (9, None, 9), (None, 5, 5), (9, 5, 5), (3, 5, 3)]
)
def test_what_the_process_can_take_is_a_limit_too(max_runs, most_runs, limit):
    config = ProjectConfig.model_validate({"queue": {"max_runs": max_runs}})
    assert QueueLimits.of(config, most_runs).max_runs == limit


def test_the_one_too_many_is_refused_and_leaves_no_trace():
    queue = Queue(QueueLimits({}, 1, max_queued=1))
    first, waits = (queue.enter(name, [], refusable=True) for name in ("first", "waits"))
    with pytest.raises(QueueFull) as caught:
        queue.enter("one too many", [], refusable=True)
    assert caught.value.code == "AF722"
    assert (queue.running, queue.waiting, queue.position("one too many")) == (1, 1, None)
    assert not queue.enter("accepted before", []).admitted
    child = queue.enter("child", [], parent="first", refusable=True)
    second = queue.enter("second child", [], parent="first", refusable=True)
    assert admitted(child, second) == ["child"]
    for ticket in (child, second, first):
        ticket.leave()
    assert waits.admitted


def test_where_nothing_may_wait_what_can_begin_is_taken():
    queue = Queue(QueueLimits({}, 2, max_queued=0))
    assert queue.enter("a", [], refusable=True).admitted
    assert queue.enter("b", [], refusable=True).admitted
    with pytest.raises(QueueFull):
        queue.enter("c", [], refusable=True)


def test_runs_of_a_thread_go_as_they_came_and_take_no_place_before():
    queue = Queue(QueueLimits({}, 1))
    running = queue.enter("running", [])
    first = queue.enter("first", [], serial="t")
    second = queue.enter("second", [], priority=5, serial="t")
    other = queue.enter("other", [])
    running.leave()
    assert admitted(first, second, other) == ["first"]
    first.leave()
    assert admitted(second, other) == ["second"]
    second.leave()
    assert admitted(other) == ["other"]


def test_a_thread_goes_on_past_a_run_that_gave_up():
    queue = Queue()
    first, second, third = (queue.enter(name, [], serial="t") for name in ("first", "second", "third"))
    second.leave()
    assert admitted(first, third) == ["first"]
    first.leave()
    assert admitted(third) == ["third"]
    third.leave()
    assert queue._serials == {}
    assert queue.enter("fourth", [], serial="t").admitted


def test_runs_that_wait_for_their_turn_are_runs_that_wait():
    queue = Queue(QueueLimits(max_queued=1))
    for name in ("first", "second"):
        queue.enter(name, [], serial="t", refusable=True)
    with pytest.raises(QueueFull):
        queue.enter("third", [], serial="t", refusable=True)
    assert (queue.running, queue.waiting) == (1, 1)


def test_a_run_is_in_the_line_once_at_a_time():
    queue = Queue()
    ticket = queue.enter("r", [])
    with pytest.raises(ValueError):
        queue.enter("r", [])
    ticket.leave()
    assert queue.enter("r", []).admitted, "a run that waited for a human comes again"


def test_who_left_the_middle_of_the_line_is_forgotten():
    queue = Queue(QueueLimits({}, 1))
    queue.enter("first", [])
    queue.enter("second", [])
    for number in range(10_000):
        queue.enter(f"r{number}", []).leave()
    (group,) = queue._groups.values()
    assert len(group._heap) < 1000


# ---- waiting


async def test_ten_thousand_runs_pass_one_after_the_other_in_their_order():
    queue = Queue(QueueLimits({}, 7))
    order: list[int] = []
    most = 0

    async def run(number: int) -> None:
        nonlocal most
        async with queue.admitted(f"r{number}", queue_keys("f", "a", "m"), priority=number % 3):
            order.append(number)
            most = max(most, queue.running)
            await asyncio.sleep(0)

    await asyncio.gather(*(run(number) for number in range(10_000)))
    assert most == 7
    waited = order[7:]
    assert waited == sorted(waited, key=lambda number: (-(number % 3), number))
    assert (queue.running, queue.waiting) == (0, 0)


async def waiting_run(queue: Queue, run_id: str) -> "asyncio.Task[None]":
    async def run() -> None:
        async with queue.admitted(run_id, []):
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    return task


async def test_a_cancelled_waiter_frees_nothing_it_does_not_hold():
    queue = Queue(QueueLimits({}, 1))
    first = queue.enter("first", [])
    gives_up, stays = [await waiting_run(queue, name) for name in ("gives up", "stays")]
    gives_up.cancel()
    await asyncio.wait([gives_up])
    assert gives_up.cancelled()
    assert (queue.running, queue.waiting) == (1, 1)
    first.leave()
    assert (queue.running, queue.waiting) == (1, 0)
    stays.cancel()
    await asyncio.wait([stays])
    assert queue.running == 0


async def test_a_waiter_that_is_cancelled_just_as_it_is_admitted_passes_it_on():
    queue = Queue(QueueLimits({}, 1))
    first = queue.enter("first", [])
    gives_up, next_one = [await waiting_run(queue, name) for name in ("gives up", "next")]
    first.leave()
    gives_up.cancel()
    await asyncio.wait([gives_up])
    assert (queue.running, queue.waiting) == (1, 0)
    assert queue.position("next") is None
    next_one.cancel()
    await asyncio.wait([next_one])
    assert queue.running == 0


async def test_a_failing_run_makes_room():
    queue = Queue(QueueLimits({}, 1))
    with pytest.raises(ZeroDivisionError):
        async with queue.admitted("r", []):
            _ = 1 / 0
    assert queue.running == 0


async def test_taking_a_ticket_back_ends_the_wait():
    queue = Queue(QueueLimits({}, 1))
    queue.enter("first", [])
    ticket = queue.enter("second", [])
    waiting = asyncio.ensure_future(ticket.wait())
    await asyncio.sleep(0)
    ticket.leave()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (queue.running, queue.waiting) == (1, 0)


async def test_other_limits_take_effect_at_once():
    queue = Queue(QueueLimits({}, 1))
    tickets = [queue.enter(f"r{number}", ["agent:a"]) for number in range(5)]
    queue.set_limits(dataclasses.replace(QueueLimits(), by_key={"agent:a": 3}))
    assert admitted(*tickets) == ["r0", "r1", "r2"]
    queue.set_limits(QueueLimits({}, 1))
    assert queue.running == 3
    for ticket in tickets[:3]:
        ticket.leave()
    assert admitted(*tickets) == ["r0", "r1", "r2", "r3"]
