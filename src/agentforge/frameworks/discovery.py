"""Where manifests come from: shipped ones, installed packages (entry point `agentforge.frameworks`), folders.

An entry point names a package (`my_package.frameworks`) or a folder in one (`my_package:data.mine`) that holds a
`framework.toml`, or folders that do. Neither it nor anything else of the package is imported.
"""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from agentforge.errors import AgentForgeError
from agentforge.errors.frameworks import FrameworkTwice, ManifestInvalid
from agentforge.frameworks.catalogue import Broken, Catalogue, InterpreterTest, shipped_places
from agentforge.frameworks.folders import Look, look_at, manifest_folders
from agentforge.frameworks.loading import load_manifest, read_manifest
from agentforge.frameworks.manifest import Manifest

__all__ = ["GROUP", "LiveCatalogue", "Place", "installed_places"]

GROUP = "agentforge.frameworks"
SHIPPED = "shipped"
FOLDER = "folder"
_MANY = 200
"""Entries of a folder from which on a look at it is worth keeping."""
_KEPT_S = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """A folder to look for manifests in, and how it came to be looked at."""

    path: Path
    origin: str
    """`shipped`, `folder`, or the installed package: `my-package 1.0`."""
    problem: str = ""
    """Why it can't be looked at."""


Stamp = tuple[object, ...]


class LiveCatalogue:
    """The catalogue as it is now: registered folders and installed packages may come, go and change.

    A shipped manifest that can't be used is an error; any other is kept as `Broken` and harms nobody else.
    """

    def __init__(
        self,
        folders: Callable[[], Sequence[Path]],
        has_interpreter: InterpreterTest,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folders` are the registered ones of the moment."""
        self._folders = folders
        self._has_interpreter = has_interpreter
        self._clock = clock
        self._looks: dict[Path, tuple[float, Look]] = {}
        self._kept: dict[Path, tuple[Stamp, Manifest]] = {}
        self._shipped = [
            (load_manifest(each), SHIPPED) for place in shipped_places() for each in manifest_folders(place)
        ]
        self._stamp: Stamp | None = None
        self._catalogue: Catalogue

    def current(self) -> Catalogue:
        """Return the catalogue, read anew if anything has changed. Raises FrameworkTwice for shipped ones.

        Folders with many files are looked at once a second.
        """
        registered = [Place(folder, FOLDER) for folder in self._folders()]
        stamp = (*(self._looked_at(place.path).stamp for place in registered), *_installed_stamp())
        if stamp != self._stamp:
            self._catalogue = self._read([*registered, *installed_places()])
            self._stamp = stamp
        return self._catalogue

    def _looked_at(self, folder: Path) -> Look:
        now = self._clock()
        known = self._looks.get(folder)
        if known is None or known[1].entries < _MANY or not 0 <= now - known[0] < _KEPT_S:
            known = self._looks[folder] = (now, look_at(folder))
        return known[1]

    def _read(self, places: Iterable[Place]) -> Catalogue:
        found = list(self._shipped)
        broken: list[Broken] = []
        taken = {manifest.name: manifest for manifest, _ in found}
        for place in places:
            for folder in [place.path] if place.problem else manifest_folders(place.path):
                try:
                    manifest = self._load(folder, place)
                    if manifest.name in taken:
                        raise twice(taken[manifest.name], manifest)
                except AgentForgeError as error:
                    broken.append(Broken(_named(folder), folder, place.origin, error))
                    continue
                taken[manifest.name] = manifest
                found.append((manifest, place.origin))
        origins = {manifest.name: origin for manifest, origin in found}
        return Catalogue((each for each, _ in found), self._has_interpreter, origins, broken)

    def _load(self, folder: Path, place: Place) -> Manifest:
        if place.problem:
            raise ManifestInvalid(place.problem, file=str(folder), key="", reason=place.problem)
        stamp = look_at(folder).stamp
        known = self._kept.get(folder)
        if known is None or known[0] != stamp:
            known = self._kept[folder] = (stamp, load_manifest(folder))
        return known[1]


def twice(first: Manifest, second: Manifest) -> FrameworkTwice:
    """Return the error for two manifests of one name."""
    return FrameworkTwice(
        f"Two folders describe the framework `{first.name}`: `{first.folder}` and `{second.folder}`",
        name=first.name,
    )


def installed_places() -> Iterator[Place]:
    """Yield what installed packages offer, by the package's name."""
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda each: (str(each.value), each.name)):
        origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "a package"
        path = _location(entry)
        if path is None:
            problem = f"The entry point `{entry.name} = {entry.value}` of {origin} leads to no folder"
            yield Place(Path(entry.name), origin, problem)
        else:
            yield Place(path, origin)


def _location(entry: metadata.EntryPoint) -> Path | None:
    """Return the folder that an entry point names, without importing anything of it."""
    module, _, inside = entry.value.partition(":")
    top, *below = module.strip().split(".")
    parts = [*below, *(part for part in inside.strip().split(".") if part)]
    places = [Path(str(entry.dist.locate_file(top)))] if entry.dist is not None else []
    try:
        spec = importlib.util.find_spec(top)  # of a top-level name: found, not imported
    except (ImportError, ValueError):
        spec = None
    places += [Path(each) for each in (spec.submodule_search_locations or ())] if spec is not None else []
    return next((found for place in places if (found := place.joinpath(*parts)).is_dir()), None)


def _installed_stamp() -> Stamp:
    return tuple(_modified(Path(each)) for each in sys.path if each)


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _named(folder: Path) -> str:
    """Return the name of a framework whose manifest can't be used, as far as it can be told."""
    try:
        name = read_manifest(folder).data.get("name")
    except ManifestInvalid:
        name = None
    return name if isinstance(name, str) and name else folder.name
