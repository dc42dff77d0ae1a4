"""The files that a lock names, from the package index: what an export packs.

uv keeps what it downloads unpacked, so the wheels themselves are asked for once more; each is taken by its hash.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urljoin, urlsplit

from packaging.utils import canonicalize_name

from agentforge.config.trust import tls_context
from agentforge.environments.index import Index, default_of_uv
from agentforge.environments.interpreters import Interpreter
from agentforge.environments.lock import Lock, LockedPackage
from agentforge.environments.wheels import Wheels, rank_of
from agentforge.errors.environments import IndexUnreachable, InstallFailed
from agentforge.errors.keeping import PackageFileMissing

if TYPE_CHECKING:
    import aiohttp

__all__ = ["FetchedWheel", "Fetcher", "indexed"]

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
_TIMEOUT_S = 120.0
_QUESTION_S = 15.0
_ATTEMPTS = 3
_AT_ONCE = 6
_CHUNK = 1 << 20
_YES = {"1", "true", "yes", "on", "y", "t"}


@dataclass(frozen=True, slots=True)
class FetchedWheel:
    """The wheel of one package of a lock."""

    package: LockedPackage
    file: Path
    digest: str
    source: str = ""
    """SHA-256 of the source archive that it was built from; empty: the lock names the wheel itself."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A file as an index lists it."""

    name: str
    url: str
    digest: str


class Fetcher:
    """Fetches wheels into a folder. `async with Fetcher(...)` opens and closes its connections."""

    def __init__(self, environ: Mapping[str, str], wheels: Wheels, folder: Path) -> None:
        self._index = Index.from_environment(environ)
        self._extra = [Index(url) for url in _extra_indexes(environ)]
        self._wheels = wheels
        self._folder = folder
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._stack = AsyncExitStack()
        self._client: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        import aiohttp  # costs more than all else here

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT_S, sock_read=_TIMEOUT_S)
        self._client = await self._stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, trust_env=True))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def fetch(self, lock: Lock, interpreter: Interpreter, done: Callable[[str], None]) -> list[FetchedWheel]:
        """Return the wheels of a lock's packages for an interpreter of this machine; `done` is told the name of each.

        Raises PackageFileMissing, IndexUnreachable, InstallFailed (a source archive that can't be built).
        """

        async def one(package: LockedPackage) -> FetchedWheel:
            async with self._room:
                wheel = await self._wheel(package, lock.digest, interpreter)
            done(package.name)
            return wheel

        tasks = [asyncio.create_task(one(package)) for package in lock.packages_for(interpreter.markers)]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def has_wheel(self, package: LockedPackage, interpreter: Interpreter) -> bool:
        """Whether an index lists a wheel that a lock names and that fits; False where that can't be asked."""
        try:
            async with asyncio.timeout(_QUESTION_S), self._room:
                return bool(_ranked(await self._named(package), interpreter))
        except (IndexUnreachable, PackageFileMissing, TimeoutError):
            return False

    async def _wheel(self, package: LockedPackage, lock: str, interpreter: Interpreter) -> FetchedWheel:
        known = await asyncio.to_thread(self._wheels.find, package, interpreter)
        if known is not None:
            return FetchedWheel(package, known.file, known.digest)
        origin, built = await asyncio.to_thread(self._wheels.built, package, lock, interpreter)
        try:
            files = await self._named(package)
        except (IndexUnreachable, PackageFileMissing):
            if built is None:
                raise
            files = []
        ranked = _ranked(files, interpreter)
        if ranked:
            file = min(ranked, key=lambda each: (each[0], each[1].name))[1]
            return FetchedWheel(package, await self._download(file), file.digest)
        if built is not None:
            return FetchedWheel(package, built.file, built.digest, origin)
        archive = next((file for file in files if not file.name.endswith(".whl")), None)
        if archive is None:
            raise PackageFileMissing(
                f"`{self._index.shown}` has no file of `{package.name}` {package.version} with a hash of the lock "
                f"that fits Python {interpreter.version} on this machine"
            )
        return await self._built(package, archive, interpreter)

    async def _built(self, package: LockedPackage, archive: _Found, interpreter: Interpreter) -> FetchedWheel:
        source = await self._download(archive)
        folder = source.parent / f"built-{interpreter.tag}"
        known = next(folder.glob("*.whl"), None)
        file = known or await self._wheels.from_source(source, interpreter, folder)
        digest = await asyncio.to_thread(_digest, file)
        return FetchedWheel(package, file, digest, archive.digest)

    async def _download(self, file: _Found) -> Path:
        target = self._folder / file.digest / file.name
        if target.exists():  # another environment needs it too
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{file.name}.part")
        found = await self._ask(file.url, file.name, lambda answer: _saved(answer, part))
        if found is None:
            raise IndexUnreachable(f"`{self._index.shown}` lists `{file.name}`, but does not have it")
        if found != file.digest:
            raise InstallFailed(f"`{file.name}` does not have the hash that the lock and the index name: got `{found}`")
        return part.rename(target)

    async def _named(self, package: LockedPackage) -> list[_Found]:
        return [file for file in await self._listed(package.name) if file.digest in package.hashes]

    async def _listed(self, name: str) -> list[_Found]:
        """Return the files of a package on all indexes, those of the first ones first."""
        found: list[_Found] = []
        for index in (*self._extra, self._index):
            url = index.url or await asyncio.to_thread(default_of_uv)
            if urlsplit(url).scheme not in {"http", "https"}:
                raise PackageFileMissing(f"The index `{index.shown}` is a folder, which an export can't read")
            page = f"{url.rstrip('/')}/{canonicalize_name(name)}/"
            found += await self._ask(page, name, _files) or []
        return [file for file in found if "/" not in file.name and not file.name.startswith(".")]

    async def _ask(self, url: str, what: str, read: "Callable[[aiohttp.ClientResponse], Any]") -> Any:
        """Return what `read` makes of the answer, None where there is nothing. Raises IndexUnreachable."""
        import aiohttp

        reason = ""
        for attempt in range(_ATTEMPTS):
            await asyncio.sleep(0.2 * attempt)
            try:
                async with self._client.get(url, headers={"Accept": _ACCEPT}, ssl=tls_context()) as answer:
                    if answer.status == 404:
                        return None
                    if answer.status < 400:
                        return await read(answer)
                    reason = f"it answered {answer.status}"
            except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
                reason = str(error) or type(error).__name__
        raise IndexUnreachable(f"`{what}` can't be had from `{Index(url).shown}`: {reason}")


async def indexed(
    environ: Mapping[str, str], wheels: Wheels, packages: Sequence[LockedPackage], interpreter: Interpreter
) -> set[str]:
    """Return the names of the packages of which an index has a locked wheel that fits; none where it can't be asked."""
    if not packages or any(environ.get(name, "").lower() in _YES for name in ("UV_OFFLINE", "UV_NO_INDEX")):
        return set()
    async with Fetcher(environ, wheels, Path()) as fetcher:
        found = await asyncio.gather(*(fetcher.has_wheel(each, interpreter) for each in packages))
    return {package.name for package, has in zip(packages, found, strict=True) if has}


def _ranked(files: Sequence[_Found], interpreter: Interpreter) -> list[tuple[int, _Found]]:
    return [(rank, file) for file in files if (rank := rank_of(file.name, interpreter)) is not None]


async def _saved(answer: "aiohttp.ClientResponse", target: Path) -> str:
    """Write an answer's body into a file and return its SHA-256. Raises OSError."""
    total = hashlib.sha256()
    with target.open("wb") as file:
        async for chunk in answer.content.iter_chunked(_CHUNK):
            total.update(chunk)
            await asyncio.to_thread(file.write, chunk)
    return total.hexdigest()


async def _files(answer: "aiohttp.ClientResponse") -> list[_Found]:
    """Return the files of an index page, in JSON (PEP 691) or HTML (PEP 503)."""
    base = str(answer.url)
    if "json" not in answer.content_type:
        page = _Page(base)
        page.feed(await answer.text())
        return page.found
    try:
        listed = (await answer.json(content_type=None))["files"]
        found = [(str(f["filename"]), urljoin(base, str(f["url"])), f.get("hashes", {})) for f in listed]
        return [_Found(name, url, str(hashes.get("sha256", ""))) for name, url, hashes in found]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise IndexUnreachable(f"`{Index(base).shown}` sent something unreadable") from None


class _Page(HTMLParser):
    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = base
        self.found: list[_Found] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href") if tag == "a" else None
        digest = re.search(r"#sha256=([0-9a-f]{64})", target or "")
        if target and digest:
            url = urljoin(self._base, target.partition("#")[0])
            self.found.append(_Found(unquote(urlsplit(url).path.rpartition("/")[2]), url, digest[1]))


def _extra_indexes(environ: Mapping[str, str]) -> list[str]:
    named = f"{environ.get('UV_INDEX', '')} {environ.get('UV_EXTRA_INDEX_URL', '')}".split()
    return [re.sub(r"^[\w-]+=", "", url) for url in named]


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
