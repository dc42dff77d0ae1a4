"""Search and comparison of frameworks by what their manifests say."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agentforge.errors.frameworks import CapabilityUnknown
from agentforge.frameworks.catalogue import Catalogue
from agentforge.frameworks.manifest import Capability, Manifest, Traits

__all__ = ["Hit", "capabilities_of", "compared", "search"]

_ENOUGH = {"full": ("full",), "partial": ("full", "partial"), "todo": ("full", "partial", "todo")}


@dataclass(frozen=True, slots=True)
class Hit:
    """A framework that a search found."""

    manifest: Manifest
    release: str
    """The newest tested release: what the search looked at; empty without one."""
    capabilities: dict[str, Capability]
    """Those that were asked for."""


def search(catalogue: Catalogue, text: str = "", needed: Sequence[str] = (), level: str = "partial") -> list[Hit]:
    """Return the frameworks whose newest release has all capabilities, at least at a level, and all words.

    Words are looked for in names, titles, summaries, capabilities and their notes, whatever their case.
    Raises CapabilityUnknown.
    """
    _check_names(catalogue, needed)
    words = text.lower().split()
    hits = []
    for manifest, release, traits in _newest(catalogue):
        found = {name: traits.capability(name) for name in needed}
        if any(each.level not in _ENOUGH[level] for each in found.values()):
            continue
        said = " ".join(_texts(manifest, traits)).lower()
        if all(word in said for word in words):
            hits.append(Hit(manifest, release, found))
    return hits


def _newest(catalogue: Catalogue) -> Iterator[tuple[Manifest, str, Traits]]:
    for name in catalogue.names():
        manifest = catalogue.get(name)
        releases = catalogue.releases(name)
        yield (manifest, releases[0].version, releases[0].traits) if releases else (manifest, "", manifest)


def _check_names(catalogue: Catalogue, needed: Iterable[str]) -> None:
    known = sorted({name for _, _, traits in _newest(catalogue) for name in traits.capabilities})
    for name in needed:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            listed = ", ".join(f"`{each}`" for each in known)
            raise CapabilityUnknown(
                f"No framework names the capability `{name}`; known are {listed}",
                hint=f"Did you mean `{near[0]}`?" if near else None,
                known=known,
            )


def _texts(manifest: Manifest, traits: Traits) -> Iterator[str]:
    yield from (manifest.name, manifest.title, manifest.summary)
    for name, capability in traits.capabilities.items():
        yield from (name, capability.note)


def capabilities_of(traits: Traits) -> dict[str, Any]:
    """Return capabilities as the API shows them."""
    return {name: each.model_dump() for name, each in traits.capabilities.items()}


def compared(columns: Sequence[Traits]) -> dict[str, list[Capability]]:
    """Return each capability that any of them names, with what each of them says of it."""
    names = dict.fromkeys(name for traits in columns for name in traits.capabilities)
    return {name: [traits.capability(name) for traits in columns] for name in names}
