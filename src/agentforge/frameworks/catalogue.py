"""The catalogue: all frameworks that this installation knows, and the way from a reference to a release."""

import difflib
import importlib.util
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from agentforge.errors import AgentForgeError
from agentforge.errors.frameworks import FrameworkTwice, FrameworkUnknown, ReleaseUnknown, SeriesUnknown
from agentforge.frameworks.folders import manifest_folders
from agentforge.frameworks.loading import load_manifest
from agentforge.frameworks.manifest import Manifest, ReleaseRange, TestedRelease
from agentforge.frameworks.release import Reference, Release

__all__ = ["Broken", "Catalogue", "InterpreterTest", "shipped_places"]

InterpreterTest = Callable[[str], bool]
"""Whether this machine has a Python in a version range (`==3.12.*`)."""

_SHIPPED = "agentforge_adapters"


def _host_is(python: str) -> bool:
    return SpecifierSet(python).contains(platform.python_version(), prereleases=True)


@dataclass(frozen=True, slots=True)
class Broken:
    """A framework that was found and can't be used."""

    name: str
    folder: Path
    origin: str
    error: AgentForgeError


class Catalogue:
    """Manifests by name. Immutable: `LiveCatalogue` makes a new one when something changes."""

    def __init__(
        self,
        manifests: Iterable[Manifest],
        has_interpreter: InterpreterTest = _host_is,
        origins: Mapping[str, str] | None = None,
        broken: Sequence[Broken] = (),
    ) -> None:
        """`origins` says where a framework comes from, by its name."""
        self._manifests = _by_name(manifests)
        self._has_interpreter = has_interpreter
        self._origins = origins or {}
        self.broken = tuple(broken)
        """What was found and can't be used."""

    def current(self) -> "Catalogue":
        """Return this catalogue, as `LiveCatalogue` returns that of the moment."""
        return self

    def origin(self, name: str) -> str:
        """Return where a framework comes from: `shipped`, `folder`, or the package that brought it."""
        return self._origins.get(name, "shipped")

    @classmethod
    def discover(
        cls,
        extra: Sequence[Path] = (),
        has_interpreter: InterpreterTest = _host_is,
        *,
        check_files: bool = True,
    ) -> "Catalogue":
        """Read the shipped manifests and those in `extra` (manifest folders, or folders of them).

        `has_interpreter` decides between releases that are interpreter series (the `python` framework); without
        it only the host's own Python counts. `check_files=False` is for the program that writes the locks.
        Raises ManifestInvalid, FrameworkTwice.
        """
        folders = (folder for place in (*shipped_places(), *extra) for folder in manifest_folders(place))
        return cls((load_manifest(folder, check_files=check_files) for folder in folders), has_interpreter)

    def names(self) -> tuple[str, ...]:
        """Names of all frameworks, sorted."""
        return tuple(self._manifests)

    def get(self, name: str) -> Manifest:
        """Return a framework's manifest. Raises FrameworkUnknown with the nearest name."""
        try:
            return self._manifests[name]
        except KeyError:
            pass
        for each in self.broken:
            if each.name == name:
                raise each.error
        known = self.names()
        near = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1, cutoff=0.6)
        raise FrameworkUnknown(
            f"There is no framework `{name}`; known are {_listed(known)}",
            hint=f"Did you mean `{near[0]}`?" if near else None,
            known=list(known),
        )

    def releases(self, name: str) -> tuple[Release, ...]:
        """Return the tested releases of a framework, newest first."""
        manifest = self.get(name)
        return tuple(_release(manifest, *pair) for pair in _tested(manifest))

    def __contains__(self, manifest: Manifest) -> bool:
        """Whether a manifest is still the one of its framework."""
        return self._manifests.get(manifest.name) is manifest

    def covering(self, ref: str) -> tuple[Reference, Manifest]:
        """Return a reference with the framework that it names. Raises ReferenceInvalid, FrameworkUnknown."""
        reference = Reference.parse(ref)
        return reference, self.get(reference.name)

    def resolve(self, ref: str, pinned: str | None = None) -> Release:
        """Return the release that a reference means.

        A name or a series means its newest tested release, or `pinned` (the version in the project's lock) where
        that fits the reference; `==V` means V itself, tested or not. Raises ReferenceInvalid, FrameworkUnknown,
        SeriesUnknown, ReleaseUnknown.
        """
        reference = Reference.parse(ref)
        manifest = self.get(reference.name)
        if reference.version is not None:
            return self._exact(manifest, reference.version)
        if pinned is not None and reference.admits(pinned):
            return self._exact(manifest, pinned)
        return self._newest(manifest, reference)

    def _exact(self, manifest: Manifest, version: str) -> Release:
        for releases, tested in _tested(manifest):
            if Version(tested.version) == Version(version):
                return _release(manifest, releases, tested)
        for releases in manifest.releases:
            if releases.contains(version):
                return _release(manifest, releases, None, version)
        ranges = _listed([releases.versions for releases in manifest.releases])
        raise ReleaseUnknown(
            f"There is no adapter for {manifest.name} `{version}`; the versions it covers are {ranges}",
            hint=f"`agentforge framework show {manifest.name}` lists the tested releases.",
        )

    def _newest(self, manifest: Manifest, reference: Reference) -> Release:
        found = [_release(manifest, *pair) for pair in _tested(manifest) if reference.admits(pair[1].version)]
        if not found:
            _raise_series_unknown(manifest, reference)
        runnable = (r for r in found if r.distribution or self._has_interpreter(r.python))
        return next(runnable, found[0])


def shipped_places() -> Iterator[Path]:
    """Yield the folders of the adapters that ship with AgentForge."""
    spec = importlib.util.find_spec(_SHIPPED)
    if spec is not None:
        yield from map(Path, spec.submodule_search_locations or ())


def _by_name(manifests: Iterable[Manifest]) -> Mapping[str, Manifest]:
    found: dict[str, Manifest] = {}
    for manifest in manifests:
        other = found.setdefault(manifest.name, manifest)
        if other is not manifest:
            raise FrameworkTwice(
                f"Two folders describe the framework `{manifest.name}`: `{other.folder}` and `{manifest.folder}`"
            )
    return dict(sorted(found.items()))


def _tested(manifest: Manifest) -> list[tuple[ReleaseRange, TestedRelease]]:
    pairs = [(releases, tested) for releases in manifest.releases for tested in releases.tested]
    return sorted(pairs, key=lambda pair: Version(pair[1].version), reverse=True)


def _release(manifest: Manifest, releases: ReleaseRange, tested: TestedRelease | None, version: str = "") -> Release:
    version = tested.version if tested else version
    module, _, attribute = releases.adapter.partition(":")
    distribution = manifest.distribution if releases.distribution is None else releases.distribution
    return Release(
        framework=manifest,
        version=version,
        requirements=tuple(line.format(version=version) for line in releases.requirements),
        python=releases.python if distribution else f"=={version}.*",
        adapter_module=module,
        adapter_class=attribute,
        distribution=distribution,
        lock_path=manifest.folder / tested.lock if tested and tested.lock else None,
        as_of=tested.as_of if tested else None,
        sample=releases.sample,
        deprecated=(tested.deprecated if tested else None) or releases.deprecated,
        traits=manifest.changed_by(releases),
    )


def _raise_series_unknown(manifest: Manifest, reference: Reference) -> NoReturn:
    series = _series(manifest)
    versions = [releases.versions for releases in manifest.releases]
    if not series:
        raise SeriesUnknown(
            f"{manifest.title} has no tested release yet; its adapter covers {_listed(versions)}",
            hint=f"Name an exact release: `{manifest.name}==VERSION`.",
        )
    raise SeriesUnknown(
        f"`{reference}`: {manifest.title} has no tested release in this series; there are {_listed(series)}",
        hint=f"Try `{manifest.name}@{series[0]}`, or an exact release within {_listed(versions)}.",
        series=series,
    )


def _series(manifest: Manifest) -> list[str]:
    """Return the series worth naming, newest first: `1`, but `0.3` and (for interpreters) `3.11`."""
    names: list[str] = []
    for _, tested in _tested(manifest):
        parts = Version(tested.version).release
        length = 1 if parts[0] > 0 and manifest.distribution else 2
        name = ".".join(map(str, parts[:length]))
        if name not in names:
            names.append(name)
    return names


def _listed(values: Sequence[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)
