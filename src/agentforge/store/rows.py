"""Records to rows and back.

JSON goes through msgspec. What msgspec refuses but JSON can hold (a lone surrogate in a model's text) falls back to the
standard library. A payload above `BLOB_LIMIT` leaves its column empty and comes as a `Spill`, which the writer turns
into a blob before its transaction begins.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar, cast

import msgspec
from sqlalchemy import Row as ResultRow

from agentforge.errors.store import BlobNotFound, ValueNotStorable
from agentforge.store.records import (
    BLOB_LIMIT,
    AgentVersion,
    Attempt,
    AttemptStatus,
    BlobId,
    Effect,
    Event,
    Json,
    JsonObject,
    ProjectId,
    Run,
    RunChanges,
    RunId,
    ThreadMessage,
)

__all__ = [
    "ReadBlob",
    "Row",
    "Spill",
    "SqlValue",
    "agent_version_of",
    "agent_version_row",
    "attempt_changes",
    "attempt_of",
    "attempt_row",
    "changes_row",
    "decode",
    "effect_of",
    "effect_row",
    "encode",
    "event_of",
    "event_rows",
    "label_rows",
    "listed_run_of",
    "message_of",
    "message_rows",
    "response_of",
    "response_row",
    "run_of",
    "run_row",
]

SqlValue: TypeAlias = str | int | float | bytes | None
Row: TypeAlias = dict[str, SqlValue]
ReadBlob: TypeAlias = Callable[[BlobId], bytes]
Found: TypeAlias = ResultRow[*tuple[Json, ...]]

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_RUN_PAYLOADS = ("input", "output")
_RUN_JSON = ("labels", "options", "error", "usage", "metrics")
_CHANGEABLE = RunChanges.__annotations__.keys()


class Spill(NamedTuple):
    """A large payload: `row[column + "_blob"]` has to name the blob of `data`."""

    row: Row
    column: str
    data: bytes


Spills: TypeAlias = list[Spill]


# JSON


def encode(value: Json) -> bytes:
    """Return the value as JSON. Raises `ValueNotStorable`."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as refused:
        try:
            return json.dumps(value).encode("ascii")
        except (TypeError, ValueError, RecursionError):
            raise ValueNotStorable(f"A value cannot be kept as JSON: {refused}.") from refused


def decode(text: str | bytes | None) -> Json:
    """Return the value of what `encode` wrote; `None` of nothing."""
    if text is None:
        return None
    try:
        return _decoder.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)


def _text(value: Json) -> str:
    return encode(value).decode()


def _text_or_none(value: Json) -> str | None:
    return None if value is None else _text(value)


def _put_json(row: Row, column: str, value: Json, spills: Spills) -> None:
    row[column] = row[f"{column}_blob"] = None
    if value is None:
        return
    data = encode(value)
    if len(data) > BLOB_LIMIT:
        spills.append(Spill(row, column, data))
    else:
        row[column] = data.decode()


def _put_bytes(row: Row, column: str, data: bytes, spills: Spills) -> None:
    row[column] = row[f"{column}_blob"] = None
    if len(data) > BLOB_LIMIT:
        spills.append(Spill(row, column, data))
    else:
        row[column] = data


def _get_json(text: str | None, blob: BlobId | None, read_blob: ReadBlob) -> Json:
    return decode(text if blob is None else read_blob(blob))


def _get_bytes(data: bytes, blob: BlobId | None, read_blob: ReadBlob) -> bytes:
    return data if blob is None else read_blob(blob)


def _values(found: Found) -> dict[str, Json]:
    # SQLAlchemy names columns with a subclass of str, which msgspec takes for no str.
    return dict(zip(map(str, found._fields), found, strict=True))


# Runs

_T = TypeVar("_T")


def _checked(values: Mapping[str, Json], type_: type[_T]) -> _T:
    # A row that does not fit its record would break every list it is in, so it is refused on the way in.
    try:
        return msgspec.convert(values, type_)
    except msgspec.ValidationError as error:
        raise ValueNotStorable(f"A run cannot be kept: {error}.") from error


def run_row(run: Run) -> tuple[Row, Spills]:
    """Return the row of a new run."""
    values = msgspec.structs.asdict(run)
    _checked(values, Run)
    return _run_columns(values)


def changes_row(changes: RunChanges) -> tuple[Row, Spills]:
    """Return the columns to set. Raises `TypeError` for a field that never changes, or that no run has."""
    if unknown := changes.keys() - _CHANGEABLE:
        raise TypeError(f"These fields of a run cannot be changed: {', '.join(sorted(unknown))}.")
    _checked(cast("Mapping[str, Json]", changes), RunChanges)
    return _run_columns(cast("Mapping[str, Json]", changes))


def _run_columns(values: Mapping[str, Json]) -> tuple[Row, Spills]:
    row: Row = dict(values)
    spills: Spills = []
    for column in _RUN_JSON:
        if column in values:
            row[column] = _text_or_none(values[column])
    for column in _RUN_PAYLOADS:
        if column in values:
            _put_json(row, column, values[column], spills)
    return row, spills


def label_rows(run_id: RunId, labels: Mapping[str, str]) -> list[Row]:
    """Return the rows by which runs are found by label."""
    return [{"run_id": run_id, "key": key, "value": value} for key, value in labels.items()]


def run_of(found: Found, read_blob: ReadBlob) -> Run:
    """Return the run of a row of `runs`."""
    values = _values(found)
    for column in _RUN_JSON:
        values[column] = decode(values[column])
    for column in _RUN_PAYLOADS:
        values[column] = _get_json(values[column], values[f"{column}_blob"], read_blob)
    return msgspec.convert(values, Run)


def listed_run_of(found: Found, read_blob: ReadBlob) -> Run:
    """Return the run of a row even if payloads of it are lost: `unreadable` then says why."""
    lost: list[str] = []

    def read_what_is_there(blob: BlobId) -> bytes:
        try:
            return read_blob(blob)
        except BlobNotFound as error:
            lost.append(error.message)
            return b"null"

    run = run_of(found, read_what_is_there)
    return msgspec.structs.replace(run, unreadable=" ".join(lost)) if lost else run


def attempt_row(attempt: Attempt) -> Row:
    """Return the row of an attempt."""
    row: Row = msgspec.structs.asdict(attempt)
    row["error"] = _text_or_none(attempt.error)
    return row


def attempt_changes(status: AttemptStatus, finished_at: float, error: JsonObject | None) -> Row:
    """Return the columns to set when an attempt ends."""
    return {"status": status, "finished_at": finished_at, "error": _text_or_none(error)}


def attempt_of(found: Found) -> Attempt:
    """Return the attempt of a row."""
    return msgspec.convert({**_values(found), "error": decode(found.error)}, Attempt)


def agent_version_row(version: AgentVersion) -> Row:
    """Return the row of an agent version."""
    row: Row = msgspec.structs.asdict(version)
    row["spec"], row["files"] = _text(version.spec), _text(version.files)
    return row


def agent_version_of(found: Found) -> AgentVersion:
    """Return the agent version of a row."""
    values = {**_values(found), "spec": decode(found.spec), "files": decode(found.files)}
    return msgspec.convert(values, AgentVersion)


# The journal


def event_rows(events: Sequence[Event], spills: Spills) -> list[Row]:
    """Return the rows of events; large data is added to `spills`."""
    rows = []
    for event in events:
        row: Row = {
            "run_id": event.run_id,
            "seq": event.seq,
            "attempt": event.attempt,
            "kind": event.kind,
            "at": event.at,
        }
        _put_json(row, "data", event.data, spills)
        rows.append(row)
    return rows


def event_of(found: Found, read_blob: ReadBlob) -> Event:
    """Return the event of a row of `events`, columns in the table's order."""
    run_id, seq, attempt, kind, at, data, blob = found
    try:
        return Event(run_id, seq, attempt, kind, at, _get_json(data, blob, read_blob))
    except BlobNotFound as error:
        raise _lost(error, run_id, "event", seq) from error


def effect_row(effect: Effect, spills: Spills) -> Row:
    """Return the row of an effect; large payloads are added to `spills`."""
    row: Row = msgspec.structs.asdict(effect)
    row["usage"] = _text_or_none(effect.usage)
    row["voided"] = int(effect.voided)
    _put_bytes(row, "request", effect.request, spills)
    _put_bytes(row, "response", effect.response, spills)
    return row


def effect_of(found: Found, read_blob: ReadBlob) -> Effect:
    """Return the effect of a row."""
    values = _values(found)
    values["usage"] = decode(values["usage"])
    values["voided"] = bool(values["voided"])
    try:
        for column in ("request", "response"):
            values[column] = _get_bytes(values[column], values[f"{column}_blob"], read_blob)
    except BlobNotFound as error:
        raise _lost(error, found.run_id, "effect", found.position) from error
    return msgspec.convert(values, Effect)


def _lost(error: BlobNotFound, run_id: RunId, part: str, number: int) -> BlobNotFound:
    message = f"The {part} `{number}` of the run `{run_id}` has lost a payload. {error.message}"
    return BlobNotFound(message, run_id=run_id, part=part, number=number)


# Threads


def message_rows(run_id: RunId, messages: Sequence[JsonObject], at: float, spills: Spills) -> list[Row]:
    """Return the rows of messages, as yet without `project`, `thread` and `seq`."""
    rows = []
    for message in messages:
        row: Row = {"run_id": run_id, "at": at}
        _put_json(row, "message", message, spills)
        rows.append(row)
    return rows


def message_of(found: Found, read_blob: ReadBlob) -> ThreadMessage:
    """Return the message of a row."""
    try:
        message = _get_json(found.message, found.message_blob, read_blob)
    except BlobNotFound as error:
        raise _lost(error, found.run_id, "message", found.seq) from error
    return ThreadMessage(found.thread, found.seq, found.run_id, message, found.at)


# The response cache


def response_row(
    project: ProjectId, key: str, response: bytes, created_at: float, expires_at: float | None
) -> tuple[Row, Spills]:
    """Return the row of a cached response."""
    row: Row = {"project": project, "key": key, "created_at": created_at, "expires_at": expires_at}
    spills: Spills = []
    _put_bytes(row, "response", response, spills)
    return row, spills


def response_of(found: Found, read_blob: ReadBlob) -> bytes:
    """Return the response of a row."""
    return _get_bytes(found.response, found.response_blob, read_blob)
