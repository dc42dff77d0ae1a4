"""The store: records of runs and their journal, kept in a database.

`open_store` chooses the store for an address; everybody else sees only `Store` and the records.
"""

from agentforge.store.interface import Store
from agentforge.store.opening import Durability, open_store
from agentforge.store.records import (
    BLOB_LIMIT,
    FINISHED,
    UNFINISHED,
    AgentVersion,
    AgentVersionId,
    Attempt,
    AttemptStatus,
    BlobId,
    Effect,
    EffectKind,
    Event,
    Json,
    JsonObject,
    Lease,
    Project,
    ProjectId,
    Run,
    RunChanges,
    RunId,
    RunStatus,
    Thread,
    ThreadMessage,
)

__all__ = [
    "BLOB_LIMIT",
    "FINISHED",
    "UNFINISHED",
    "AgentVersion",
    "AgentVersionId",
    "Attempt",
    "AttemptStatus",
    "BlobId",
    "Durability",
    "Effect",
    "EffectKind",
    "Event",
    "Json",
    "JsonObject",
    "Lease",
    "Project",
    "ProjectId",
    "Run",
    "RunChanges",
    "RunId",
    "RunStatus",
    "Store",
    "Thread",
    "ThreadMessage",
    "open_store",
]
