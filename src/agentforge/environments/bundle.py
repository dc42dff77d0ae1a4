"""The file that environments travel in: a zip of locks and wheels, and a manifest with their digests.

Written the same for the same wheels; read with distrust, because it comes from elsewhere: names only of two kinds,
nothing packed, no byte used twice, every digest checked, before anything of it is put into its place. The format is
documented in docs/reference/environment-bundle.md.
"""

import hashlib
import os
import re
import secrets
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from packaging.markers import default_environment
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from agentforge.environments.additions import checked_lines, content_of
from agentforge.environments.lock import Lock, LockedPackage
from agentforge.errors import AgentForgeError
from agentforge.errors.environments import RequirementInvalid
from agentforge.errors.keeping import BundleInvalid, BundleNotWritten, BundleTooNew

__all__ = ["FORMAT", "VERSION", "BundleFile", "BundledEnvironment", "BundledPackage", "Manifest", "write_bundle"]

FORMAT = "agentforge-environments"
VERSION = 1
"""Counted up with every change of the form. Files of all earlier versions can be read."""
MANIFEST = "manifest.json"
MOST_ENTRIES = 50_000
_MANIFEST_BYTES = 64 * 2**20
_LOCK_BYTES = 64 * 2**20
_NAME = re.compile(r"locks/[0-9a-f]{64}\.txt|wheels/[0-9a-f]{64}/[A-Za-z0-9][A-Za-z0-9_.+!-]{0,250}\.whl")
_SERIES = re.compile(r"[0-9]{1,2}\.[0-9]{1,3}")
_ENCRYPTED = 0x1
_HEADER_BYTES = 30
"""Of an entry's own header, before its name and extra field."""
_NAME_LENGTH_AT = 26
_CHUNK = 1 << 20

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64, description="SHA-256, in hex")]
Word = Annotated[str, Meta(max_length=1000)]


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """What the manifest says of one entry."""

    sha256: Digest
    size: Annotated[int, Meta(ge=0, description="bytes")]


class BundledPackage(Struct, frozen=True, forbid_unknown_fields=True):
    """One package of an environment, and the wheel that is installed for it."""

    name: Word
    version: Word
    wheel: Annotated[Word, Meta(description="its entry: `wheels/<sha256>/<filename>`")]
    source: Annotated[Digest | None, Meta(description="the archive it was built from, where the lock names no wheel")]
    contents: Annotated[
        tuple[Annotated[str, Meta(pattern="^[0-9a-f]{16}$")], ...],
        Meta(description="of a local package: the content that it was built from, as the requirement line has it"),
    ] = ()


class BundledEnvironment(Struct, frozen=True, forbid_unknown_fields=True):
    """One environment: what a request meant in the project that exported it."""

    request: Annotated[Word, Meta(description="as the project wrote it: `langchain`, `crewai@1`, `tools`")]
    framework: Word
    release: Annotated[Word, Meta(description="exact version; empty for tools")]
    python: Annotated[Word, Meta(description="range of Python versions; for tools the series")]
    python_version: Annotated[Word, Meta(description="the exact version that the wheels were chosen for")]
    lock: Digest
    requirements: Annotated[tuple[Word, ...], Meta(description="extra lines that came with the request")]
    packages: tuple[BundledPackage, ...]


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """The entry `manifest.json`."""

    format: str
    version: int
    written_by: Annotated[str, Meta(max_length=100, description="the release of AgentForge that wrote the file")]
    platform: Annotated[str, Meta(max_length=200, description="the machine it was written on: `linux-x86_64-glibc`")]
    environments: tuple[BundledEnvironment, ...]
    entries: Annotated[dict[str, Part], Meta(description="all other entries, by name")]


def write_bundle(
    target: Path,
    environments: Sequence[BundledEnvironment],
    locks: Mapping[str, str],
    wheels: Mapping[str, Path],
    *,
    written_by: str,
    platform: str,
) -> int:
    """Write a bundle and return its size; `locks` are texts by digest, `wheels` files by their entries.

    A file that is there already is replaced at the end. Raises BundleNotWritten.
    """
    parts: dict[str, bytes | Path] = {f"locks/{digest}.txt": text.encode() for digest, text in locks.items()}
    parts |= wheels
    entries = {name: _own_part(name, parts[name]) for name in sorted(parts)}
    manifest = Manifest(FORMAT, VERSION, written_by, platform, tuple(environments), entries)
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                _add(archive, MANIFEST, data)
                for name in entries:
                    _add(archive, name, parts[name])
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
        return target.stat().st_size
    except OSError as error:
        raise BundleNotWritten(f"`{target}` can't be written: {error.strerror or error}") from error
    finally:
        fresh.unlink(missing_ok=True)


def _own_part(name: str, content: bytes | Path) -> Part:
    """Return what the manifest says of a lock or wheel, which has the name of its digest. Raises BundleNotWritten."""
    part = _part(content)
    if _digest_in(name) != part.sha256:
        raise BundleNotWritten(
            f"`{content if isinstance(content, Path) else name}` was changed: it does not have the digest of its name",
            hint="Delete the file; it is fetched or built anew when it is needed.",
        )
    return part


def _digest_in(name: str) -> str:
    """Return the digest that an entry's name holds."""
    return name.split("/")[1].removesuffix(".txt")


def _part(content: bytes | Path) -> Part:
    if isinstance(content, bytes):
        return Part(hashlib.sha256(content).hexdigest(), len(content))
    with content.open("rb") as stream:
        return Part(hashlib.file_digest(stream, "sha256").hexdigest(), content.stat().st_size)


def _add(archive: zipfile.ZipFile, name: str, content: bytes | Path) -> None:
    entry = zipfile.ZipInfo(name)  # dated 1980: the same wheels give the same file
    entry.external_attr = 0o644 << 16
    if isinstance(content, bytes):
        archive.writestr(entry, content)
        return
    entry.file_size = content.stat().st_size  # says whether the entry needs the larger form
    with content.open("rb") as source, archive.open(entry, "w") as target:
        while chunk := source.read(_CHUNK):
            target.write(chunk)


class BundleFile:
    """A bundle that is read. Made by `opened`, which checks all but the bytes of the wheels; `extract` checks those."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self._infos = self._checked_entries()
        self.manifest = self._manifest()
        if self._infos.keys() != self.manifest.entries.keys():
            raise self._invalid(f"its entries are not those that `{MANIFEST}` names")
        self._check_names()
        self.locks = {name: self._lock(name) for name in self._infos if name.startswith("locks/")}
        for environment in self.manifest.environments:
            self._check(environment)

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> "Iterator[BundleFile]":
        """Open a bundle. Raises BundleInvalid, BundleTooNew; what fails inside of the block is none of these."""
        if not path.is_file():
            raise BundleInvalid(f"There is no file `{path}`", hint="Name a file that `agentforge env export` wrote.")
        try:
            archive = zipfile.ZipFile(path)
        except Exception as error:  # what zipfile raises for damaged bytes has no end: struct.error, EOFError, ...
            raise BundleInvalid(f"`{path}` can't be read as a zip archive: {_reason(error)}") from error
        with archive:
            try:
                bundle = cls(path, archive)
            except AgentForgeError:
                raise
            except Exception as error:
                raise BundleInvalid(f"`{path}` can't be read: {_reason(error)}") from error
            yield bundle

    def lock(self, environment: BundledEnvironment) -> Lock:
        """Return the lock of one of its environments."""
        return self.locks[f"locks/{environment.lock}.txt"]

    def extract(self, name: str, target: Path) -> None:
        """Write a wheel into a new file. Raises BundleInvalid if its bytes are not those of the manifest; OSError."""
        part = self.manifest.entries[name]
        total, size = hashlib.sha256(), 0
        with target.open("xb") as file:
            for chunk in self._chunks(name):
                total.update(chunk)
                size += len(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if size != part.size or total.hexdigest() != part.sha256:
            raise self._invalid(f"`{name}` is damaged: its bytes have another digest", place=name)

    def _chunks(self, name: str) -> Iterator[bytes]:
        try:
            with self._archive.open(self._infos[name]) as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
        except (OSError, zipfile.BadZipFile, EOFError, ValueError) as error:
            raise self._invalid(f"`{name}` is damaged: {_reason(error)}", place=name) from error

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        infos = self._archive.infolist()
        if len(infos) > MOST_ENTRIES:
            raise self._invalid(f"it has {len(infos)} entries; a bundle may have {MOST_ENTRIES}")
        found: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            name = info.orig_filename
            if name != MANIFEST and not _NAME.fullmatch(name):
                shown = name if name.isprintable() else ascii(name)
                raise self._invalid(f"a bundle has no entry `{shown}`", place=shown)
            if name in found:
                raise self._invalid(f"it has two entries `{name}`", place=name)
            if not _is_plain(info):
                raise self._invalid(f"`{name}` is packed in a way that a bundle's entries are not", place=name)
            found[name] = info
        if MANIFEST not in found:
            raise self._invalid(f"it has no entry `{MANIFEST}`, so it is no bundle of environments")
        self._require_apart(infos)
        self._said = found.pop(MANIFEST)
        return found

    def _require_apart(self, infos: Sequence[zipfile.ZipInfo]) -> None:
        """Refuse entries that share bytes: a small file could hold very much by that."""
        spans = []
        with self._path.open("rb") as file:
            for info in infos:
                file.seek(info.header_offset + _NAME_LENGTH_AT)
                name, extra = struct.unpack("<HH", file.read(4))
                start = info.header_offset + _HEADER_BYTES + name + extra
                spans.append((info.header_offset, start + info.compress_size))
        spans.sort()
        ends = [start for start, _ in spans[1:]] + [self._archive.start_dir]
        if any(end > following for (_, end), following in zip(spans, ends, strict=True)):
            raise self._invalid("its entries overlap")

    def _manifest(self) -> Manifest:
        data = self._small(self._said, _MANIFEST_BYTES)
        try:
            said = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._invalid(f"`{MANIFEST}` is no JSON: {error}", place=MANIFEST) from None
        if not all(word.isprintable() for word in _words(said)):
            raise self._invalid(f"`{MANIFEST}` has signs that can't be printed", place=MANIFEST)
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            raise self._invalid(f"`{MANIFEST}` does not say `{FORMAT}`", place=MANIFEST)
        version = said.get("version")
        if type(version) is int and version > VERSION:
            raise BundleTooNew(
                f"`{self._path}` has version `{version}` of the format; this release reads up to `{VERSION}`"
            )
        if type(version) is not int or version < 1:
            raise self._invalid(f"`{MANIFEST}` names no version of the format", place=MANIFEST)
        try:
            return msgspec.convert(said, Manifest)
        except msgspec.ValidationError as error:
            raise self._invalid(f"`{MANIFEST}` is not in the form of a bundle: {error}", place=MANIFEST) from None

    def _lock(self, name: str) -> Lock:
        data = self._small(self._infos[name], _LOCK_BYTES)
        part = self.manifest.entries[name]
        if hashlib.sha256(data).hexdigest() != part.sha256 or len(data) != part.size:
            raise self._invalid(f"`{name}` is damaged: its bytes have another digest", place=name)
        lock = Lock(data.decode())
        if "://" in lock.text or not lock.is_plain:
            raise self._invalid(f"the lock `{name}` holds something else than packages with hashes", place=name)
        lock.packages_for({key: str(value) for key, value in default_environment().items()})  # whether it can be done
        return lock

    def _check_names(self) -> None:
        """Refuse entries under another digest than their own, and those that no environment needs."""
        for name, part in self.manifest.entries.items():
            if _digest_in(name) != part.sha256:
                raise self._invalid(f"the bytes of `{name}` have another digest", place=name)
        needed = {f"locks/{each.lock}.txt" for each in self.manifest.environments}
        needed |= {package.wheel for each in self.manifest.environments for package in each.packages}
        for name in sorted(self.manifest.entries.keys() - needed):
            raise self._invalid(f"no environment of it needs `{name}`", place=name)

    def _small(self, info: zipfile.ZipInfo, limit: int) -> bytes:
        if info.file_size > limit:
            raise self._invalid(f"`{info.filename}` is larger than it may be", place=info.filename)
        return self._archive.read(info)

    def _check(self, environment: BundledEnvironment) -> None:
        """Refuse an environment whose wheels are not those of its lock."""
        name = f"locks/{environment.lock}.txt"
        if name not in self.locks:
            raise self._invalid(f"the lock of `{environment.request}` is not in it", place=name)
        if not environment.release and not _SERIES.fullmatch(environment.python):
            raise self._invalid(f"`{environment.python}` is no series of Python", place=MANIFEST)
        SpecifierSet(environment.python if environment.release else f"=={environment.python}.*")
        Version(environment.python_version)
        self._check_requirements(environment)
        locked: dict[tuple[str, Version], LockedPackage] = {
            (package.name, Version(package.version)): package for package in self.locks[name].packages
        }
        for package in environment.packages:
            self._check_package(environment, package, locked)

    def _check_requirements(self, environment: BundledEnvironment) -> None:
        try:
            checked_lines(environment.requirements)
        except RequirementInvalid as error:
            raise self._invalid(f"`{environment.request}` of it: {error.message}", place=MANIFEST) from None
        contents = {content_of(line) for line in environment.requirements}
        for package in environment.packages:
            if not contents.issuperset(package.contents):
                reason = f"`{package.name}` has a content that no requirement of `{environment.request}` has"
                raise self._invalid(reason, place=package.wheel)

    def _check_package(
        self,
        environment: BundledEnvironment,
        package: BundledPackage,
        locked: Mapping[tuple[str, Version], LockedPackage],
    ) -> None:
        part = self.manifest.entries.get(package.wheel)
        if part is None or package.wheel.split("/")[0] != "wheels":
            raise self._invalid(f"the wheel of `{package.name}` is not in it", place=package.wheel)
        _, digest, filename = package.wheel.split("/")
        try:
            name, version, _, _ = parse_wheel_filename(filename)
        except InvalidWheelFilename as error:
            raise self._invalid(f"`{filename}` is no wheel: {error}", place=package.wheel) from None
        found = locked.get((canonicalize_name(package.name), Version(package.version)))
        if found is None or (name, version) != (found.name, Version(found.version)):
            raise self._invalid(f"`{package.wheel}` is not in the lock of `{environment.request}`", place=package.wheel)
        if (package.source or digest) not in found.hashes:
            raise self._invalid(
                f"the lock of `{environment.request}` has another hash for `{package.name}`", place=package.wheel
            )

    def _invalid(self, reason: str, **details: str) -> BundleInvalid:
        return BundleInvalid(f"`{self._path}` can't be used: {reason}", **details)


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """Whether an entry is a file that is neither packed nor encrypted: no link, and no more than its bytes here."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
    return stored and not info.flag_bits & _ENCRYPTED and kind in (0, stat.S_IFREG)


def _words(said: Any) -> Iterator[str]:
    """Yield all keys and texts of a JSON value."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, dict):
        for key, value in said.items():
            yield key
            yield from _words(value)
    elif isinstance(said, list):
        for value in said:
            yield from _words(value)


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return text if text.isprintable() else ascii(text)
