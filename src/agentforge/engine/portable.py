"""Runs that move between machines: one run out of the store into a file, and back into another store.

Who calls it: the API, for `runs export` and `runs import`. A run that waits or has failed can be answered or resumed
where it was imported.
"""

import asyncio
import itertools
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from agentforge import __version__
from agentforge.engine.archive import LIMITS, Limits, pack, unpack
from agentforge.engine.exported import (
    Exported,
    ExportedAttempt,
    ExportedEffect,
    ExportedEvent,
    ExportedMessage,
    ExportedRun,
    ExportedVersion,
    payload_fields,
)
from agentforge.engine.history import known_run
from agentforge.errors import InternalError
from agentforge.errors.runs import RunUnderWay
from agentforge.errors.store import RecordExists, RunNotFound
from agentforge.store import (
    AgentVersion,
    Attempt,
    Effect,
    Event,
    JsonObject,
    ProjectId,
    Run,
    RunId,
    Store,
    ThreadMessage,
)

__all__ = ["export_run", "import_run"]

T = TypeVar("T", bound=msgspec.Struct)


async def export_run(store: Store, run_id: str) -> bytes:
    """Return a run as a file: see docs/reference/run-export.md. Raises RunUnknown, RunUnderWay."""
    run = await known_run(store, run_id)
    if run.status in ("queued", "running"):
        raise RunUnderWay(f"the run `{run_id}` is {run.status}, so it can't be exported")
    exported = await _collected(store, run)
    if await known_run(store, run_id) != run:
        raise RunUnderWay(f"the run `{run_id}` went on while it was exported")
    return await asyncio.to_thread(lambda: pack(exported.to_parts(), __version__))


async def import_run(store: Store, data: bytes, project: ProjectId, epoch: int, limits: Limits = LIMITS) -> Run:
    """Keep the run of a file in this project, and return it.

    It keeps its id unless another run has it: then it gets a new one, and says so in its warnings. A run that is here
    already, in the same state, is returned as it is. Its thread is continued where the messages agree, else it goes
    into a thread of another name. Raises ExportInvalid, ExportTooNew, LeaseLost.
    """
    exported = await asyncio.to_thread(lambda: Exported.from_parts(unpack(data, limits)))
    while True:
        run_id, run = await _place(store, exported, project)
        try:
            if run is None:
                run = await _kept(store, exported, run_id, project, epoch)
        except RecordExists:  # somebody else has just taken the id
            continue
        await _continue_thread(store, run, exported, epoch)
        return run


# ---- out


async def _collected(store: Store, run: Run) -> Exported:
    """Return a run with all its parts."""
    if "variables" in run.options:
        raise InternalError("a run's options hold variables, which may be secret")
    version = await store.get_agent_version(run.agent_version)
    blobs = {str(digest): await store.get_blob(digest) for digest in version.files.values()}
    effects = await store.list_effects(run.run_id, limit=None, voided=True)
    payloads: dict[str, bytes] = {}
    return Exported(
        run=_as(ExportedRun, run),
        version=_as(ExportedVersion, version),
        attempts=[_as(ExportedAttempt, each) for each in await store.list_attempts(run.run_id)],
        events=[_as(ExportedEvent, each) for each in await store.list_events(run.run_id, limit=None)],
        effects=[_exported_effect(each, payloads) for each in effects],
        messages=[_as(ExportedMessage, each) for each in await _thread(store, run)],
        blobs={**blobs, **payloads},
    )


def _as(form: type[T], record: msgspec.Struct, **fields: object) -> T:
    """Return a record of the store in the form of the file, or the other way round."""
    values = {**msgspec.structs.asdict(record), **fields}
    return form(**{name: values[name] for name in form.__struct_fields__ if name in values})


def _exported_effect(effect: Effect, blobs: dict[str, bytes]) -> ExportedEffect:
    request = payload_fields("request", effect.request, blobs)
    return _as(ExportedEffect, effect, **request, **payload_fields("response", effect.response, blobs))


async def _thread(store: Store, run: Run) -> list[ThreadMessage]:
    """Return the messages of the run's thread that it saw, and those that it added."""
    if run.thread is None:
        return []
    messages = await store.list_messages(run.project, run.thread, limit=None)
    seen = run.options.get("thread_seq")
    if seen is None:  # it never got so far as to look
        seen = max((each.seq for each in messages if each.at <= run.created_at), default=0)
    last = max((each.seq for each in messages if each.run_id == run.run_id), default=seen)
    return [each for each in messages if each.seq <= last]


# ---- in


async def _place(store: Store, exported: Exported, project: ProjectId) -> tuple[RunId, Run | None]:
    """Return the id for the run, and the run itself if it is here in the same state."""
    for run_id in _names(exported.run.run_id, exported.fingerprint()):
        try:
            found = await store.get_run(RunId(run_id))
        except RunNotFound:
            return RunId(run_id), None
        if found.project == project and await _is_same(store, found, exported):
            return found.run_id, found
    raise AssertionError("names have no end")


def _names(name: str, mark: str) -> Iterator[str]:
    """Yield a name, and others for when it is taken: the same ones for the same file."""
    yield name
    yield f"{name[:180]}-{mark[:8]}"
    yield from (f"{name[:180]}-{mark[:8]}-{number}" for number in itertools.count(2))


async def _is_same(store: Store, run: Run, exported: Exported) -> bool:
    if run.status != exported.run.status or run.agent_version != exported.run.agent_version:
        return False
    return (await _collected(store, run)).fingerprint() == exported.fingerprint()


async def _kept(store: Store, exported: Exported, run_id: RunId, project: ProjectId, epoch: int) -> Run:
    thread = await _thread_name(store, exported, project)
    run = _as(Run, exported.run, **_own(exported, run_id, thread), project=project, lease_epoch=epoch, submit_key=None,
              principal="local")  # fmt: skip
    files = {name: await store.put_blob(exported.blobs[digest]) for name, digest in exported.version.files.items()}
    return await store.import_run(
        run,
        _as(AgentVersion, exported.version, files=files),
        [_as(Attempt, each, run_id=run_id) for each in exported.attempts],
        [_as(Event, each, run_id=run_id) for each in exported.events],
        [_effect(exported, each, run_id) for each in exported.effects],
        epoch,
    )


def _effect(exported: Exported, effect: ExportedEffect, run_id: RunId) -> Effect:
    request = exported.payload(effect.request, effect.request_blob)
    response = exported.payload(effect.response, effect.response_blob)
    return _as(Effect, effect, run_id=run_id, request=request, response=response)


def _own(exported: Exported, run_id: RunId, thread: str | None) -> JsonObject:
    """Return the fields that are the imported run's own: what it is called here, and that it is called so."""
    run = exported.run
    notes = []
    if run_id != run.run_id:
        notes.append(f"imported as `{run_id}`: `{run.run_id}` is another run here")
    if thread != run.thread:
        notes.append(f"imported into the thread `{thread}`: `{run.thread}` is another conversation here")
    options = run.options
    if notes:
        options = {**options, "imported": {"run_id": run.run_id, "thread": run.thread}}
        options["warnings"] = [*run.options.get("warnings", []), *notes]
    return {"run_id": run_id, "thread": thread, "options": options}


# ---- the thread


async def _thread_name(store: Store, exported: Exported, project: ProjectId) -> str | None:
    """Return the name of the thread that the run goes into."""
    if exported.run.thread is None:
        return None
    for name in _names(exported.run.thread, exported.fingerprint()):
        if await _missing(store, exported, project, name) is not None:
            return name
    raise AssertionError("names have no end")


async def _continue_thread(store: Store, run: Run, exported: Exported, epoch: int) -> None:
    """Add to the run's thread what it lacks. A second import mends what a crash in the first one left."""
    if run.thread is None:
        return
    missing = await _missing(store, exported, run.project, run.thread)
    if missing:
        await store.claim_run(run.run_id, epoch)
        await store.append_messages(run.run_id, epoch, missing)


async def _missing(store: Store, exported: Exported, project: ProjectId, thread: str) -> list[JsonObject] | None:
    """Return the messages that a thread lacks, None if it is another conversation."""
    wanted = [each.message for each in exported.messages]
    kept = [each.message for each in await store.list_messages(project, thread, limit=None)]
    both = min(len(wanted), len(kept))
    if wanted[:both] != kept[:both] or (kept and not wanted):
        return None
    return wanted[both:]
