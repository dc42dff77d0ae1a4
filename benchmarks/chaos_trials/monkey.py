"""Killing: waits for the moment of a plan, kills with SIGKILL, has the runs brought back, lets them come to work."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

import psutil

from agentforge.errors.host import HostGone
from chaos_trials.plans import Plan, draw
from chaos_trials.records import EFFECT_EVENTS, Kill, KillKind, RunRecord, time_of
from chaos_trials.traffic import Traffic
from chaos_trials.world import World, until

__all__ = ["Monkey"]

_POLL_S = 0.001
_AIM_S = 10.0
"""How long a sign is waited for; the run may be over, or somewhere else than it seemed."""
_SETTLE_S = 90.0
_LOOK_S = 0.01
_RECOVERY_S = 2.0


class _Missed(Exception):
    """The moment did not come: the trial is drawn anew."""


class Monkey:
    """Carries out trials, one after the other."""

    def __init__(self, world: World, traffic: Traffic, acts: Sequence[Sequence[str]], rng: random.Random) -> None:
        """`acts`: on which frameworks the runs are, trial by trial."""
        self.kills: list[Kill] = []
        self.missed = 0
        self._world = world
        self._traffic = traffic
        self._acts = acts
        self._rng = rng

    async def trial(self) -> Kill:
        """Kill something once, and see the runs that it hit at work again (or over)."""
        while True:
            cast = self._acts[len(self.kills)]
            plan = draw(self._rng, cast)
            if plan.moment != "recovery":
                await self._settle()
                self._traffic.go_on(cast)
            self._traffic.check_on()
            try:
                kill = await self._carry_out(plan)
            except (_Missed, HostGone, TimeoutError):
                self.missed += 1
                continue
            self.kills.append(kill)
            self._traffic.hold()
            if self._world.host_pid == 0:
                await self._world.recover(plan.way, plan.delay_ms)
            return kill

    # ---- aiming

    async def _carry_out(self, plan: Plan) -> Kill:
        if plan.moment == "recovery":
            return await self._kill_in_recovery(plan)
        async with asyncio.timeout(_SETTLE_S):
            target = await self._traffic.next_run(plan.framework)
        async with _Watch.of(self._world, target) as watch, asyncio.timeout(_AIM_S):
            if plan.moment == "delay":
                usual = self._traffic.usual_length_s(plan.framework)
                await asyncio.sleep(max(0.0, plan.share * usual - (time.time() - target.submitted_at)))
            elif plan.moment == "commit":
                return await self._kill_after_commit(plan, target, watch)
            else:
                await until(self._sign(plan, target.label), _POLL_S)
            await asyncio.sleep(plan.lag_s)
            return await self._kill(plan, target, watch.worker_pid)

    async def _kill_in_recovery(self, plan: Plan) -> Kill:
        await asyncio.sleep(plan.share * _RECOVERY_S)
        live = [each for each in self._traffic.live.values() if each.run_id]
        if not live:
            raise _Missed
        target = self._rng.choice(live)
        workers = await self._world.workers()
        pids = [each["pid"] for each in workers if each["kind"] == "agent" and _serves(each, target.framework)]
        return await self._kill(plan, target, self._rng.choice(pids) if pids else None)

    async def _kill_after_commit(self, plan: Plan, target: RunRecord, watch: "_Watch") -> Kill:
        """Kill when an effect is committed and the worker does not have it: it is stopped, or the host dawdles."""
        await until(self._sign(plan, target.label, before_commit=True), _POLL_S)
        frozen, since = None, time.time()
        try:
            if not self._world.host_delay_ms:
                frozen = watch.worker_pid
                if frozen is None:
                    raise _Missed
                os.kill(frozen, signal.SIGSTOP)
            await watch.effect_after(since)
            if frozen is not None:
                await asyncio.sleep(plan.lag_s)
            return await self._kill(plan, target, watch.worker_pid, frozen, since)
        finally:
            if frozen is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(frozen, signal.SIGCONT)

    def _sign(self, plan: Plan, label: str, *, before_commit: bool = False) -> Callable[[], bool]:
        requests, log = self._world.requests, self._world.log
        if plan.effect == "tool":
            return lambda: bool(log.of(label, plan.step))
        if plan.moment == "request" or before_commit:
            return lambda: bool(requests.of(label, plan.step))
        return lambda: requests.answered(label, plan.step)

    # ---- killing

    async def _kill(
        self,
        plan: Plan,
        target: RunRecord,
        worker_pid: int | None,
        frozen: int | None = None,
        frozen_at: float | None = None,
    ) -> Kill:
        world = self._world
        victims: dict[KillKind, list[int | None]] = {
            "worker": [worker_pid],
            "tools": [self._tool_worker(target)],
            "host": [world.host_pid],
            "both": self._rng.sample([world.host_pid, worker_pid], 2),
        }
        pids = victims[plan.kind]
        if not all(pid and (pid == world.host_pid or _is_worker(pid, world.host_pid)) for pid in pids):
            raise _Missed
        at = time.time()
        for pid in pids:
            assert pid
            with contextlib.suppress(ProcessLookupError):  # a worker may follow its host before we come to it
                os.kill(pid, signal.SIGKILL)
        delay_ms = world.host_delay_ms
        if world.host_pid in pids:
            world.killed()
        return Kill(
            number=len(self.kills) + 1,
            kind=plan.kind,
            moment=plan.moment,
            framework=plan.framework,
            target=target.label,
            at=at,
            pids=tuple(pid for pid in pids if pid),
            frozen_pid=frozen,
            frozen_at=frozen_at if frozen is not None else None,
            host_delay_ms=delay_ms,
        )

    def _tool_worker(self, target: RunRecord) -> int | None:
        """Return the process that ran the newest tool call of the target's framework, as far as is known."""
        lines = [
            line
            for record in self._traffic.records[-50:]
            if record.framework == target.framework
            for line in self._world.log.of(record.label)
        ]
        newest = max(lines, key=lambda line: line.at, default=None)
        return newest.pid if newest is not None else None

    # ---- coming back

    async def _settle(self) -> None:
        """Wait until each run that the last kill left unfinished has shown a new sign of life, or is over."""
        if not self.kills:
            return
        since = self.kills[-1].at
        waiting = [each for each in self._traffic.live.values() if each.submitted_at < since]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await until(lambda: not any(self._is_silent(each, since) for each in waiting), _LOOK_S)

    def _is_silent(self, record: RunRecord, since: float) -> bool:
        if record.label not in self._traffic.live:
            return False
        signs = [at for _, at in self._world.requests.of(record.label)]
        signs += [line.at for line in self._world.log.of(record.label)]
        return not any(at > since for at in signs)


class _Watch:
    """Follows one run's events from outside."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, world: World, record: RunRecord) -> Any:
        """Follow a run for as long as the block runs."""
        watch = cls()
        task = asyncio.create_task(watch._follow(world, record.run_id))
        try:
            yield watch
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _follow(self, world: World, run_id: str) -> None:
        with contextlib.suppress(HostGone):
            async with aclosing(world.connection.stream("GET", f"/v1/runs/{run_id}/events")) as items:
                async for kind, event in items:
                    if kind != "result":
                        self.events.append(event)
                        self._changed.set()

    @property
    def worker_pid(self) -> int | None:
        """The worker that the run is in."""
        started = [event["data"]["pid"] for event in self.events if event["kind"] == "attempt.started"]
        return int(started[-1]) if started else None

    async def effect_after(self, since: float) -> None:
        """Wait for an effect that was made after `since`."""
        while not any(event["kind"] in EFFECT_EVENTS and time_of(event) + 0.001 > since for event in self.events):
            self._changed.clear()
            await self._changed.wait()


def _serves(worker: dict[str, Any], framework: str) -> bool:
    return str(worker["environment"]).startswith(f"{framework}-")


def _is_worker(pid: int, host_pid: int) -> bool:
    """Whether a process is a child of the host: a process id that has gone may be somebody else's by now."""
    try:
        return bool(psutil.Process(pid).ppid() == host_pid)
    except psutil.Error:
        return False
