"""Runs made of runs: rolled back to a checkpoint, forked from one, executed again from the journal alone."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agentforge.engine.execution import Prepared
from agentforge.engine.history import with_response
from agentforge.engine.interrupts import Interrupt
from agentforge.engine.messages import conversation
from agentforge.engine.preparing import Submission
from agentforge.engine.record import Outcome, read_record, valid_events
from agentforge.errors.runs import CheckpointUnknown, ReplayDiverged, RunUnderWay
from agentforge.store import AgentVersion, Effect, Event, JsonObject, Run, RunChanges, Store

if TYPE_CHECKING:
    from agentforge.engine.engine import Engine

__all__ = ["Lineage"]

_NOT_INHERITED = ("interrupts", "warnings", "thread_seq", "parent", "offline")


class Lineage:
    """Works on the journals of the engine's runs."""

    def __init__(self, engine: "Engine", clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    @property
    def _store(self) -> Store:
        return self._engine.store

    # ---- rollback

    async def rollback(self, run_id: str, at: int) -> Run:
        """Put a run back to a checkpoint: later effects are void; `resume` goes on from there.

        Raises RunUnderWay, CheckpointUnknown.
        """
        async with self._engine.recovery.changing:
            return await self._rollback(await self._idle(run_id), at)

    async def _rollback(self, run: Run, at: int) -> Run:
        _, later = await self._valid_effects(run, at)
        events = valid_events(await self._store.list_events(run.run_id, limit=None))
        until = _until(events, at)
        await self._store.claim_run(run.run_id, self._engine.lease.epoch)
        attempts = await self._store.list_attempts(run.run_id)
        seq = await self._store.last_seq(run.run_id)
        now = self._clock()
        waits = Interrupt("rollback", f"rolled back to effect {at}").numbered(1, now)
        data: JsonObject = {"effect": at, "until": until, "voided": len(later)}
        event = Event(run.run_id, seq + 1, len(attempts), "checkpoint.restored", now, data)
        changes: RunChanges = {
            "status": "waiting",
            "options": {**run.options, "interrupts": [waits.to_json()]},
            "error": None,
            "output": None,
            "finished_at": None,
        }
        epoch = self._engine.lease.epoch
        await asyncio.gather(  # one commit
            self._store.void_effects(run.run_id, epoch, at, changes, [event]),
            self._store.remove_messages(run.run_id, epoch),  # the end that said them is taken back
        )
        self._engine.recovery.forget(run.run_id)
        self._engine.forget_result(run.run_id)
        return await self._engine.get(run.run_id)

    # ---- forks

    async def fork(
        self,
        run_id: str,
        at: int | None = None,
        edit: Any = None,
        input: Any = None,
        on: str | None = None,
        variables: Mapping[str, str] | None = None,
        *,
        edits: bool = False,
    ) -> Run:
        """Start a new run from a checkpoint of another, which stays as it is.

        `edits`: the result of effect `at` is `edit`. `input` says something else there than the run did; with it, or
        on another framework (`on`), the fork goes on from the conversation in neutral messages, else by replay.
        """
        run = await self._engine.get(run_id)
        kept, _ = await self._valid_effects(run, at)
        if edits and not kept:
            raise CheckpointUnknown("there is no effect to edit: name one with `at`")
        at = kept[-1].position if kept else -1
        edited = _edited(kept[-1], edit) if edits else None
        if edited is not None:
            kept = [*kept[:-1], edited]
        if input is not None or on is not None:
            return await self._fork_conversation(run, kept, input, on, variables or {})
        return await self._fork_journal(run, kept, at, variables or {}, edited)

    async def _fork_journal(
        self, run: Run, effects: Sequence[Effect], at: int, variables: Mapping[str, str], edited: Effect | None
    ) -> Run:
        fork = await self._descendant(run, at)
        prepared = await self._engine.preparing.recorded(fork, variables)
        seq = await self._keep(run, fork, prepared.version, effects, at, edited)
        record = await read_record(self._store, fork.run_id)
        self._engine.start(fork, prepared, record, seq=seq)
        return fork

    async def _keep(
        self, run: Run, fork: Run, version: AgentVersion, effects: Sequence[Effect], at: int, edited: Effect | None
    ) -> int:
        """Keep a fork with its part of the journal; return the number of its last event."""
        events = valid_events(await self._store.list_events(run.run_id, limit=None))
        until = _until(events, at)
        kept = [event for event in events if event.seq <= until]
        copied = [_copied(event, seq, fork, edited) for seq, event in enumerate(kept, 1)]
        own = [msgspec.structs.replace(each, run_id=fork.run_id, attempt=0) for each in effects]
        await self._store.import_run(fork, version, [], copied, own, self._engine.lease.epoch)
        return len(copied)

    async def _fork_conversation(
        self, run: Run, effects: Sequence[Effect], input: Any, on: str | None, variables: Mapping[str, str]
    ) -> Run:
        """Start a run that goes on from what was said, on any framework."""
        at = effects[-1].position if effects else -1
        fork = await self._descendant(run, at)
        said = None if run.options.get("continues") else _text(run.input)
        messages = conversation(effects, at, earlier=fork.options.get("messages", ()), input=said)
        continues = bool(messages) and input is None
        options = {**fork.options, "messages": messages, "continues": continues, "on": on or run.options["on"]}
        fork = msgspec.structs.replace(fork, options=options, input=run.input if input is None else input)
        prepared = await self._engine.preparing.recorded(run, variables)
        if on is not None:
            prepared = await self._engine.preparing.moved(prepared, on)
        fork = msgspec.structs.replace(
            fork,
            agent_version=prepared.version.id,
            framework=prepared.release.framework.name,
            release=prepared.release.version,
        )
        await self._store.create_run(fork)
        self._engine.start(fork, prepared)
        return fork

    async def _descendant(self, run: Run, at: int) -> Run:
        """Return a new run that is like another one, not kept yet."""
        options = {name: value for name, value in run.options.items() if name not in _NOT_INHERITED}
        options["forked_from"] = {"run_id": run.run_id, "effect": at}
        if run.thread is not None and "messages" not in options:
            said = await self._store.list_messages(run.project, run.thread, limit=None)
            before = run.options.get("thread_seq", 0)
            options["messages"] = [message.message for message in said if message.seq <= before]
        return Run(
            run_id=type(run.run_id)(self._engine.new_id()),
            project=run.project,
            principal=run.principal,
            labels=run.labels,
            agent_name=run.agent_name,
            agent_version=run.agent_version,
            framework=run.framework,
            release=run.release,
            model=run.model,
            input=run.input,
            options=options,
            lease_epoch=self._engine.lease.epoch,
            created_at=self._clock(),
            sandbox=run.sandbox,
        )

    # ---- offline

    async def replay(self, run_id: str, submission: Submission | None, variables: Mapping[str, str]) -> JsonObject:
        """Execute a run again from its journal alone and say whether it is still the same.

        `submission` names an edited agent to execute in its place. No model is asked, no tool is called, and nothing
        of it is kept.
        """
        run = await self._idle(run_id)
        effects, _ = await self._valid_effects(run, None)
        at = effects[-1].position if effects else -1
        copy = await self._descendant(run, at)
        copy.options["offline"] = True  # should this host end before it is deleted, the next one does that
        if submission is None:
            prepared = await self._engine.preparing.recorded(copy, variables, offline=True)
        else:
            prepared = await self._engine.preparing.edited(copy, submission)
        return await self._replay(run, copy, prepared, effects, at)

    async def _replay(self, run: Run, copy: Run, prepared: Prepared, effects: Sequence[Effect], at: int) -> JsonObject:
        seq = await self._keep(run, copy, prepared.version, effects, at, None)
        try:
            record = await read_record(self._store, copy.run_id)
            execution = self._engine.start(copy, prepared, record, seq=seq, offline=True)
            await self._engine.ended(copy.run_id)
        finally:
            await self._store.delete_run(copy.run_id, self._engine.lease.epoch)
            self._engine.forget_result(copy.run_id)
        again = execution.ended or copy
        replay = execution.attempt.replay
        error = again.error or {}
        divergence = (
            (error.get("details") or {}).get("divergence") if error.get("code") == ReplayDiverged.code else None
        )
        output_same = run.status == "succeeded" and again.status == "succeeded" and again.output == run.output
        # A run that had not come to its end asks for more than was recorded: so far it is the same.
        as_far = run.status != "succeeded" and divergence is not None and divergence["effect"] is None
        return {
            "run_id": run.run_id,
            "same": replay.over and (output_same or as_far),
            "output_same": output_same,
            "output": again.output,
            "effects": len(effects),
            "replayed": replay.given,
            "unused": [effect.position for effect in replay.rest],
            "divergence": divergence,
            "error": None if divergence is not None else again.error,
        }

    # ---- parts

    async def _idle(self, run_id: str) -> Run:
        if self._engine.is_active(run_id):
            raise RunUnderWay(f"the run `{run_id}` is under way")
        return await self._engine.get(run_id)

    async def _valid_effects(self, run: Run, at: int | None) -> tuple[list[Effect], list[Effect]]:
        """Return the valid effects up to `at` (None: all) and those after it. Raises CheckpointUnknown."""
        effects = await self._store.list_effects(run.run_id, limit=None)
        if at is None:
            return effects, []
        if at != -1 and not any(effect.position == at for effect in effects):
            numbers = f"{effects[0].position} to {effects[-1].position}" if effects else "none"
            raise CheckpointUnknown(f"the run `{run.run_id}` has no effect {at}; it has {numbers}")
        return [each for each in effects if each.position <= at], [each for each in effects if each.position > at]


def _until(events: Sequence[Event], at: int) -> int:
    """Return the number of the event that told of effect `at`; of the run's first one for the beginning."""
    told = [event.seq for event in events if event.data.get("effect") == at and event.kind != "replay.diverged"]
    return told[-1] if at >= 0 and told else events[0].seq if events else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _copied(event: Event, seq: int, fork: Run, edited: Effect | None) -> Event:
    data = dict(event.data)
    if event.kind == "run.started":
        data["forked_from"] = fork.options["forked_from"]
    if edited is not None and event.kind == "tool.returned" and data.get("effect") == edited.position:
        data["result"] = msgspec.json.decode(edited.response, type=Outcome).answer()
    return Event(fork.run_id, seq, 0, event.kind, event.at, data)


def _edited(effect: Effect, value: Any) -> Effect:
    """Return an effect with another response, given as it is shown or, where that has a `value`, as the value alone."""
    shown = isinstance(value, dict) and len(value) == 1 and value.keys() <= {"value", "error"}
    if effect.kind in ("tool", "value") and not shown:
        return with_response(effect, {"value": value})
    if effect.kind == "answer":
        kept = msgspec.json.decode(effect.response)
        return with_response(effect, {**kept, **(value if isinstance(value, dict) else {"value": value})})
    return with_response(effect, value)
