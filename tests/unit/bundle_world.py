"""Bundles of environments as somebody with bad intentions writes them: every digest right, unless it is asked for."""

import hashlib
import io
import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SERIES", "Crafted", "locked", "overlapping", "sha256", "wheel"]

SERIES = f"{sys.version_info.major}.{sys.version_info.minor}"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel(name: str = "kit", version: str = "1.0", tag: str = "py3-none-any", text: str = "") -> bytes:
    """Return a wheel whose own metadata name a tag."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        info = f"{name}-{version}.dist-info"
        archive.writestr(zipfile.ZipInfo(f"{name}.py"), text)
        archive.writestr(zipfile.ZipInfo(f"{info}/WHEEL"), f"Wheel-Version: 1.0\nTag: {tag}\n")
    return content.getvalue()


def locked(*hashes: str, name: str = "kit", version: str = "1.0") -> str:
    """Return one line of a lock."""
    return f"{name}=={version}" + "".join(f" \\\n    --hash=sha256:{each}" for each in hashes) + "\n"


@dataclass
class Crafted:
    """A bundle of one tool environment, to which more can be added."""

    lock: str
    packages: list[dict[str, Any]] = field(default_factory=list)
    entries: dict[str, bytes] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    """What the environment says otherwise."""

    def add(self, data: bytes, name: str = "kit", version: str = "1.0", **said: Any) -> "Crafted":
        """Add a package with its wheel."""
        entry = f"wheels/{sha256(data)}/{name}-{version}-py3-none-any.whl"
        self.entries[entry] = data
        self.packages.append({"name": name, "version": version, "wheel": entry, "source": None, **said})
        return self

    @property
    def manifest(self) -> dict[str, Any]:
        environment = {
            "request": "tools", "framework": "tools", "release": "", "python": SERIES,
            "python_version": f"{SERIES}.{sys.version_info.micro}", "lock": sha256(self.lock.encode()),
            "requirements": [], "packages": self.packages, **self.said,
        }  # fmt: skip
        parts = {k: {"sha256": sha256(v), "size": len(v)} for k, v in self.parts.items()}
        return {
            "format": "agentforge-environments", "version": 1, "written_by": "0", "platform": "any",
            "environments": [environment], "entries": parts,
        }  # fmt: skip

    @property
    def parts(self) -> dict[str, bytes]:
        text = self.lock.encode()
        return {f"locks/{sha256(text)}.txt": text, **self.entries}

    def packed(self) -> bytes:
        """Return the file."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name, data in {"manifest.json": json.dumps(self.manifest).encode(), **self.parts}.items():
                archive.writestr(zipfile.ZipInfo(name), data)
        return content.getvalue()


def overlapping(count: int, size: int, *, hidden: bool = False) -> bytes:
    """Return a bundle of wheels each of which holds all that come after it: their sum is many times the file.

    `hidden`: the entries' headers stand apart, and each skips to one and the same data by a long extra field.
    """
    found = _skipping(count, size) if hidden else _nested(count, size)
    names = [f"wheels/{sha256(data)}/bomb{i}-1.0-py3-none-any.whl" for i, (_, data) in enumerate(found.entries)]
    lock = "".join(locked(sha256(data), name=f"bomb{i}") for i, (_, data) in enumerate(found.entries))
    bundle = Crafted(lock)
    for name, (_, data) in zip(names, found.entries, strict=True):
        bundle.add(data, name=name.split("/")[2].split("-")[0])
    out, listed = io.BytesIO(), []
    head = {"manifest.json": json.dumps(bundle.manifest).encode(), f"locks/{sha256(lock.encode())}.txt": lock.encode()}
    for name, data in head.items():
        listed.append((name.encode(), out.tell(), data))
        out.write(_header(name.encode(), data) + data)
    base = out.tell()
    out.write(found.body(names))
    listed += [(n.encode(), base + at, data) for n, (at, data) in zip(names, found.entries, strict=True)]
    start = out.tell()
    for entry, at, data in listed:
        sizes = struct.pack("<3L", zlib.crc32(data), len(data), len(data))
        numbers = struct.pack("<5H2L", len(entry), 0, 0, 0, 0, 0o644 << 16, at)
        out.write(struct.pack("<4s4B4H", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0x21) + sizes + numbers + entry)
    length = out.tell() - start
    out.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(listed), len(listed), length, start, 0))
    return out.getvalue()


@dataclass
class _Overlapping:
    entries: list[tuple[int, bytes]]
    content: bytes
    headers: bool = False
    step: int = 0

    def body(self, names: Sequence[str]) -> bytes:
        if not self.headers:
            return self.content
        out = bytearray(self.step * len(names))
        for number, name in enumerate(names):
            at = number * self.step
            extra = len(out) - at - 30 - len(name)
            head = _header(name.encode(), self.content, extra)
            out[at : at + len(head)] = head
        return bytes(out) + self.content


def _nested(count: int, size: int) -> _Overlapping:
    data, found = b"\0" * size, []
    for number in reversed(range(count)):
        payload = data
        data = _header(f"wheels/{sha256(payload)}/bomb{number}-1.0-py3-none-any.whl".encode(), payload) + payload
        found.append((len(data), payload))
    return _Overlapping([(len(data) - end, payload) for end, payload in reversed(found)], data)


def _skipping(count: int, size: int) -> _Overlapping:
    data, step = b"\0" * size, 256
    return _Overlapping([(number * step, data) for number in range(count)], data, headers=True, step=step)


def _header(name: bytes, data: bytes, extra: int = 0) -> bytes:
    sizes = struct.pack("<3L2H", zlib.crc32(data), len(data), len(data), len(name), extra)
    return struct.pack("<4s5H", b"PK\3\4", 20, 0, 0, 0, 0x21) + sizes + name
