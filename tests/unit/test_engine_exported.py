"""Files that are no exports, or no longer: whatever is wrong is said, and nothing else ever happens."""

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentforge.engine.archive import MANIFEST, VERSION, Limits, pack, unpack
from agentforge.engine.exported import LOCK, Exported, export_schema
from agentforge.errors.runs import ExportInvalid, ExportTooNew

from .export_world import GOLDEN, altered, content_id, parts_of, repacked

DATA = GOLDEN.read_bytes()
PARTS = {name: part for name, part in parts_of(DATA).items() if name != MANIFEST}
LINES = [name for name in PARTS if name.endswith(".jsonl")]
Changes = Callable[[Any], Any]


def read(data: bytes, limits: Limits | None = None) -> Exported:
    return Exported.from_parts(unpack(data, limits or Limits()))


def refused(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(ExportInvalid) as caught:
        read(data, limits)
    return caught.value.message


def with_json(name: str, **changes: Any) -> bytes:
    return repacked({**PARTS, name: json.dumps({**json.loads(PARTS[name]), **changes}).encode()})


def with_line(name: str, line: int, **changes: Any) -> bytes:
    lines = [json.loads(each) for each in PARTS[name].splitlines()]
    lines[line] |= changes
    return repacked({**PARTS, name: b"".join(json.dumps(each).encode() + b"\n" for each in lines)})


def with_version(spec: dict[str, Any] | None = None, files: dict[str, bytes] | None = None) -> bytes:
    """Return the sample with another agent version, its id and the run's reference right."""
    version = json.loads(PARTS["version.json"])
    blobs = {name: PARTS[f"blobs/{digest}"] for name, digest in version["files"].items()}
    version["spec"] |= spec or {}
    contents = blobs if files is None else files
    version["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    version["id"] = content_id(version["spec"], {name: data for name, data in contents.items() if name != LOCK})
    run = {**json.loads(PARTS["run.json"]), "agent_version": version["id"]}
    left = {name: part for name, part in PARTS.items() if name.removeprefix("blobs/") not in
            {hashlib.sha256(data).hexdigest() for data in blobs.values()}}  # fmt: skip
    added = {f"blobs/{hashlib.sha256(data).hexdigest()}": data for data in contents.values()}
    return repacked(
        {**left, **added, "run.json": json.dumps(run).encode(), "version.json": json.dumps(version).encode()}
    )


def test_what_is_read_is_what_was_written() -> None:
    exported = read(DATA)

    assert exported.to_parts() == PARTS
    assert read(pack(exported.to_parts(), "test")) == exported
    assert read(repacked(PARTS)) == exported
    assert read(with_version()) == exported


# ---- damage


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_bytes_are_refused_or_the_same_run(data: st.DataObject) -> None:
    damaged = bytearray(DATA)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(damaged)))
        end = data.draw(st.integers(start, min(len(damaged), start + 40)))
        damaged[start:end] = data.draw(st.binary(max_size=40))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile, about names that are there twice
        try:
            exported = read(bytes(damaged))
        except (ExportInvalid, ExportTooNew):
            return
    assert exported == read(DATA)


@given(st.integers(0, len(DATA) - 1))
def test_a_file_that_was_cut_short_is_refused(length: int) -> None:
    refused(DATA[:length])


@given(st.binary(max_size=200))
def test_what_is_no_zip_is_refused(data: bytes) -> None:
    assert "zip" in refused(data)


@given(altered(PARTS))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_a_wrong_value_anywhere_is_refused_or_stays_what_it_is(data: bytes) -> None:
    """The digests are right here: this is a file that somebody made."""
    try:
        exported = read(data)
    except ExportInvalid:
        return
    assert Exported.from_parts(exported.to_parts()).to_parts() == exported.to_parts()


# ---- the archive


@pytest.mark.parametrize(
    ("version", "error"),
    [(2, ExportTooNew), (0, ExportInvalid), ("1", ExportInvalid), (True, ExportInvalid), (None, ExportInvalid)],
)
def test_only_known_versions_of_the_format_are_read(version: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        read(repacked(PARTS, version=version))


def test_a_later_version_is_told_whatever_else_is_in_the_file() -> None:
    with pytest.raises(ExportTooNew, match=f"version `{VERSION + 1}`"):
        read(repacked({"new.json": b"{}"}, version=VERSION + 1, entries="elsewhere", more=1))


def test_another_kind_of_file_is_told() -> None:
    assert "no export of a run" in refused(repacked(PARTS, format="other"))
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    assert "no entry `manifest.json`" in refused(buffer.getvalue())


@pytest.mark.parametrize("name", ["../run.json", "/etc/passwd", "blobs/../x", "extra.json", "blobs/", "RUN.JSON",
                                  "run.json\n", "blobs/" + "A" * 64, "a\\b"])  # fmt: skip
def test_a_name_that_no_export_has_is_refused(name: str) -> None:
    assert "no entry" in refused(repacked({**PARTS, name: b"{}"}))


def test_an_entry_that_is_there_twice_is_refused() -> None:
    buffer = io.BytesIO(repacked(PARTS))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("run.json", PARTS["run.json"])

    assert "not those" in refused(buffer.getvalue())


def test_an_entry_more_or_less_than_the_manifest_names_is_refused() -> None:
    buffer = io.BytesIO(repacked(PARTS))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(f"blobs/{'0' * 64}", b"")
    assert "not those" in refused(buffer.getvalue())

    entries = json.loads(parts_of(repacked(PARTS))[MANIFEST])["entries"]
    assert "not those" in refused(repacked({"run.json": PARTS["run.json"]}, entries=entries))


@pytest.mark.parametrize("name", ["run.json", "version.json", *LINES])
def test_every_entry_is_needed(name: str) -> None:
    assert refused(repacked({each: part for each, part in PARTS.items() if each != name})) == (
        f"the file has no entry `{name}`"
    )


@pytest.mark.parametrize("name", sorted(PARTS))
def test_bytes_with_another_digest_are_refused(name: str) -> None:
    entries = json.loads(parts_of(repacked(PARTS))[MANIFEST])["entries"]
    entries[name]["sha256"] = "0" * 64

    assert "damaged" in refused(repacked(PARTS, entries=entries))


def test_a_bomb_is_not_unpacked() -> None:
    name = f"blobs/{hashlib.sha256(bytes(2**26)).hexdigest()}"
    honest = repacked({**PARTS, name: bytes(2**26)})
    entries = json.loads(parts_of(honest)[MANIFEST])["entries"]
    entries[name]["size"] = 100
    limits = Limits(size=2**20)

    assert len(honest) < 2**20
    assert "an export may hold 1 MiB" in refused(honest, limits)
    assert "larger than it may be" in refused(repacked({**PARTS, name: bytes(2**26)}, entries=entries), limits)
    assert "entries" in refused(DATA, Limits(entries=3))


def test_a_bomb_in_place_of_the_manifest_is_not_unpacked() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, bytes(2**25))

    assert "larger than it may be" in refused(buffer.getvalue())


def test_an_entry_packed_in_another_way_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(MANIFEST, b"{}")

    assert "packed in a way" in refused(buffer.getvalue())


# ---- what is in it


@pytest.mark.parametrize(
    ("data", "place", "reason"),
    [
        (with_json("run.json", status="running"), "run.json", "status"),
        (with_json("run.json", status="queued"), "run.json", "status"),
        (with_json("run.json", run_id="../../etc"), "run.json", "run_id"),
        (with_json("run.json", run_id="r1\n"), "run.json", "run_id"),
        (with_json("run.json", run_id=""), "run.json", "run_id"),
        (with_json("run.json", extra=1), "run.json", "extra"),
        (with_json("run.json", created_at=1e300), "run.json", "created_at"),
        (with_json("run.json", labels={"a": 1}), "run.json", "labels"),
        (with_json("run.json", labels={"\ud800": "x"}), "run.json", "no Unicode"),
        (with_json("run.json", agent_name="\udc00"), "run.json", "no Unicode"),
        (with_json("run.json", thread="a\nb"), "run.json", "thread"),
        (with_json("run.json", thread=None), "messages.jsonl", "no thread"),
        (with_json("run.json", options={"interrupts": [{"kind": "none"}]}), "run.json", "options"),
        (with_json("run.json", options={"interrupts": 5}), "run.json", "options"),
        (with_json("run.json", options={"warnings": [5]}), "run.json", "options"),
        (with_json("run.json", agent_version="0" * 64), "version.json", "the run names"),
        (repacked({**PARTS, "run.json": b"{"}), "run.json", "no JSON"),
        (repacked({**PARTS, "run.json": b"[" * 100_000}), "run.json", "no JSON"),
        (repacked({**PARTS, "run.json": b"NaN"}), "run.json", "no JSON"),
        (with_line("events.jsonl", 1, seq=1), "events.jsonl, line 2", "count up"),
        (with_line("effects.jsonl", 3, position=0), "effects.jsonl, line 4", "count up"),
        (with_line("effects.jsonl", 0, position=2**63), "effects.jsonl, line 1", "position"),
        (with_line("effects.jsonl", 0, kind="other"), "effects.jsonl, line 1", "kind"),
        (with_line("effects.jsonl", 1, request=None), "effects.jsonl", "a text or a blob"),
        (with_line("effects.jsonl", 1, request_blob="0" * 64), "effects.jsonl", "a text or a blob"),
        (with_line("effects.jsonl", 1, request="\ud800"), "effects.jsonl, line 2", "no Unicode"),
        (with_line("effects.jsonl", 1, request=None, request_blob="0" * 64), "blobs/" + "0" * 64, "no entry"),
        (with_line("attempts.jsonl", 0, status="paused"), "attempts.jsonl, line 1", "status"),
        (with_line("messages.jsonl", 0, message="hi"), "messages.jsonl, line 1", "message"),
        (repacked({**PARTS, "events.jsonl": PARTS["events.jsonl"] + b"\n"}), "events.jsonl, line 6", "no JSON"),
        (repacked({**PARTS, f"blobs/{hashlib.sha256(b'x').hexdigest()}": b"x"}),
         f"blobs/{hashlib.sha256(b'x').hexdigest()}", "refers"),
        (repacked({**PARTS, "blobs/" + "0" * 64: b"x"}), "blobs/" + "0" * 64, "other bytes than its name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(data: bytes, place: str, reason: str) -> None:
    with pytest.raises(ExportInvalid, match=reason) as caught:
        read(data)
    assert caught.value.details["place"] == place
    assert place in caught.value.message


def test_a_version_cannot_pass_for_another_one() -> None:
    version = json.loads(PARTS["version.json"])
    forged = hashlib.sha256(b"import os").hexdigest()
    files = {**version["files"], "lib/tools.py": forged}
    parts = {name: part for name, part in PARTS.items() if name != f"blobs/{version['files']['lib/tools.py']}"}
    data = {**parts, f"blobs/{forged}": b"import os"}

    assert "other content than its id says" in refused(
        repacked({**data, "version.json": json.dumps({**version, "files": files}).encode()})
    )
    assert "other content" in refused(with_json("version.json", spec={**version["spec"], "release": "0.0.1"}))
    assert "other content" in refused(with_json("version.json", spec={**version["spec"], "x": "\ud800"}))


def test_the_lock_is_the_one_that_the_version_names() -> None:
    files = {"agent.yaml": b"", LOCK: b"evil==1.0\n"}

    assert "not the lock" in refused(with_version(files=files))
    assert read(with_version({"lock": hashlib.sha256(files[LOCK]).hexdigest()}, files)).version.files[LOCK]
    assert read(with_version(files={"agent.yaml": b""})).version.files  # older versions are without


@pytest.mark.parametrize("name", ["../tools.py", "/tools.py", "a/../../b", "a//b", "", ".", "a/./b", "a\\b", "a\0b",
                                  "x" * 256, "a/" * 600 + "b"])  # fmt: skip
def test_a_file_that_would_be_laid_out_elsewhere_is_refused(name: str) -> None:
    assert "has a file of the name" in refused(with_version(files={name: b"x"}))


def test_a_file_inside_of_a_file_is_refused() -> None:
    assert "inside of the file `a/b`" in refused(with_version(files={"a/b": b"x", "a/b/c/d": b"y"}))


@pytest.mark.parametrize("missing", ["agent", "framework", "release", "lock", "adapter"])
def test_a_version_says_what_it_needs(missing: str) -> None:
    spec = json.loads(PARTS["version.json"])["spec"]
    del spec[missing]

    assert missing in refused(with_json("version.json", spec=spec))


# ---- the schema


def test_an_export_matches_its_published_schema() -> None:
    entries: dict[str, Any] = {MANIFEST: json.loads(parts_of(DATA)[MANIFEST])}
    for name, part in PARTS.items():
        if not name.startswith("blobs/"):
            entries[name] = [json.loads(line) for line in part.splitlines()] if name in LINES else json.loads(part)
    schema = export_schema()

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(entries, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**entries, "run.json": {**entries["run.json"], "status": "running"}}, schema)
