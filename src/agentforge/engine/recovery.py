"""Runs that go on: those that an earlier host left, those that were answered, and those that somebody resumes."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agentforge.engine.interrupts import Interrupt, chosen, fitting, open_interrupts
from agentforge.engine.record import Outcome, Record, read_record, tool_request
from agentforge.errors import AgentForgeError
from agentforge.errors.config import MissingVariableError
from agentforge.errors.runs import AnsweredFail, HostStopped, InterruptExpired, NothingToResume
from agentforge.errors.tools import SecretMissing
from agentforge.gateway import Secret
from agentforge.store import (
    FINISHED,
    Attempt,
    Effect,
    EffectKind,
    Event,
    JsonObject,
    Run,
    RunChanges,
    RunStatus,
    Store,
)

if TYPE_CHECKING:
    from agentforge.engine.engine import Engine

__all__ = ["Recovery"]

_log = logging.getLogger(__name__)
_RESUMABLE = ("failed", "cancelled", "waiting")
_SECRETS_KEPT = 10_000


class Recovery:
    """Has runs of the engine's project go on. Lives on the engine's loop."""

    def __init__(self, engine: "Engine", clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._left: dict[str, Run] = {}
        """Runs of earlier hosts that are not going on yet, oldest first."""
        self._found: dict[str, Run] = {}
        """All that was left when this host began."""
        self.changing = asyncio.Lock()
        """Held by whoever starts or changes a run that is not executed: a client, a time-out, the host itself."""
        self._task: asyncio.Task[None] | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._expiring: set[asyncio.Task[None]] = set()
        self._variables: Mapping[str, str] = {}
        self._lacking: dict[str, list[str]] = {}
        """Names of the secrets that runs lack which were left."""
        self._secrets: OrderedDict[str, Mapping[str, Secret]] = OrderedDict()
        """Of runs that wait for an answer: whoever gives it need not have them."""

    @property
    def _store(self) -> Store:
        return self._engine.store

    @property
    def expected(self) -> int:
        """Runs that wait for an answer until some time."""
        return len(self._timers)

    @property
    def lacking_secrets(self) -> list[str]:
        """Names of secrets without which some runs can't go on."""
        return sorted({name for run_id, names in self._lacking.items() if run_id in self._left for name in names})

    def keep_secrets(self, run_id: str, secrets: Mapping[str, Secret]) -> None:
        """Have a run that waits go on with the secrets of who started it; they are kept in memory only."""
        if secrets:
            self._secrets[run_id] = secrets
            if len(self._secrets) > _SECRETS_KEPT:
                self._secrets.popitem(last=False)

    # ---- what earlier hosts left

    async def begin(self) -> None:
        """Claim what earlier hosts left, and go on with it in the background."""
        project, epoch = self._engine.lease.project, self._engine.lease.epoch
        claimed = await self._store.claim_runs(project, epoch)
        for run in claimed:
            if run.options.get("offline"):  # a copy that was played from its journal: it must ask for nothing
                await self._store.delete_run(run.run_id, epoch)
            elif run.status == "waiting":
                self.expect(run)
            else:
                self._left[run.run_id] = self._found[run.run_id] = run
        if self._left:
            _log.info("going on with %d runs that an earlier host left", len(self._left))
            self._task = asyncio.create_task(self._go_on_with_all())

    async def close(self) -> None:
        """Go on with nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = [task for task in (self._task, *self._expiring) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def learn(self, variables: Mapping[str, str]) -> None:
        """Try what is left with the variables of a client; they are kept in memory only."""
        if variables and variables != self._variables:
            self._variables = variables
            if self._left and (self._task is None or self._task.done()) and not self._engine.closing:
                self._task = asyncio.create_task(self._go_on_with_all())

    async def resume_all(self, variables: Mapping[str, str]) -> list[Run]:
        """Go on with everything that is left, with these variables, and return all that was and what goes on."""
        if self._task is not None:
            await asyncio.wait([self._task])
        self._variables = variables or self._variables
        await self._go_on_with_all()
        unfinished = await self._store.unfinished_runs(self._engine.lease.project)
        going_on = {run.run_id: run for run in unfinished if run.status != "waiting" or run.run_id in self._found}
        ended = [await self._engine.get(run_id) for run_id in self._found if run_id not in going_on]
        return [*ended, *going_on.values()]

    async def _go_on_with_all(self) -> None:
        """Start what is left, oldest first: runs of one thread go on in their order."""
        async with self.changing:
            for run in list(self._left.values()):
                if not await self._goes_on(run):
                    return

    async def _goes_on(self, run: Run) -> bool:
        """Start a run that was left; whether further ones may be."""
        try:
            await self._go_on(run, self._variables)
        except MissingVariableError as error:
            _log.info("run %s needs the variables of who started it: %s", run.run_id, error.message)
            return True
        except HostStopped:
            return False
        except AgentForgeError as error:
            await self._end(run, "failed", error)
        except Exception:
            _log.exception("run %s can't go on", run.run_id)
            return True
        self._left.pop(run.run_id, None)
        return True

    async def _go_on(self, run: Run, variables: Mapping[str, str]) -> None:
        """Start the next attempt of a run."""
        if self._engine.closing:
            raise HostStopped("the host is stopping")
        if run.unreadable:
            run = await self._store.get_run(run.run_id)  # says what of it is lost
        try:
            prepared = await self._engine.preparing.recorded(run, self._with_secrets(run, variables))
        except MissingVariableError as error:
            self._left[run.run_id] = run  # goes on with the first client that has them
            self._lacking[run.run_id] = list(error.details.get("variables", ()))
            raise
        self._lacking.pop(run.run_id, None)
        self._secrets.pop(run.run_id, None)
        attempts = await self._store.list_attempts(run.run_id)
        await self._end_attempts(run, attempts)
        record = await read_record(self._store, run.run_id)
        seq = await self._store.last_seq(run.run_id)
        self._engine.forget_result(run.run_id)
        number = attempts[-1].number if attempts else 0
        self._engine.start(run, prepared, record if seq else None, seq=seq, attempt=number)

    def _with_secrets(self, run: Run, variables: Mapping[str, str]) -> Mapping[str, str]:
        kept = self._secrets.get(run.run_id, {})
        return {**variables, **{name: secret.reveal() for name, secret in kept.items()}} if kept else variables

    async def _end_attempts(self, run: Run, attempts: list[Attempt]) -> None:
        """Say of attempts that nobody has said the end of that they were lost."""
        now, epoch = self._clock(), self._engine.lease.epoch
        for attempt in attempts:
            if attempt.status == "running":
                await self._store.finish_attempt(run.run_id, attempt.number, epoch, status="lost", finished_at=now)

    # ---- resuming

    async def resume(self, run_id: str, variables: Mapping[str, str]) -> Run:
        """Go on with one run from its last effect."""
        async with self.changing:
            run = await self._engine.get(run_id)
            self._variables = variables or self._variables
            if self._engine.is_active(run_id):
                raise NothingToResume(f"the run `{run_id}` is {run.status} just now")
            waits = [each for each in open_interrupts(run.options) if each.answers]
            if run.status == "waiting" and waits:
                raise NothingToResume(f"the run `{run_id}` waits for an answer: {waits[0].message}")
            if run.status == "succeeded":
                raise NothingToResume(f"the run `{run_id}` has succeeded")
            if run.status in _RESUMABLE:
                run = await self._reopen(run)
            await self._go_on(run, self._variables)
            self._left.pop(run_id, None)
            return await self._engine.get(run_id)

    async def _reopen(self, run: Run) -> Run:
        """Have an ended or waiting run count as unfinished again."""
        self._forget_timer(run.run_id)
        options = {**run.options, "interrupts": []}
        changes: RunChanges = {
            "status": "queued", "options": options, "error": None, "finished_at": None, "output": None,
        }  # fmt: skip
        claimed = await self._store.claim_run(run.run_id, self._engine.lease.epoch)
        await self._store.update_run(run.run_id, self._engine.lease.epoch, **changes)
        return msgspec.structs.replace(claimed, **changes)

    async def cancel(self, run_id: str) -> None:
        """End a run that is not executed just now, unless it has ended."""
        async with self.changing:
            run = await self._engine.get(run_id)
            if run.status not in FINISHED and not self._engine.is_active(run_id):
                self.forget(run_id)
                await self._end(run, "cancelled", None)

    def forget(self, run_id: str) -> None:
        """Go on with a run only if somebody asks for it."""
        self._forget_timer(run_id)
        self._left.pop(run_id, None)

    async def _end(
        self, run: Run, status: RunStatus, error: AgentForgeError | None, earlier: Sequence[Event] = ()
    ) -> None:
        now = self._clock()
        run = await self._store.claim_run(run.run_id, self._engine.lease.epoch)
        changes: RunChanges = {"status": status, "finished_at": now, "options": {**run.options, "interrupts": []}}
        data: JsonObject = {"status": status, "usage": run.usage, "metrics": run.metrics}
        if error is not None:
            changes["error"] = data["error"] = error.info().to_dict()
        seq = earlier[-1].seq if earlier else await self._store.last_seq(run.run_id)
        attempts = await self._store.list_attempts(run.run_id)
        await self._end_attempts(run, attempts)
        last = Event(run.run_id, seq + 1, len(attempts), "run.finished", now, data)
        await self._store.finish_run(run.run_id, self._engine.lease.epoch, changes, [*earlier, last])
        self._engine.forget_result(run.run_id)
        self._secrets.pop(run.run_id, None)

    # ---- answers

    async def answer(
        self, run_id: str, decision: str, value: Any, interrupt: str | None, variables: Mapping[str, str]
    ) -> Run:
        """Record an answer; after the last one the run goes on."""
        async with self.changing:
            run = await self._engine.get(run_id)
            waiting = open_interrupts(run.options) if run.status == "waiting" else []
            chosen_one = chosen(waiting, interrupt)
            value = await fitting(chosen_one, decision, value)
            self._variables = variables or self._variables
            if decision != "fail":
                await self._require_secrets(run)
            await self._record_answer(run, chosen_one, decision, value)
            return await self._engine.get(run_id)

    async def _require_secrets(self, run: Run) -> None:
        """Raise SecretMissing before an answer is recorded, so that it can be given again along with them."""
        try:
            await self._engine.preparing.recorded(run, self._with_secrets(run, self._variables))
        except SecretMissing:
            raise
        except AgentForgeError:
            return  # told to who asks for the run

    async def _record_answer(self, run: Run, answered: Interrupt, decision: str, value: Any) -> None:
        epoch = self._engine.lease.epoch
        run = await self._store.claim_run(run.run_id, epoch)
        record = await read_record(self._store, run.run_id)
        effect = self._effect(run, record, answered, decision, value)
        event = await self._answered(run, answered, decision, value, effect)
        self._forget_timer(run.run_id)
        if decision == "fail":
            await self._end(run, "failed", AnsweredFail(f"a human ended the run: {answered.message}"), [event])
            return
        rest = [each.to_json() for each in open_interrupts(run.options) if each.id != answered.id]
        changes: RunChanges = {
            "status": "waiting" if rest else "queued",
            "options": {**run.options, "interrupts": rest},
        }
        if effect is not None:
            kept = self._store.append_effect(effect, epoch, [event])
            await asyncio.gather(kept, self._store.update_run(run.run_id, epoch, **changes))  # one commit
        else:
            left = answered.data["left"] if decision == "continue" else []
            await self._store.void_effects(run.run_id, epoch, -1, changes, [event], only=left)
        run = msgspec.structs.replace(run, **changes)
        if rest:
            self.expect(run)
        else:
            await self._go_on(run, self._variables)

    async def _answered(self, run: Run, answered: Interrupt, decision: str, value: Any, effect: Effect | None) -> Event:
        data: JsonObject = {
            "interrupt": answered.id,
            "kind": answered.kind,
            "decision": decision,
            "value": value,
            "request_hash": answered.request_hash,
            "occurrence": answered.occurrence,
        }
        if effect is not None:
            data["effect"] = effect.position
        attempts = await self._store.list_attempts(run.run_id)
        seq = await self._store.last_seq(run.run_id) + 1
        return Event(run.run_id, seq, len(attempts), "interrupt.answered", self._clock(), data)

    def _effect(self, run: Run, record: Record, answered: Interrupt, decision: str, value: Any) -> Effect | None:
        """Return the effect that an answer is, if it is one."""
        kind: EffectKind
        if answered.kind in ("question", "approval"):
            kind = "answer"
            request = msgspec.json.encode({"kind": answered.kind, "message": answered.message, **answered.data})
            response = msgspec.json.encode({"decision": decision, "value": value})
        elif decision == "result":
            kind = "tool"
            request = tool_request(answered.data["name"], answered.data["arguments"], False)
            response = msgspec.json.encode(Outcome(value))
        else:
            return None
        return Effect(
            run_id=run.run_id,
            position=record.positions,
            attempt=max(1, run.metrics.get("attempts", 1)),
            kind=kind,
            request_hash=answered.request_hash,
            occurrence=answered.occurrence,
            request=request,
            response=response,
            status=200,
            started_at=answered.raised_at,
            duration_ms=max(self._clock() - answered.raised_at, 0.0) * 1000,
        )

    # ---- time-outs

    def expect(self, run: Run) -> None:
        """Take note of a waiting run whose answer has a time-out."""
        limits = [each for each in open_interrupts(run.options) if each.expires_at is not None]
        if run.status != "waiting" or not limits or self._engine.closing:
            return
        first = min(limits, key=lambda each: each.expires_at or 0.0)
        delay = max((first.expires_at or 0.0) - self._clock(), 0.0)
        self._forget_timer(run.run_id)
        loop = asyncio.get_running_loop()
        self._timers[run.run_id] = loop.call_later(delay, self._expire_soon, run, first)

    def _expire_soon(self, run: Run, interrupt: Interrupt) -> None:
        self._timers.pop(run.run_id, None)
        task = asyncio.ensure_future(self._expire(run, interrupt))
        self._expiring.add(task)
        task.add_done_callback(self._expiring.discard)

    async def _expire(self, run: Run, interrupt: Interrupt) -> None:
        try:
            async with self.changing:
                run = await self._engine.get(run.run_id)
                if interrupt.id not in [each.id for each in open_interrupts(run.options)]:
                    return  # it was answered just now
                if interrupt.has_default:
                    await self._record_answer(run, interrupt, "answer", interrupt.default)
                else:
                    await self._end(run, "failed", InterruptExpired(f"nobody answered in time: {interrupt.message}"))
        except MissingVariableError:
            self._left[run.run_id] = await self._engine.get(run.run_id)
        except AgentForgeError as error:
            _log.warning("the question of run %s can't be closed: %s", run.run_id, error)

    def _forget_timer(self, run_id: str) -> None:
        timer = self._timers.pop(run_id, None)
        if timer is not None:
            timer.cancel()
