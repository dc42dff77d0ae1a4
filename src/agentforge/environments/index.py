"""The package index: which one the user configured, and when a release was uploaded to it."""

import asyncio
import configparser
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import uv
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

from agentforge.config.trust import tls_context
from agentforge.errors.environments import IndexUnreachable, ReleaseNotInIndex, UploadTimesMissing

__all__ = ["Index", "default_of_uv"]

_DEFAULT_IN_HELP = re.compile(r"--default-index .*?by\s+default:\s+<(https://[^>]+)>", re.DOTALL)
_JSON = "application/vnd.pypi.simple.v1+json"
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Index:
    """The index that packages come from, by its simple-API address."""

    url: str
    """Empty: whatever uv takes by default."""
    from_pip: bool = False
    """Whether only pip knows it: uv does not read pip's configuration and must be told."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Index":
        """Return the user's index: uv's own settings first, then pip's, then the default one."""
        url = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL") or _from_uv_files(environ)
        if url:
            return cls(url.split("=", 1)[1] if re.match(r"\w+=", url) else url)
        url = environ.get("PIP_INDEX_URL") or _from_pip_files(environ)
        return cls(url, from_pip=True) if url else cls("")

    def for_uv(self) -> dict[str, str]:
        """Return what to add to uv's environment so that it uses this index."""
        return {"UV_DEFAULT_INDEX": self.url} if self.from_pip else {}

    @property
    def shown(self) -> str:
        """The address without credentials."""
        if not self.url:
            return "uv's default index"
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    async def uploaded_at(self, distribution: str, version: str) -> datetime:
        """Return when the first file of a version was uploaded.

        Format: JSON simple API (PEP 691) with `upload-time` (PEP 700). Raises IndexUnreachable,
        ReleaseNotInIndex, UploadTimesMissing.
        """
        files = [f for f in await self._files(distribution) if _is_version(str(f.get("filename", "")), version)]
        if not files:
            raise ReleaseNotInIndex(
                f"`{distribution}` has no release `{version}` in the index `{self.shown}`",
                hint="Check the version, or ask for a series: `agentforge framework show` lists the tested ones.",
            )
        times = [str(f["upload-time"]) for f in files if f.get("upload-time")]
        if not times:
            raise UploadTimesMissing(
                f"The index `{self.shown}` does not say when `{distribution}` {version} was uploaded"
            )
        return min(datetime.fromisoformat(time) for time in times)

    async def versions(self, distribution: str) -> set[Version]:
        """Return the versions that have a file which is not withdrawn. Raises IndexUnreachable, ReleaseNotInIndex."""
        usable = (f for f in await self._files(distribution) if not f.get("yanked"))
        return {version for f in usable if (version := _version_of(str(f.get("filename", "")))) is not None}

    async def _files(self, distribution: str) -> list[dict[str, Any]]:
        import aiohttp  # costs more than all else here; only untested releases need it

        name = canonicalize_name(distribution)
        url = self.url or await asyncio.to_thread(default_of_uv)
        if urlsplit(url).scheme not in {"http", "https"}:
            raise UploadTimesMissing(f"The index `{self.shown}` is a folder, which has no upload times")
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_TIMEOUT_S), trust_env=True) as client,
                client.get(f"{url.rstrip('/')}/{name}/", headers={"Accept": _JSON}, ssl=tls_context()) as answer,
            ):
                return self._read(answer.status, answer.content_type, await answer.read(), name)
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise IndexUnreachable(f"The index `{self.shown}` can't be reached: {reason}") from None

    def _read(self, status: int, content_type: str, body: bytes, name: str) -> list[dict[str, Any]]:
        if status == 404:
            raise ReleaseNotInIndex(f"The index `{self.shown}` has no package `{name}`", hint="Check its spelling.")
        if status >= 400:
            raise IndexUnreachable(f"The index `{self.shown}` answered {status} for `{name}`")
        if "json" not in content_type:
            raise UploadTimesMissing(f"The index `{self.shown}` has no JSON API, so no upload times")
        try:
            files = json.loads(body)["files"]
        except (ValueError, KeyError, TypeError):
            raise IndexUnreachable(f"The index `{self.shown}` sent something unreadable for `{name}`") from None
        return list(files)


def default_of_uv() -> str:
    """Return the index that uv takes where nobody names one, as its help says; empty if it does not."""
    done = subprocess.run([uv.find_uv_bin(), "pip", "compile", "--help"], capture_output=True, text=True, check=False)
    found = _DEFAULT_IN_HELP.search(done.stdout)
    return found[1] if found else ""


def _is_version(filename: str, version: str) -> bool:
    return _version_of(filename) == Version(version)


def _version_of(filename: str) -> Version | None:
    try:
        if filename.endswith(".whl"):
            return parse_wheel_filename(filename)[1]
        return parse_sdist_filename(filename)[1]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None


def _from_uv_files(environ: Mapping[str, str]) -> str | None:
    for file in _uv_files(environ):
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # uv itself reports a broken file
        tables = [table, table.get("pip", {})]
        defaults = [i["url"] for t in tables for i in t.get("index", []) if i.get("default") and "url" in i]
        found = defaults + [t["index-url"] for t in tables if "index-url" in t]
        if found:
            return str(found[0])
    return None


def _uv_files(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("UV_CONFIG_FILE"):
        yield Path(environ["UV_CONFIG_FILE"])
    elif not environ.get("UV_NO_CONFIG"):
        yield _config_home(environ) / "uv" / "uv.toml"
        yield Path("/etc/uv/uv.toml")


def _from_pip_files(environ: Mapping[str, str]) -> str | None:
    """Return pip's `index-url`; a later file of pip's search order wins, so they are read from the last."""
    for file in _pip_files(environ):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue
        for section in ("install", "global"):
            if parser.has_option(section, "index-url"):
                return parser.get(section, "index-url").strip()
    return None


def _pip_files(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("PIP_CONFIG_FILE"):
        yield Path(environ["PIP_CONFIG_FILE"])
    yield Path(sys.prefix) / "pip.conf"
    yield _config_home(environ) / "pip" / "pip.conf"
    yield Path(environ.get("HOME", "~")).expanduser() / ".pip" / "pip.conf"
    yield Path("/etc/xdg/pip/pip.conf")
    yield Path("/etc/pip.conf")


def _config_home(environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("HOME", "~")).expanduser()
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
