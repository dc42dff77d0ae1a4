"""The files of an agent version: what its worker sees, frozen when the run is submitted.

The default is the agent file's whole folder without what is plainly not the agent's: hidden files, state, virtual
environments, caches. `files:` in the agent file replaces that by patterns; the code of its tools, with the local
modules they import, always belongs to it. An agent without code of its own is its file alone.
"""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock
from types import MappingProxyType

from agentforge.config.agent import AgentDefinition
from agentforge.config.code import local_modules, module_files
from agentforge.config.locate import PROJECT_FILE, PROJECT_LOCK
from agentforge.config.reading import FileVersion, file_version, version_of
from agentforge.config.source import Problem, fault
from agentforge.errors.config import FileMissingError, InvalidValueError, SnapshotTooLargeError

__all__ = ["MAX_BYTES", "MAX_FILES", "AgentSnapshot", "snapshot"]

MAX_FILES = 1000
MAX_BYTES = 16 * 1024 * 1024
CACHED_SNAPSHOTS = 32
_LEFT_OUT_FOLDERS = frozenset({"__pycache__", "node_modules"})
_LEFT_OUT_FILES = frozenset({PROJECT_FILE, PROJECT_LOCK})
_LEFT_OUT_ENDINGS = (".pyc", ".pyo")
_VENV_MARK = "pyvenv.cfg"

Versions = dict[str, FileVersion]


@dataclass(frozen=True, slots=True)
class AgentSnapshot:
    """Files by relative posix path, and the digest (sha256) over names and contents."""

    files: Mapping[str, bytes]
    digest: str


_cache: OrderedDict[Path, tuple[Versions, AgentSnapshot]] = OrderedDict()
_cache_lock = Lock()


def snapshot(definition: AgentDefinition) -> AgentSnapshot:
    """Return the files of an agent. Raises SnapshotTooLargeError, InvalidValueError for a pattern without a file.

    A second snapshot of an unchanged folder reads no file and returns the same object.
    """
    root = definition.base_dir
    versions = _versions(definition)
    key = definition.path or root
    with _cache_lock:
        known, last = _cache.get(key, ({}, None))
    if last is not None and known == versions:
        return last
    kept = last.files if last is not None else {}
    files = {
        name: kept[name] if known.get(name) == version else _read(root / name) for name, version in versions.items()
    }
    taken = AgentSnapshot(MappingProxyType(files), _digest(files))
    _remember(key, versions, taken)
    return taken


def _remember(key: Path, versions: Versions, taken: AgentSnapshot) -> None:
    with _cache_lock:
        _cache[key] = (versions, taken)
        _cache.move_to_end(key)
        while len(_cache) > CACHED_SNAPSHOTS:
            _cache.popitem(last=False)


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{hashlib.sha256(content).hexdigest()} {name}\n".encode())
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileMissingError(
            f"`{path}` belongs to the agent and can't be read: {error.strerror}",
            hint="Make it readable, or list the agent's `files` without it.",
            file=str(path),
        ) from None


def _versions(definition: AgentDefinition) -> Versions:
    """Return the agent's files with their versions, sorted by name."""
    count = _Count(definition)
    if definition.file.files is not None or not (definition.functions or definition.is_native):
        for name in _chosen(definition):
            count.add(name, file_version(definition.base_dir / name))
    else:
        for name, version in _walk(definition.base_dir, ""):
            count.add(name, version)
    return dict(sorted(count.versions.items()))


class _Count:
    """Collects files and stops at the limits before anything is read."""

    def __init__(self, definition: AgentDefinition) -> None:
        self._definition = definition
        self._bytes = 0
        self.versions: Versions = {}

    def add(self, name: str, version: FileVersion) -> None:
        self.versions[name] = version
        self._bytes += version[2]
        if len(self.versions) > MAX_FILES:
            raise self._too_large(f"more than {MAX_FILES} files")
        if self._bytes > MAX_BYTES:
            raise self._too_large(f"more than {MAX_BYTES // 1024**2} MiB")

    def _too_large(self, what: str) -> SnapshotTooLargeError:
        folder = self._definition.base_dir
        if self._definition.file.files is not None:
            return SnapshotTooLargeError(
                f"`files` of the agent `{self._definition.name}` match {what} in `{folder}`",
                hint="Narrow the patterns.",
                folder=str(folder),
            )
        return SnapshotTooLargeError(
            f"the folder `{folder}` of the agent `{self._definition.name}` holds {what}",
            hint='List what belongs to the agent in its file, for example `files: ["*.py", "data/*.csv"]`,'
            " or give it a folder of its own.",
            folder=str(folder),
        )


def _walk(root: Path, prefix: str) -> Iterator[tuple[str, FileVersion]]:
    """Yield the files below a folder. Links to files count as files; links to folders are not followed."""
    try:
        entries = list(os.scandir(root / prefix if prefix else root))
    except PermissionError:
        return
    if prefix and any(entry.name == _VENV_MARK for entry in entries):
        return
    for entry in entries:
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            if not _left_out_folder(entry.name):
                yield from _walk(root, name + "/")
        elif not _left_out_file(entry.name) and entry.is_file():
            yield name, version_of(entry.stat())


def _left_out_folder(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_OUT_FOLDERS


def _left_out_file(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_OUT_FILES or name.endswith(_LEFT_OUT_ENDINGS)


def _chosen(definition: AgentDefinition) -> set[str]:
    """Return the agent file, what `files` match, and the code of tools and entry point."""
    root = definition.base_dir
    names = local_modules(root, _code(definition))
    if definition.path is not None:
        names.add(definition.path.name)
    problems = []
    for index, pattern in enumerate(definition.file.files or ()):
        matched = set(_matching(root, pattern))
        names |= matched
        if not matched:
            place = definition.source.value_place(("files", index))
            statement = f"`files[{index}]` is `{pattern}`, which matches no file in `{root}`"
            hint = "Correct the pattern or remove it; `**/` stands for any folders."
            problems.append(Problem(InvalidValueError, place, f"files[{index}]", statement, hint))
    if problems:
        raise fault(problems)
    return names


def _code(definition: AgentDefinition) -> Iterator[str]:
    yield from (tool.file for tool in definition.functions)
    if definition.file.native is not None:
        yield from module_files(definition.base_dir, definition.file.native.entrypoint.partition(":")[0])


def _matching(root: Path, pattern: str) -> Iterator[str]:
    """Yield the files that a pattern matches; what is hidden must be named, `*` does not reach it."""
    named = {part for part in pattern.split("/") if part.startswith(".")}
    for path in root.glob(pattern):
        name = PurePosixPath(path.relative_to(root))
        folders = [part for part in name.parent.parts if part not in named]
        hidden = name.name not in named and _left_out_file(name.name)
        if not hidden and not any(map(_left_out_folder, folders)) and path.is_file():
            yield str(name)
