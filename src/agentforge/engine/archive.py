"""The file that a run travels in: a zip of named parts and a manifest with their digests.

Who calls it: the export and the import of runs. Written the same for the same parts; read with distrust, because it
comes from elsewhere: names only from a fixed set, every digest checked, nothing larger than a limit is unpacked.
The format is documented in docs/reference/run-export.md.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from agentforge.errors import AgentForgeError
from agentforge.errors.runs import ExportInvalid, ExportTooNew
from agentforge.gateway.canonical import decode

__all__ = [
    "FORMAT",
    "LIMITS",
    "MANIFEST",
    "VERSION",
    "Digest",
    "Limits",
    "Manifest",
    "Part",
    "converted",
    "pack",
    "unpack",
]

FORMAT = "agentforge-run"
VERSION = 1
"""Counted up with every change of the form. Files of all earlier versions can be read."""
MANIFEST = "manifest.json"
_NAME = re.compile(r"(run|version)\.json|(attempts|events|effects|messages)\.jsonl|blobs/[0-9a-f]{64}")
_MANIFEST_BYTES = 16 * 2**20
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64, description="SHA-256, in hex")]


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """What the manifest says of one entry."""

    sha256: Digest
    size: Annotated[int, Meta(ge=0, description="bytes, unpacked")]


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """The entry `manifest.json`."""

    format: str
    version: int
    written_by: Annotated[str, Meta(max_length=100, description="the release of AgentForge that wrote the file")]
    entries: Annotated[dict[str, Part], Meta(description="all other entries, by name")]


class Limits(Struct, frozen=True):
    """How large a file may be; more is refused before it is unpacked."""

    entries: int = 20_000
    size: int = 512 * 2**20
    """Bytes of all entries, unpacked."""


LIMITS = Limits()


def pack(parts: Mapping[str, bytes], written_by: str) -> bytes:
    """Return the file with these entries."""
    entries = {name: Part(hashlib.sha256(data).hexdigest(), len(data)) for name, data in parts.items()}
    manifest = msgspec.json.format(msgspec.json.encode(Manifest(FORMAT, VERSION, written_by, entries)), indent=1)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in ((MANIFEST, manifest), *parts.items()):
            entry = zipfile.ZipInfo(name)  # dated 1980: the same run gives the same file
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def unpack(data: bytes, limits: Limits = LIMITS) -> dict[str, bytes]:
    """Return the entries of a file, the manifest left out. Raises ExportInvalid, ExportTooNew."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _entries(archive, limits)
    except AgentForgeError:
        raise
    except Exception as error:  # what zipfile raises for damaged bytes has no end: struct.error, EOFError, ...
        raise ExportInvalid(f"the file can't be read as a zip archive: {error}") from error


def converted(place: str, value: Any, form: Any) -> Any:
    """Return a value from the file in its form. Raises ExportInvalid, which names the place."""
    try:
        return msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        raise ExportInvalid(f"`{place}` is not in the form of an export: {error}", place=place) from None


def _entries(archive: zipfile.ZipFile, limits: Limits) -> dict[str, bytes]:
    infos = archive.infolist()
    if len(infos) > limits.entries:
        raise ExportInvalid(f"the file has {len(infos)} entries; an export may have {limits.entries}")
    found = {info.filename: info for info in infos}
    if MANIFEST not in found:
        raise ExportInvalid(f"the file has no entry `{MANIFEST}`, so it is no export of a run")
    manifest = _manifest(_read(archive, found.pop(MANIFEST), _MANIFEST_BYTES))
    if len(infos) != len(found) + 1 or found.keys() != manifest.entries.keys():
        raise ExportInvalid(f"the file's entries are not those that `{MANIFEST}` names")
    for name in found:
        if not _NAME.fullmatch(name):
            raise ExportInvalid(f"an export has no entry `{name}`", place=name)
    total = sum(part.size for part in manifest.entries.values())
    if total > limits.size:
        raise ExportInvalid(f"the file holds {total / 2**20:.0f} MiB; an export may hold {limits.size / 2**20:.0f} MiB")
    return {name: _checked(archive, found[name], part) for name, part in manifest.entries.items()}


def _manifest(data: bytes) -> Manifest:
    try:
        said = decode(data)
    except ValueError as error:
        raise ExportInvalid(f"`{MANIFEST}` is no JSON: {error}", place=MANIFEST) from None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise ExportInvalid(f"`{MANIFEST}` does not say `{FORMAT}`, so the file is no export of a run", place=MANIFEST)
    version = said.get("version")
    if type(version) is int and version > VERSION:
        raise ExportTooNew(f"the file has version `{version}` of the format; this release reads up to `{VERSION}`")
    if type(version) is not int or version < 1:
        raise ExportInvalid(f"`{MANIFEST}` names no version of the format", place=MANIFEST)
    manifest: Manifest = converted(MANIFEST, said, Manifest)
    return manifest


def _checked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, part: Part) -> bytes:
    """Return an entry's bytes if they are those that the manifest names."""
    data = _read(archive, info, part.size)
    digest = hashlib.sha256(data).hexdigest()
    if len(data) != part.size or digest != part.sha256:
        raise ExportInvalid(f"`{info.filename}` is damaged: its bytes have another digest", place=info.filename)
    if info.filename.startswith("blobs/") and info.filename != f"blobs/{digest}":
        raise ExportInvalid(f"`{info.filename}` holds other bytes than its name says", place=info.filename)
    return data


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    """Return an entry's bytes, unpacking at most a limit: the size that a zip claims means nothing."""
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
        raise ExportInvalid(f"`{info.filename}` is packed in a way that an export is not", place=info.filename)
    with archive.open(info) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ExportInvalid(f"`{info.filename}` is larger than it may be", place=info.filename)
    return data
