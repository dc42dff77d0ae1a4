"""One run as values that can leave its machine, and their form in a file: version 1 of the export format.

Who calls it: the export and the import of runs. These records are the format; the store's may change without them.
What belongs to a machine and not to a run is left out: project, principal, lease, submission key.
The format is documented in docs/reference/run-export.md.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from agentforge.engine.archive import Digest, Manifest, converted
from agentforge.engine.interrupts import open_interrupts
from agentforge.errors.runs import ExportInvalid
from agentforge.gateway.canonical import Json, decode, encode, request_hash
from agentforge.store import BLOB_LIMIT, AttemptStatus, EffectKind, JsonObject

__all__ = [
    "LOCK",
    "Exported",
    "ExportedAttempt",
    "ExportedEffect",
    "ExportedEvent",
    "ExportedMessage",
    "ExportedRun",
    "ExportedVersion",
    "export_schema",
    "payload_fields",
]

LOCK = ".agentforge/lock.txt"
"""Among a version's files, the text of its environment's lock."""

RunId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}(?!\n)$")]
Number = Annotated[int, Meta(ge=0, le=2**53)]
Time = Annotated[float, Meta(ge=0, le=253_402_300_799, description="seconds since 1970, UTC")]
Duration = Annotated[float, Meta(ge=0, le=1e15)]
Cost = Annotated[float, Meta(ge=0, le=1e15)]
Name = Annotated[str, Meta(max_length=1000)]
_PAYLOADS = frozenset({"input", "output"})
"""Fields that may hold any text, also one that is no Unicode."""


class _Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ExportedRun(_Record, frozen=True, kw_only=True):
    """The entry `run.json`."""

    run_id: RunId
    labels: dict[str, str]
    agent_name: Name
    agent_version: Digest
    framework: Name
    release: Name
    environment: Name
    model: Name
    thread: Annotated[str, Meta(min_length=1, max_length=200)] | None
    input: Json
    options: JsonObject
    status: Literal["waiting", "succeeded", "failed", "cancelled"]
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    output: Json
    error: JsonObject | None
    usage: JsonObject
    cost_usd: Cost | None
    metrics: JsonObject
    sandbox: Name


class _Spec(Struct):
    """What every version's spec has at least."""

    agent: JsonObject
    framework: str
    release: str
    lock: str
    adapter: str


class ExportedVersion(_Record, frozen=True, kw_only=True):
    """The entry `version.json`: the agent as it was when the run began. Its files are blobs."""

    id: Digest
    name: Name
    spec: JsonObject
    files: Annotated[dict[str, Digest], Meta(max_length=10_000)]
    created_at: Time


class ExportedAttempt(_Record, frozen=True, kw_only=True):
    """A line of `attempts.jsonl`."""

    number: Number
    worker: Name
    started_at: Time
    finished_at: Time | None
    status: AttemptStatus
    error: JsonObject | None


class ExportedEvent(_Record, frozen=True, kw_only=True):
    """A line of `events.jsonl`."""

    seq: Number
    attempt: Number
    kind: Name
    at: Time
    data: JsonObject


class ExportedEffect(_Record, frozen=True, kw_only=True):
    """A line of `effects.jsonl`. A request or response that is large, or no text, is a blob instead."""

    position: Number
    attempt: Number
    kind: EffectKind
    request_hash: Digest
    occurrence: Number
    request: str | None
    request_blob: Digest | None
    response: str | None
    response_blob: Digest | None
    status: Number
    usage: JsonObject | None
    cost_usd: Cost | None
    started_at: Time
    duration_ms: Duration
    voided: bool


class ExportedMessage(_Record, frozen=True, kw_only=True):
    """A line of `messages.jsonl`: the run's thread up to the run, its own messages included."""

    seq: Number
    run_id: Name
    message: JsonObject
    at: Time


_LINES: dict[str, tuple[type[_Record], str]] = {
    "attempts": (ExportedAttempt, "number"),
    "events": (ExportedEvent, "seq"),
    "effects": (ExportedEffect, "position"),
    "messages": (ExportedMessage, "seq"),
}
"""By entry, the form of a line and the field that counts up."""


class Exported(Struct, frozen=True):
    """A run with everything that it needs to be shown, replayed and continued elsewhere."""

    run: ExportedRun
    version: ExportedVersion
    attempts: list[ExportedAttempt]
    events: list[ExportedEvent]
    effects: list[ExportedEffect]
    messages: list[ExportedMessage]
    blobs: dict[str, bytes]
    """By digest."""

    def to_parts(self) -> dict[str, bytes]:
        """Return the entries of its file."""
        parts = {"run.json": _json(self.run), "version.json": _json(self.version)}
        for name in _LINES:
            parts[f"{name}.jsonl"] = b"".join(_json(each) + b"\n" for each in getattr(self, name))
        return parts | {f"blobs/{digest}": data for digest, data in sorted(self.blobs.items())}

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> "Exported":
        """Read what `to_parts` wrote, and check that it is whole. Raises ExportInvalid."""
        blobs = {name.removeprefix("blobs/"): data for name, data in parts.items() if name.startswith("blobs/")}
        lines = {name: _lines(parts, f"{name}.jsonl", form, number) for name, (form, number) in _LINES.items()}
        run, version = _object(parts, "run.json", ExportedRun), _object(parts, "version.json", ExportedVersion)
        exported = cls(run, version, **lines, blobs=blobs)
        _check_run(exported)
        _check_version(exported)
        _check_blobs(exported)
        return exported

    def fingerprint(self) -> str:
        """Return a digest that two copies of a run share, whatever they are called and wherever they are."""
        run = msgspec.to_builtins(self.run)
        options = {key: value for key, value in run["options"].items() if key not in ("imported", "warnings")}
        content = [{**run, "run_id": "", "thread": run["thread"] and "", "options": options}, self.version.id]
        return request_hash("", [*content, *msgspec.to_builtins([self.attempts, self.events, self.effects])])

    def payload(self, text: str | None, blob: str | None) -> bytes:
        """Return an effect's request or response."""
        return (text or "").encode() if blob is None else self.blobs[blob]


def payload_fields(name: str, data: bytes, blobs: dict[str, bytes]) -> dict[str, str | None]:
    """Return the two fields of a request or response; a large one is added to `blobs`."""
    if len(data) <= BLOB_LIMIT:
        try:
            return {name: data.decode(), f"{name}_blob": None}
        except UnicodeDecodeError:
            pass
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return {name: None, f"{name}_blob": digest}


def export_schema() -> JsonObject:
    """Return the JSON Schema of the entries of an export."""
    forms: dict[str, type[Struct]] = {
        "run.json": ExportedRun,
        "version.json": ExportedVersion,
        "manifest.json": Manifest,
    }
    lines = {f"{name}.jsonl": form for name, (form, _) in _LINES.items()}
    _, definitions = msgspec.json.schema_components([*forms.values(), *lines.values()], ref_template="#/$defs/{name}")
    entries: JsonObject = {name: {"$ref": f"#/$defs/{form.__name__}"} for name, form in forms.items()}
    entries |= {
        name: {"type": "array", "description": "One line each.", "items": {"$ref": f"#/$defs/{form.__name__}"}}
        for name, form in lines.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "AgentForge run export, version 1: its entries by name",
        "type": "object",
        "properties": dict(sorted(entries.items())),
        "required": sorted(entries),
        "$defs": dict(sorted(definitions.items())),
    }


# ---- reading and writing


def _json(record: _Record) -> bytes:
    return encode(msgspec.to_builtins(record))


def _object(parts: Mapping[str, bytes], name: str, form: type[Any]) -> Any:
    if name not in parts:
        raise ExportInvalid(f"the file has no entry `{name}`", place=name)
    return _read(name, parts[name], form)


def _lines(parts: Mapping[str, bytes], name: str, form: type[Any], number: str) -> list[Any]:
    if name not in parts:
        raise ExportInvalid(f"the file has no entry `{name}`", place=name)
    read: list[Any] = []
    for count, line in enumerate(parts[name].splitlines(), 1):
        record = _read(f"{name}, line {count}", line, form)
        if read and getattr(record, number) <= getattr(read[-1], number):
            raise ExportInvalid(f"`{name}, line {count}`: `{number}` does not count up", place=f"{name}, line {count}")
        read.append(record)
    return read


def _read(place: str, data: bytes, form: type[Any]) -> Any:
    try:
        value = decode(data)
    except ValueError as error:
        raise ExportInvalid(f"`{place}` is no JSON: {error}", place=place) from None
    record = converted(place, value, form)
    for text in _texts(record):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ExportInvalid(f"`{place}` has a text that is no Unicode", place=place)
    return record


def _texts(record: Struct) -> Iterator[str]:
    """Yield what the store keeps as text and not as JSON."""
    for name, value in msgspec.structs.asdict(record).items():
        if isinstance(value, str) and name not in _PAYLOADS:
            yield value
        elif name in ("labels", "files"):
            yield from (*value.keys(), *value.values())


# ---- checking


def _check_run(exported: Exported) -> None:
    run = exported.run
    if run.thread is None and exported.messages:
        raise ExportInvalid("`messages.jsonl` has messages, but the run has no thread", place="messages.jsonl")
    if run.thread is not None and not run.thread.isprintable():
        raise ExportInvalid("`run.json`: `thread` can't be the name of a thread", place="run.json")
    try:
        open_interrupts(run.options)
        msgspec.convert(run.options.get("warnings", []), list[str])
    except (msgspec.ValidationError, TypeError, AttributeError) as error:
        raise ExportInvalid(f"`run.json`: `options` can't be read: {error}", place="run.json") from None


def _check_version(exported: Exported) -> None:
    version = exported.version
    converted("version.json, spec", version.spec, _Spec)
    if exported.run.agent_version != version.id:
        raise ExportInvalid("`version.json` is not the version that the run names", place="version.json")
    # A version that lies about its id would pass for another one, whose runs would then execute its code.
    if _content_id(version.spec, version.files) != version.id:
        raise ExportInvalid("`version.json` has other content than its id says", place="version.json")
    if version.files.get(LOCK, version.spec["lock"]) != version.spec["lock"]:
        raise ExportInvalid(f"`{LOCK}` is not the lock that the version names", place="version.json")
    _check_paths(version.files)


def _content_id(spec: JsonObject, files: Mapping[str, str]) -> str:
    """Return the id of a version with this content, as it is made for every version."""
    listed = "".join(f"{files[name]} {name}\n" for name in sorted(files) if name != LOCK)
    content = {"spec": spec, "files": hashlib.sha256(listed.encode()).hexdigest()}
    try:
        return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()
    except UnicodeEncodeError:
        return ""


def _check_paths(files: Iterable[str]) -> None:
    """Refuse names that would be laid out anywhere but below the version's folder, or one inside another."""
    names = set(files)
    for name in names:
        parts = name.split("/")
        odd = any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts)
        if odd or "\\" in name or "\0" in name or len(name) > 1000:
            raise ExportInvalid(f"`version.json` has a file of the name `{name[:100]}`", place="version.json")
        if inside := names.intersection(str(parent) for parent in PurePosixPath(name).parents):
            raise ExportInvalid(f"`version.json` has a file inside of the file `{inside.pop()}`", place="version.json")


def _check_blobs(exported: Exported) -> None:
    named = set(exported.version.files.values())
    for effect in exported.effects:
        for text, blob in ((effect.request, effect.request_blob), (effect.response, effect.response_blob)):
            if (text is None) == (blob is None):
                raise ExportInvalid(f"`effects.jsonl`: effect `{effect.position}` needs a text or a blob, not both",
                                    place="effects.jsonl")  # fmt: skip
            named |= {blob} if blob is not None else set()
    if lost := named - exported.blobs.keys():
        raise ExportInvalid(f"the file has no entry `blobs/{min(lost)}`", place=f"blobs/{min(lost)}")
    if stray := exported.blobs.keys() - named:
        raise ExportInvalid(f"nothing refers to `blobs/{min(stray)}`", place=f"blobs/{min(stray)}")
