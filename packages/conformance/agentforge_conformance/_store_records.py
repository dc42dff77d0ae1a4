"""Records that the store suite writes."""

import itertools
from collections.abc import Sequence

import msgspec

from agentforge.store import (
    BLOB_LIMIT,
    AgentVersion,
    AgentVersionId,
    BlobId,
    Effect,
    Event,
    Json,
    JsonObject,
    Lease,
    ProjectId,
    Run,
    RunId,
    Store,
)

__all__ = ["LARGE", "NOW", "OTHER", "PROJECT", "VERSION", "effect", "events", "new_run", "run_of", "seqs"]

PROJECT, OTHER = ProjectId("expenses"), ProjectId("other")
NOW = 1_763_800_000.25
VERSION = AgentVersion(
    id=AgentVersionId("5" * 64),
    name="expenses",
    spec={"instructions": "Use the tools.", "settings": {"temperature": 0.5}},
    files={"tools.py": BlobId("a" * 64)},
    created_at=NOW,
)
LARGE = "ä" * BLOB_LIMIT
_numbers = itertools.count(1)


def run_of(epoch: int, **fields: Json) -> Run:
    """Return a run of `PROJECT` that no store has yet; `fields` replace the defaults."""
    run = Run(
        run_id=RunId(f"run-{next(_numbers)}"),
        project=PROJECT,
        agent_name="expenses",
        agent_version=VERSION.id,
        framework="langchain",
        input="How much was travel?",
        lease_epoch=epoch,
        created_at=NOW,
    )
    return msgspec.structs.replace(run, **fields)


async def new_run(store: Store, lease: Lease, **fields: Json) -> RunId:
    """Keep a new run under the lease and return its id."""
    await store.put_agent_version(VERSION)
    return (await store.create_run(run_of(lease.epoch, project=lease.project, **fields))).run_id


def events(run_id: RunId, first: int, count: int = 1, data: JsonObject | None = None) -> list[Event]:
    """Return `count` events numbered from `first`."""
    return [
        Event(run_id, seq, 1, "log.written", NOW + seq, data or {"line": f"{seq}"})
        for seq in range(first, first + count)
    ]


def effect(run_id: RunId, position: int, **fields: Json) -> Effect:
    """Return a model call of a run."""
    made = Effect(
        run_id=run_id,
        position=position,
        attempt=1,
        kind="model",
        request_hash="f" * 64,
        occurrence=position,
        request=b'{"messages": []}',
        response=b"\x00\xff not text",
        status=200,
        usage={"input_tokens": 12},
        cost_usd=0.25,
        started_at=NOW,
        duration_ms=12.5,
    )
    return msgspec.structs.replace(made, **fields)


def seqs(found: Sequence[Event]) -> list[int]:
    """Return the numbers of events."""
    return [event.seq for event in found]
