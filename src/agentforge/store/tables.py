"""The tables, in SQLAlchemy Core and neutral between databases.

Columns have types that every driver gives back as the plain Python value, because the hot path bypasses SQLAlchemy's
result processing: JSON is text that `rows.py` encodes, times are doubles. A payload column `x` has a twin `x_blob` that
names the blob instead when the payload is large. A change here needs a migration; a test compares both.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "agent_versions",
    "attempts",
    "effects",
    "events",
    "health",
    "measurements",
    "metadata",
    "projects",
    "responses",
    "run_labels",
    "runs",
    "thread_messages",
]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only in a column that is exactly INTEGER.
RowNumber = BigInteger().with_variant(Integer, "sqlite")
Digest = String(64)

projects = Table(
    "projects",
    metadata,
    Column("project", Text, primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),
    Column("renewed_at", Double, nullable=False, server_default="0"),
)

agent_versions = Table(
    "agent_versions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("files", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("run_id", Text, nullable=False, unique=True),
    Column("project", Text, ForeignKey("projects.project"), nullable=False),
    Column("principal", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("agent_name", Text, nullable=False),
    Column("agent_version", Text, ForeignKey("agent_versions.id"), nullable=False),
    Column("framework", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("thread", Text),
    Column("input", Text),
    Column("input_blob", Digest),
    Column("options", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("lease_epoch", BigInteger, nullable=False),
    Column("submit_key", Text),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("output", Text),
    Column("output_blob", Digest),
    Column("error", Text),
    Column("usage", Text, nullable=False),
    Column("cost_usd", Double),
    Column("metrics", Text, nullable=False),
    Column("sandbox", Text, nullable=False),
    UniqueConstraint("project", "submit_key"),
    Index(None, "project", "number"),
    Index(None, "project", "status", "number"),
    Index(None, "project", "agent_name", "number"),
)

run_labels = Table(
    "run_labels",
    metadata,
    Column("run_id", Text, ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("run_id", "key"),
    Index(None, "key", "value"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", Text, ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("status", Text, nullable=False),
    Column("error", Text),
    PrimaryKeyConstraint("run_id", "number"),
)

events = Table(
    "events",
    metadata,
    Column("run_id", Text, ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("data", Text),
    Column("data_blob", Digest),
    PrimaryKeyConstraint("run_id", "seq"),
)

effects = Table(
    "effects",
    metadata,
    Column("run_id", Text, ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("request_hash", Text, nullable=False),
    Column("occurrence", BigInteger, nullable=False),
    Column("request", LargeBinary),
    Column("request_blob", Digest),
    Column("response", LargeBinary),
    Column("response_blob", Digest),
    Column("status", Integer, nullable=False),
    Column("usage", Text),
    Column("cost_usd", Double),
    Column("started_at", Double, nullable=False),
    Column("duration_ms", Double, nullable=False),
    Column("voided", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("run_id", "position"),
)

# A message outlives the run that added it, so `run_id` is no foreign key.
thread_messages = Table(
    "thread_messages",
    metadata,
    Column("project", Text, nullable=False),
    Column("thread", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("message", Text),
    Column("message_blob", Digest),
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("project", "thread", "seq"),
    ForeignKeyConstraint(["project"], ["projects.project"]),
)

# A cache and no record: it refers to nothing, and anybody may empty it.
responses = Table(
    "responses",
    metadata,
    Column("project", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("response", LargeBinary),
    Column("response_blob", Digest),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    PrimaryKeyConstraint("project", "key"),
)

# What `bench` and `compat` found out, the newest of each name. It is about releases and machines, not about a project.
measurements = Table(
    "measurements",
    metadata,
    Column("framework", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("machine", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", Double, nullable=False),
    Column("unit", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("command", Text, nullable=False),
    PrimaryKeyConstraint("framework", "release", "machine", "name"),
)

# What probes of environments found, the newest of each environment and of each change kept.
health = Table(
    "health",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("project", Text, nullable=False),
    Column("machine", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("framework", Text),
    Column("release", Text),
    Column("at", Double, nullable=False),
    Column("cause", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("files_s", Double),
    Column("start_s", Double),
    Column("run_s", Double),
    Column("cpu_s", Double),
    Index(None, "project", "machine", "environment", "number"),
)
