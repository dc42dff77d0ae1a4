"""Bundles of environments: exported with an index, built without any; whatever is wrong with a file takes nothing."""

import hashlib
import io
import json
import os
import struct
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agentforge.environments import (
    EnvironmentRequest,
    Environments,
    Exported,
    Interpreters,
    Lock,
    LockedPackage,
    LockEntry,
)
from agentforge.environments.fetching import indexed
from agentforge.environments.home import Home
from agentforge.environments.interpreters import Interpreter, host_interpreter
from agentforge.environments.uv import Uv
from agentforge.environments.wheels import Wheels
from agentforge.errors import AgentForgeError
from agentforge.errors.keeping import BundleInvalid, BundleTooNew, BundleUnfit

from .index_world import LocalIndex, served, wheel
from .kit_world import write_kit, write_library
from .project_world import Project, open_project

SERIES = f"{sys.version_info.major}.{sys.version_info.minor}"
NOWHERE = "http://127.0.0.1:1/simple"


def stocked() -> LocalIndex:
    index = LocalIndex()
    index.add("kit", "1.1", "2024-02-10", ("companion", "archived"))
    index.add("companion", "1.0", "2024-01-12")
    index.add("companion", "2.0", "2024-01-13")
    index.add_source("companion", "2.0", "2024-01-13")  # as most packages: the lock has a hash of each of both
    index.add_source("archived", "1.0", "2024-01-12")
    return index


@pytest.fixture
async def index() -> AsyncIterator[LocalIndex]:
    async with served(stocked()) as index:
        yield index


def connect(project: Project, index: LocalIndex, folder: Path) -> Project:
    """Give a project a framework, a local package, and an index that answers."""
    project.variables |= {
        "UV_DEFAULT_INDEX": f"{index.url}/simple",
        "UV_CACHE_DIR": str(folder / "uv"),
        "UV_HTTP_RETRIES": "0",
        "AGENTFORGE_HOME": str(folder / "home"),
    }
    write_kit(project.root / "frameworks/kit")
    write_library(project.root / "mylib", "from afar")
    project.write(
        "agentforge.toml",
        '[catalogue]\nfolders = ["frameworks/kit"]\n[frameworks.kit]\nrequirements = ["./mylib"]\n'
        '[tools]\nrequirements = ["companion==1.0"]\n',
    )
    return project


@pytest.fixture
def connected(project: Project, index: LocalIndex, tmp_path: Path) -> Project:
    return connect(project, index, tmp_path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A bundle as the command writes it."""
    folder = tmp_path_factory.mktemp("exported")
    async with served(stocked()) as index, open_project(folder / "project") as project:
        return (await exported(connect(project, index, folder))).read_bytes()


async def exported(project: Project, name: str = "bundle.afenv", *references: str) -> Path:
    done = await project.command("env", "export", *(references or ("kit==1.1", "tools")), "-o", name, "--json")
    assert done.code == 0, done
    assert done.result["file"] == str(project.root / name)
    return project.root / name


@pytest.mark.feature("AF-003")
async def test_an_exported_environment_is_built_where_no_index_can_be_reached(
    connected: Project, index: LocalIndex, tmp_path: Path
) -> None:
    bundle = await exported(connected)
    async with open_project(tmp_path / "island") as island:
        write_kit(island.root / "frameworks/kit")
        island.write("agentforge.toml", (connected.root / "agentforge.toml").read_text())
        write_library(island.root / "mylib", "from afar")
        island.variables |= {
            **connected.variables,
            "UV_DEFAULT_INDEX": NOWHERE,
            "UV_CACHE_DIR": str(tmp_path / "empty"),
            "AGENTFORGE_HOME": str(tmp_path / "far"),
            "OPENAI_BASE_URL": island.model.base_url,
        }
        before = await island.command("env", "build", "kit==1.1")
        assert (before.code, "error[AF303]" in before.err) == (1, True), "there is no index"
        asked = len(index.requested)
        done = await island.command("env", "import", str(bundle), "--json")
        assert done.code == 0, done
        assert [(each["request"], each["pinned"]) for each in done.objects] == [("kit==1.1", True), ("tools", True)]
        assert len(index.requested) == asked
        assert done.objects[0]["built"] == ["archived 1.0"]
        result = await island.run(island.agent(), "report", "--on", "kit==1.1")
        assert result["status"] == "succeeded", result["error"]
        report = json.loads(result["output"])
        assert report["installed"] == {"kit": "1.1", "companion": "2.0", "archived": "1.0", "mylib": "0.1"}
        assert report["mylib"] == "from afar"
        again = await island.command("env", "import", str(bundle), "--json")
        assert again.objects == done.objects
        await island.stop()
        for each in (tmp_path / "far/environments").iterdir():
            if not each.name.startswith("."):
                for path in sorted(each.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
                each.rmdir()
        rebuilt = await island.command("env", "build", "kit==1.1")
        assert rebuilt.code == 0, rebuilt


async def test_the_same_environments_give_the_same_file(connected: Project, tmp_path: Path) -> None:
    first = await exported(connected, "first.afenv")
    second = await exported(connected, "second.afenv", "tools", "kit==1.1")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = [info.filename for info in archive.infolist()]
        manifest = json.loads(archive.read("manifest.json"))
    assert names == ["manifest.json", *sorted(names[1:])]
    assert [each["request"] for each in manifest["environments"]] == ["kit==1.1", "tools"]
    (kit, _) = manifest["environments"]
    assert [(each["name"], each["version"], each["source"] is not None) for each in kit["packages"]] == [
        ("archived", "1.0", True), ("companion", "2.0", False), ("kit", "1.1", False), ("mylib", "0.1", False),
    ]  # fmt: skip
    assert "http" not in json.dumps(manifest)


async def test_a_project_that_pins_another_lock_keeps_it(connected: Project, index: LocalIndex, tmp_path: Path) -> None:
    bundle = await exported(connected, "bundle.afenv", "tools")
    before = (connected.root / "agentforge.lock").read_text()
    async with open_project(tmp_path / "other") as other:
        other.variables |= {**connected.variables, "AGENTFORGE_HOME": str(tmp_path / "far")}
        other.write("agentforge.toml", '[tools]\nrequirements = ["companion==1.0"]\n')
        (other.root / "agentforge.lock").write_text(before)
        text = (other.root / "agentforge.lock").read_text()
        lock = json.loads(zipfile.ZipFile(bundle).read("manifest.json"))["environments"][0]["lock"]
        (other.root / "agentforge.lock").write_text(text.replace(lock, "0" * 64))
        changed = (other.root / "agentforge.lock").read_text()
        done = await other.command("env", "import", str(bundle), "--json")
        assert (done.code, done.objects[0]["pinned"]) == (0, False), done
        assert "pins another lock" in done.err
        assert (other.root / "agentforge.lock").read_text() == changed


async def test_what_can_not_be_exported_is_told(connected: Project, index: LocalIndex) -> None:
    await exported(connected)
    file = connected.root / "bundle.afenv"
    before = file.read_bytes()
    for target, words in [("nowhere/b.afenv", "There is no folder"), ("frameworks", "is a folder")]:
        refused = await connected.command("env", "export", "kit==1.1", "-o", target)
        assert (refused.code, "error[AF336]" in refused.err, words in refused.err) == (1, True, True), refused
    wheel = "kit-1.1-py3-none-any.whl"
    kept = index.files.pop(wheel)
    refused = await connected.command("env", "export", "kit==1.1", "-o", "bundle.afenv")
    assert (refused.code, "error[AF335]" in refused.err, "`kit` 1.1" in refused.err) == (1, True, True), refused
    index.files[wheel] = b"other bytes", kept[1]
    refused = await connected.command("env", "export", "kit==1.1", "-o", "bundle.afenv")
    assert (refused.code, "error[AF335]" in refused.err) == (1, True), "it has another hash now"
    index.files[wheel], index.swapped[wheel] = kept, b"other bytes"
    refused = await connected.command("env", "export", "kit==1.1", "-o", "bundle.afenv")
    assert (refused.code, "error[AF307]" in refused.err, wheel in refused.err) == (1, True, True), refused
    unknown = await connected.command("env", "export", "kit==9.9", "-o", "bundle.afenv")
    assert (unknown.code, "error[AF20" in unknown.err) == (1, True), unknown
    assert file.read_bytes() == before
    assert [each.name for each in connected.root.iterdir() if each.name.startswith(".bundle")] == []


# ---- files that somebody has changed


def entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def packed(parts: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in parts.items():
            info = zipfile.ZipInfo(name)
            change(info)
            archive.writestr(info, data)
    return content.getvalue()


def said(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    parts = entries(data)
    manifest = json.loads(parts["manifest.json"])
    change(manifest)
    return packed({**parts, "manifest.json": json.dumps(manifest).encode()})


def a_wheel(data: bytes) -> str:
    return next(name for name in entries(data) if "companion" in name)


def with_entry(name: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        parts = {**entries(data), name: b"x"}
        manifest = json.loads(parts["manifest.json"])
        manifest["entries"][name] = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}
        return packed({**parts, "manifest.json": json.dumps(manifest).encode()})

    return change


def other_wheel(data: bytes) -> bytes:
    """A wheel of other bytes, and a manifest that says so: the lock still does not name it."""
    parts = entries(data)
    old = a_wheel(data)
    content = parts.pop(old) + b"evil"
    digest = hashlib.sha256(content).hexdigest()
    new = f"wheels/{digest}/{old.rpartition('/')[2]}"
    text = parts.pop("manifest.json").decode().replace(old, new)
    manifest = json.loads(text)
    manifest["entries"][new] = {"sha256": digest, "size": len(content)}
    return packed({"manifest.json": json.dumps(manifest).encode(), **parts, new: content})


def flipped(data: bytes) -> bytes:
    place = data.index(entries(data)[a_wheel(data)])
    return data[: place + 60] + bytes([data[place + 60] ^ 1]) + data[place + 61 :]


def flipped_unnoticed(data: bytes) -> bytes:
    """Another byte in a wheel, and the zip's own check sum made to fit."""
    parts = entries(data)
    name = a_wheel(data)
    return packed({**parts, name: parts[name][:-1] + bytes([parts[name][-1] ^ 1])})


def deflated(data: bytes) -> bytes:
    def change(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_DEFLATED

    return packed(entries(data), change)


def linked(data: bytes) -> bytes:
    def change(info: zipfile.ZipInfo) -> None:
        info.external_attr = 0o120777 << 16

    return packed(entries(data), change)


def twice(data: bytes) -> bytes:
    content = io.BytesIO(data)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(content, "a") as archive:
        archive.writestr(zipfile.ZipInfo(a_wheel(data)), b"x")
    return content.getvalue()


def bad_length(data: bytes) -> bytes:
    """The central directory says that the manifest is longer than it is."""
    place = data.index(b"PK\x01\x02")
    return data[: place + 20] + struct.pack("<LL", 10**6, 10**6) + data[place + 28 :]


def a_package_less(data: bytes) -> bytes:
    parts = entries(data)
    manifest = json.loads(parts["manifest.json"])
    (gone,) = [each for each in manifest["environments"][0]["packages"] if each["name"] == "kit"]
    manifest["environments"][0]["packages"].remove(gone)
    del manifest["entries"][gone["wheel"]], parts[gone["wheel"]]
    return packed({**parts, "manifest.json": json.dumps(manifest).encode()})


def first(**changes: str) -> Callable[[bytes], bytes]:
    """Have the first environment, which is that of kit 1.1, say otherwise."""
    return lambda data: said(data, lambda manifest: manifest["environments"][0].update(changes))


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], type[AgentForgeError]]] = {
    "empty": (lambda data: b"", BundleInvalid),
    "no zip": (lambda data: b"not a zip at all" * 100, BundleInvalid),
    "half": (lambda data: data[: len(data) // 2], BundleInvalid),
    "without its last byte": (lambda data: data[:-1], BundleInvalid),
    "without its beginning": (lambda data: data[100:], BundleInvalid),
    "a bit flipped": (flipped, BundleInvalid),
    "a bit flipped and summed anew": (flipped_unnoticed, BundleInvalid),
    "wheel swapped": (other_wheel, BundleInvalid),
    "path upwards": (with_entry("wheels/../../../evil.whl"), BundleInvalid),
    "absolute path": (with_entry("/tmp/evil.whl"), BundleInvalid),
    "back slashes": (with_entry("wheels\\..\\evil.whl"), BundleInvalid),
    "other kind of file": (with_entry("locks/run.sh"), BundleInvalid),
    "wheel that nobody needs, upwards": (with_entry(f"wheels/{'a' * 64}/..whl"), BundleInvalid),
    "entry without manifest": (lambda data: packed({**entries(data), f"locks/{'a' * 64}.txt": b""}), BundleInvalid),
    "without manifest": (lambda d: packed({k: v for k, v in entries(d).items() if k[0] != "m"}), BundleInvalid),
    "manifest is no JSON": (lambda d: packed({**entries(d), "manifest.json": b"{"}), BundleInvalid),
    "deflated": (deflated, BundleInvalid),
    "symlinks": (linked, BundleInvalid),
    "an entry twice": (twice, BundleInvalid),
    "a wrong length": (bad_length, BundleInvalid),
    "another format": (lambda d: said(d, lambda m: m.update(format="agentforge-run")), BundleInvalid),
    "no version": (lambda d: said(d, lambda m: m.update(version=0)), BundleInvalid),
    "a key too many": (lambda d: said(d, lambda m: m.update(more=1)), BundleInvalid),
    "a later version": (lambda d: said(d, lambda m: m.update(version=2)), BundleTooNew),
    "no Python range": (lambda d: said(d, lambda m: m["environments"][0].update(python="three")), BundleInvalid),
    "no version of Python": (
        lambda d: said(d, lambda m: m["environments"][0].update(python_version="x")),
        BundleInvalid,
    ),
    "another lock": (lambda d: said(d, lambda m: m["environments"][0].update(lock="f" * 64)), BundleInvalid),
    "a package less": (a_package_less, BundleUnfit),
    "a wheel that nobody needs": (lambda d: said(d, lambda m: m["environments"][0].update(packages=[])), BundleInvalid),
    "another Python": (lambda d: said(d, lambda m: m["environments"][0].update(python_version="3.8.1")), BundleUnfit),
}


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def refusal_of(environments: Environments, file: Path) -> tuple[type[AgentForgeError], bool] | None:
    """Return how a file is refused, and whether there is a hint; None if it is taken."""
    try:
        environments.moving.take(file)
    except AgentForgeError as error:
        return type(error), bool(error.hint)
    return None


async def test_a_file_that_was_changed_is_refused_and_nothing_is_taken(bundle: bytes, tmp_path: Path) -> None:
    assert entries(bundle)
    for name, (change, kind) in DAMAGE.items():
        file = tmp_path / "damaged.afenv"
        file.write_bytes(change(bundle))
        environments = Environments(tmp_path / "far")
        assert refusal_of(environments, file) == (kind, True), name
        assert below(tmp_path / "far") == set(), name
    file.write_bytes(bundle)
    assert [each.entry.request for each in Environments(tmp_path / "far").moving.take(file)] == ["kit==1.1", "tools"]
    assert len(below(tmp_path / "far")) > 5


async def test_the_command_says_what_is_wrong_with_a_file(connected: Project, bundle: bytes) -> None:
    connected.root.joinpath("cut.afenv").write_bytes(bundle[:1000])
    connected.root.joinpath("evil.afenv").write_bytes(first(framework="../../etc")(bundle))
    for file, code in [("cut.afenv", "AF332"), ("none.afenv", "AF332"), ("evil.afenv", "AF"), (".", "AF332")]:
        done = await connected.command("env", "import", file)
        assert (done.code, f"error[{code}" in done.err, "hint:" in done.err) == (1, True, True), done
    assert not (connected.root / "agentforge.lock").exists()
    assert not (Path(connected.variables["AGENTFORGE_HOME"]) / "wheels").exists()


async def test_a_bundle_pins_a_request_only_to_what_it_asks_for(connected: Project, bundle: bytes) -> None:
    for changes in (
        {"request": "python"},
        {"request": "kit==1.0"},
        {"request": "kit@2"},
        {"request": "tools"},
        {"request": "kit==1.1; x"},
        {"framework": "python", "release": "3.11", "request": "kit==1.1"},
        {"framework": "python", "release": "3.9", "request": "python@3.9"},
        {"framework": "tools", "release": ""},
    ):
        connected.root.joinpath("evil.afenv").write_bytes(first(**changes)(bundle))
        done = await connected.command("env", "import", "evil.afenv", "--no-build")
        assert (done.code, "error[AF" in done.err, "hint:" in done.err) == (1, True, True), (changes, done)
        assert not (connected.root / "agentforge.lock").exists(), changes
    connected.root.joinpath("good.afenv").write_bytes(first(request="kit@1")(bundle))
    done = await connected.command("env", "import", "good.afenv", "--no-build")
    assert done.code == 0, done


async def test_a_wheel_that_a_bundle_built_takes_no_place_of_a_locked_one_of_the_index(
    index: LocalIndex, tmp_path: Path
) -> None:
    """The very lock of a project, with a wheel of other bytes for the source archive that the lock names, too."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_HTTP_RETRIES": "0"}
    reached = {**environ, "UV_DEFAULT_INDEX": f"{index.url}/simple", "UV_CACHE_DIR": str(tmp_path / "uv")}
    lock = await Environments(tmp_path / "near", environ=reached).lock_tools(SERIES, ["companion==2.0"])
    archive = hashlib.sha256(index.files["companion-2.0.tar.gz"][0]).hexdigest()
    doctored = wheel("companion", "2.0", ("nothing ; extra == 'no'",))
    file = tmp_path / "evil.afenv"
    file.write_bytes(bundle_of("companion", "2.0", lock.text.encode(), doctored, archive))
    request = EnvironmentRequest.for_tools(lock, SERIES)
    for home, index_of, stolen in [("far", reached, False), ("island", {**environ, "UV_DEFAULT_INDEX": NOWHERE}, True)]:
        environments = Environments(tmp_path / home, environ={**index_of, "UV_CACHE_DIR": str(tmp_path / f"uv-{home}")})
        environments.moving.take(file)
        built = await environments.ensure(request)
        (metadata,) = built.path.glob("venv/lib/python*/site-packages/companion-2.0.dist-info/METADATA")
        assert ("nothing" in metadata.read_text()) is stolen, home
        target = tmp_path / f"{home}.afenv"
        await environments.moving.export([Exported(entry_of(lock), request)], target, lambda _: None)
        (package,) = json.loads(entries(target.read_bytes())["manifest.json"])["environments"][0]["packages"]
        assert package["source"] == (archive if stolen else None), home


async def test_no_index_is_asked_of_which_uv_may_know_nothing(index: LocalIndex, tmp_path: Path) -> None:
    wheels = Wheels(Home(tmp_path), Uv())
    digest = hashlib.sha256(index.files["companion-2.0-py3-none-any.whl"][0]).hexdigest()
    packages = [LockedPackage("companion", "2.0", hashes=(digest,)), LockedPackage("archived", "1.0", hashes=("0",))]
    for variables, found in [
        ({}, {"companion"}),
        ({"UV_OFFLINE": "1"}, set()),
        ({"UV_NO_INDEX": "true"}, set()),
        ({"UV_DEFAULT_INDEX": NOWHERE}, set()),
        ({"UV_DEFAULT_INDEX": tmp_path.as_uri()}, set()),
    ]:
        environ = {"UV_DEFAULT_INDEX": f"{index.url}/simple", **variables}
        assert await indexed(environ, wheels, packages, host_interpreter()) == found, variables


def entry_of(lock: Lock) -> LockEntry:
    return LockEntry("tools", "tools", "", SERIES, lock.digest, (), lock.text)


class OtherPython(Interpreters):
    """A machine with another Python than the one that the bundle was written for."""

    def find(self, python: str) -> Interpreter:
        return Interpreter(Path(sys.executable), "3.9.2")


async def test_a_bundle_for_another_python_or_platform_is_refused(bundle: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bundle.afenv"
    file.write_bytes(bundle)
    with pytest.raises(BundleUnfit, match=rf"Python {SERIES}.*3\.9\.2") as refused:
        Environments(tmp_path / "far", interpreters=OtherPython()).moving.take(file)
    assert SERIES in refused.value.hint
    renamed = {k.replace("n-2.0-py3-none-any", "n-2.0-py3-none-mac"): v for k, v in entries(bundle).items()}
    manifest = renamed["manifest.json"].replace(b"n-2.0-py3-none-any", b"n-2.0-py3-none-mac")
    file.write_bytes(packed({**renamed, "manifest.json": manifest}))
    with pytest.raises(BundleUnfit, match=r"companion-2\.0-py3-none-mac\.whl"):
        Environments(tmp_path / "far").moving.take(file)
    assert below(tmp_path / "far") == set()


def test_a_full_disk_at_an_import_takes_nothing(tmp_path: Path) -> None:
    """Planted: the disk says no in the middle of the wheels (a file may not be larger than this)."""
    import resource
    import subprocess

    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from agentforge.environments import Environments\n"
        "from agentforge.errors.environments import DiskFull\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        "    Environments(Path(sys.argv[1])).moving.take(Path(sys.argv[2]))\n"
        "except DiskFull as error:\n"
        "    print(error.message)\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    file = tmp_path / "large.afenv"
    file.write_bytes(large_bundle())
    command = [sys.executable, "-c", code, str(tmp_path / "far"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    assert "The disk is full" in done.stdout, done
    assert below(tmp_path / "far") == set()


def large_bundle() -> bytes:
    """A bundle of one environment with one wheel of 100 kB."""
    content = b"x" * 100_000
    lock = f"big==1.0 \\\n    --hash=sha256:{hashlib.sha256(content).hexdigest()}\n".encode()
    return bundle_of("big", "1.0", lock, content)


def bundle_of(package: str, version: str, lock: bytes, content: bytes, source: str | None = None) -> bytes:
    """A bundle of one tool environment with one wheel."""
    digest = hashlib.sha256(content).hexdigest()
    name, entry = hashlib.sha256(lock).hexdigest(), f"wheels/{digest}/{package}-{version}-py3-none-any.whl"
    parts = {f"locks/{name}.txt": lock, entry: content}
    manifest = {
        "format": "agentforge-environments", "version": 1, "written_by": "0", "platform": "any",
        "environments": [
            {
                "request": "tools", "framework": "tools", "release": "", "python": SERIES, "lock": name,
                "python_version": f"{SERIES}.0", "requirements": [],
                "packages": [{"name": package, "version": version, "wheel": entry, "source": source}],
            }
        ],
        "entries": {k: {"sha256": hashlib.sha256(v).hexdigest(), "size": len(v)} for k, v in parts.items()},
    }  # fmt: skip
    return packed({"manifest.json": json.dumps(manifest).encode(), **parts})
