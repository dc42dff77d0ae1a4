"""The runs: a few at once, each followed to its end whatever happens to its host, and answered when it waits."""

import asyncio
import itertools
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from agentforge.errors import AgentForgeError
from chaos_trials.records import Answer, RunRecord
from chaos_trials.story import AGENT, Story
from chaos_trials.world import World

__all__ = ["Traffic"]

_ENDED = ("succeeded", "failed", "cancelled")
_LOOK_S = 5
_LENGTHS_KEPT = 15


class Traffic:
    """Keeps `slots` runs going, on the frameworks of the current cast."""

    def __init__(self, world: World, slots: int, rng: random.Random, patience_s: float) -> None:
        """`patience_s`: how long a run may take until it counts as lost."""
        self.records: list[RunRecord] = []
        self.live: dict[str, RunRecord] = {}
        self._world = world
        self._rng = rng
        self._patience_s = patience_s
        self._numbers = itertools.count(1)
        self._cast: Sequence[str] = ()
        self._number_of_slots = slots
        self._lengths: dict[str, list[float]] = defaultdict(list)
        self._started = asyncio.Condition()
        self._enough = False
        self._lost = 0
        self._open = asyncio.Event()
        self._slots: list[asyncio.Task[None]] = []

    async def warm_up(self, frameworks: Sequence[str]) -> None:
        """Run a few stories undisturbed, to know how long they take."""

        async def twice(slot: int, framework: str) -> None:
            for _ in range(2):
                record = self._new(framework)
                await self._see_through(record, slot)
                if record.result.get("status") == "succeeded":
                    self._learn(record)

        await asyncio.gather(*(twice(slot, framework) for slot, framework in enumerate(frameworks)))

    def start(self) -> None:
        """Keep the slots busy from now on, as long as `go_on` lets them."""
        self._slots = [asyncio.create_task(self._keep(slot)) for slot in range(self._number_of_slots)]

    def hold(self) -> None:
        """Start no more runs for now: the machine is busy enough with those that come back."""
        self._open.clear()

    def go_on(self, cast: Sequence[str]) -> None:
        """Start runs again, on these frameworks."""
        self._cast = cast
        self._open.set()

    async def finish(self) -> None:
        """Start no more runs and wait for those under way."""
        self._enough = True
        self._open.set()
        await asyncio.gather(*self._slots)

    async def next_run(self, framework: str) -> RunRecord:
        """Return the next run of a framework once the host has taken it."""
        known = len(self.records)

        def found() -> RunRecord | None:
            fresh = (record for record in self.records[known:] if record.framework == framework)
            return next((record for record in fresh if record.run_id and record.label in self.live), None)

        async with self._started:
            await self._started.wait_for(found)
            record = found()
            assert record is not None
            return record

    def usual_length_s(self, framework: str) -> float:
        """Return how long an undisturbed run takes."""
        return statistics.median(self._lengths.get(framework) or [1.0])

    def check_on(self) -> None:
        """Raise what a slot has failed with, if one has."""
        for task in self._slots:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    # ---- one slot

    async def _keep(self, slot: int) -> None:
        await self._open.wait()
        while not self._enough:
            await self._see_through(self._new(self._cast[slot % len(self._cast)]), slot)
            await self._open.wait()

    def _new(self, framework: str) -> RunRecord:
        record = RunRecord(Story.make(next(self._numbers), self._rng), framework, time.time())
        self.records.append(record)
        return record

    def _learn(self, record: RunRecord) -> None:
        assert record.ended_at is not None
        self._lengths[record.framework] = [
            *self._lengths[record.framework][1 - _LENGTHS_KEPT :], record.ended_at - record.submitted_at
        ]  # fmt: skip

    async def _see_through(self, record: RunRecord, slot: int) -> None:
        self.live[record.label] = record
        name = f"chaos-{slot}-{self._lost}"  # a run that was given up may still ask: it keeps its script
        record.model = self._world.model.script(name, *record.story.script(), per="conversation")
        try:
            async with asyncio.timeout(self._patience_s):
                await self._submit(record)
                record.result = await self._follow(record)
            record.ended_at = time.time()
        except TimeoutError:
            record.trouble.append(f"not over after {self._patience_s:g} s")
            self._lost += 1
        except AgentForgeError as error:
            record.trouble.append(f"the host refused: {error.code} {error.message}")
        finally:
            del self.live[record.label]

    async def _submit(self, record: RunRecord) -> None:
        body = {
            "agent": AGENT,
            "base_dir": str(self._world.root),
            "input": record.label,
            "on": record.framework,
            "model": f"openai:{record.model}",
            "variables": self._world.variables,
        }
        # Sent again to the next host if this one dies: the key makes it one run all the same.
        run = await self._world.post("/v1/runs", body, {"Idempotency-Key": record.label})
        record.run_id = run["run_id"]
        async with self._started:
            self._started.notify_all()

    async def _follow(self, record: RunRecord) -> dict[str, Any]:
        while True:
            result: dict[str, Any] = await self._world.get(f"/v1/runs/{record.run_id}", wait_s=_LOOK_S)
            if result["status"] in _ENDED:
                return result
            if result["status"] == "waiting":
                await self._answer(record, result)

    # ---- the human

    async def _answer(self, record: RunRecord, result: dict[str, Any]) -> None:
        """Answer what a run waits for as a careful human would: look whether the tool has done its work."""
        interrupts = result.get("interrupts") or []
        for interrupt in interrupts:
            answer = self._decide(record, interrupt)
            body = {**answer, "interrupt": interrupt["id"], "variables": self._world.variables}
            try:
                await self._world.post(f"/v1/runs/{record.run_id}/answer", body)
            except AgentForgeError as error:  # the host that died may have taken it already
                record.refused.append(error.code)
        if not interrupts:
            await asyncio.sleep(0.05)

    def _decide(self, record: RunRecord, interrupt: dict[str, Any]) -> dict[str, Any]:
        arguments = interrupt.get("data", {}).get("arguments") or {}
        step = arguments.get("step")
        if interrupt["kind"] != "tool" or arguments.get("run") != record.label or not isinstance(step, int):
            record.trouble.append(f"a human was asked what the harness can't know: {interrupt}")
            return {"decision": "fail"}
        done = bool(self._world.log.of(record.label, step))
        record.answers.append(Answer(step, "result" if done else "retry"))
        return {"decision": "result", "value": record.story.value(step)} if done else {"decision": "retry"}
