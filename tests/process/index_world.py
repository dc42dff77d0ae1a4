"""A package index of tiny wheels on this machine's loopback."""

import asyncio
import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

__all__ = ["LocalIndex", "served", "source", "wheel"]


def wheel(name: str, version: str, requires: tuple[str, ...] = ()) -> bytes:
    """Return a wheel with one module that knows its version."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    files = {
        f"{name}.py": f'version = "{version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""])
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return content.getvalue()


def source(name: str, version: str, fails: str = "", *, told: bool = True) -> bytes:
    """Return a source archive that builds with a backend of its own, or whose build fails with these words.

    Unless it has `told` what it needs, it must be built to learn that.
    """
    backend = (
        "import zipfile\n"
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
        f"    if {fails!r}:\n"
        f"        raise RuntimeError({fails!r})\n"
        f"    info, name = '{name}-{version}.dist-info', '{name}-{version}-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(folder + '/' + name, 'w') as wheel:\n"
        f"        wheel.writestr(zipfile.ZipInfo('{name}.py'), 'version = \"{version}\"')\n"
        f"        text = 'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n'\n"
        "        wheel.writestr(zipfile.ZipInfo(info + '/METADATA'), text)\n"
        "        text = 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'\n"
        "        wheel.writestr(zipfile.ZipInfo(info + '/WHEEL'), text)\n"
        "        wheel.writestr(zipfile.ZipInfo(info + '/RECORD'), '')\n"
        "    return name\n"
    )
    project = (
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        f"[project]\nname = '{name}'\nversion = '{version}'\n"
    )
    if not told:
        project = project.replace(f"version = '{version}'", "dynamic = ['version', 'dependencies']")
    metadata = f"Metadata-Version: {'2.2' if told else '1.2'}\nName: {name}\nVersion: {version}\n"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path, text in {"PKG-INFO": metadata, "pyproject.toml": project, "backend.py": backend}.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@dataclass
class LocalIndex:
    """A package index (PEP 691, 700) that can hold its files back."""

    files: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    upload_times: bool = True
    broken: set[str] = field(default_factory=set)
    """Files whose download ends with an error of the server."""
    swapped: dict[str, bytes] = field(default_factory=dict)
    """Files that are sent with other bytes than the page says."""
    requested: list[str] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def add(self, name: str, version: str, uploaded: str, requires: tuple[str, ...] = ()) -> None:
        self.files[f"{name}-{version}-py3-none-any.whl"] = wheel(name, version, requires), uploaded

    def add_source(self, name: str, version: str, uploaded: str, fails: str = "", *, told: bool = True) -> None:
        """Add a release that has no wheel."""
        self.files[f"{name}-{version}.tar.gz"] = source(name, version, fails, told=told), uploaded

    def wrongly_recorded(self, file: str) -> tuple[str, str]:
        """Have a wheel's RECORD say a wrong digest of its module; return the wheel's old and new SHA-256."""
        content, uploaded = self.files[file]
        fresh = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(fresh, "w") as archive:
            for name in before.namelist():
                text = before.read(name)
                if name.endswith("RECORD"):
                    text = text.replace(b".py,sha256=", b".py,sha256=x")
                archive.writestr(zipfile.ZipInfo(name), text)
        self.files[file] = fresh.getvalue(), uploaded
        return hashlib.sha256(content).hexdigest(), hashlib.sha256(fresh.getvalue()).hexdigest()

    async def page(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        files = [self._entry(file) for file in self.files if file.startswith(f"{name}-")]
        if not files:
            raise web.HTTPNotFound
        page = {"meta": {"api-version": "1.1"}, "name": name, "files": files}
        return web.json_response(page, content_type="application/vnd.pypi.simple.v1+json")

    def _entry(self, file: str) -> dict[str, object]:
        content, uploaded = self.files[file]
        entry: dict[str, object] = {
            "filename": file,
            "url": f"{self.url}/files/{file}",
            "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
            "core-metadata": file.endswith(".whl"),
            "size": len(content),
        }
        return {**entry, "upload-time": f"{uploaded}T00:00:00Z"} if self.upload_times else entry

    async def file(self, request: web.Request) -> web.Response:
        name = request.match_info["file"]
        if name.endswith(".metadata"):
            name = name.removesuffix(".metadata")
            with zipfile.ZipFile(io.BytesIO(self.files[name][0])) as archive:
                return web.Response(body=archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))))
        self.requested.append(name)
        if name in self.broken:
            raise web.HTTPBadGateway
        self.asked.set()
        await self.gate.wait()
        return web.Response(body=self.swapped.get(name, self.files[name][0]))


@asynccontextmanager
async def served(index: LocalIndex) -> AsyncIterator[LocalIndex]:
    """Serve an index."""
    index.gate.set()
    app = web.Application()
    app.router.add_get("/simple/{name}/", index.page)
    app.router.add_get("/files/{file}", index.file)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    index.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield index
    finally:
        index.gate.set()
        await runner.cleanup()
