"""What a project's `agentforge.toml` says of the catalogue, read again when it changes, and changed by commands."""

import os
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from agentforge.config import PROJECT_FILE, Project, load_project
from agentforge.config.framework_config import CatalogueConfig, DeprecationPolicy
from agentforge.config.toml_edit import add_table, edit, remove_table, set_value
from agentforge.errors.config import ConfigError
from agentforge.errors.frameworks import NotRegistered
from agentforge.frameworks import (
    Catalogue,
    Manifest,
    Reference,
    load_manifest,
    manifest_folders,
)
from agentforge.frameworks.discovery import twice

__all__ = ["CatalogueFiles", "today"]

_POLICIES = ("catalogue", "deprecated")


class CatalogueFiles:
    """The catalogue section of one project. Who changes it, changes the file that people write and commit."""

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self._root, self._environ = root, environ
        self._file = root / PROJECT_FILE
        self._known: tuple[object, Project] | None = None
        self._config = CatalogueConfig()

    @property
    def config(self) -> CatalogueConfig:
        """The section as it is now; where the file can't be used, as it was: whoever starts a run is told."""
        stamp = _stamp(self._file)
        if self._known is None or self._known[0] != stamp:
            try:
                project = load_project(self._root, self._environ)
            except ConfigError:
                return self._config
            self._known, self._config = (stamp, project), project.config.catalogue
        return self._config

    def folders(self) -> list[Path]:
        """Return the registered folders."""
        return [(self._root / folder).resolve() for folder in self.config.folders]

    def register(self, path: Path, catalogue: Catalogue) -> list[Manifest]:
        """Add a folder with a manifest, or with folders that have one, and return what is in it.

        Raises ManifestInvalid with all that is wrong, FrameworkTwice, NotEditableError.
        """
        path = path.resolve()
        found = [load_manifest(folder, check_settings=True) for folder in manifest_folders(path)]
        for manifest in found:
            known = next((name for name in catalogue.names() if name == manifest.name), None)
            if known is not None and catalogue.get(known).folder != manifest.folder:
                raise twice(catalogue.get(known), manifest)
        if path not in self.folders():
            self._set_folders([*self._written(), self._shown(path)])
        return found

    def unregister(self, named: str, base: Path, catalogue: Catalogue) -> str:
        """Take a registered folder out, by its path or by the name of a framework in it; returns the folder.

        Raises NotRegistered, NotEditableError.
        """
        wanted = {(base / named).resolve()}
        wanted |= {catalogue.get(name).folder for name in catalogue.names() if name == named}
        wanted |= {each.folder for each in catalogue.broken if each.name == named}
        written = self._written()
        for folder in written:
            place = (self._root / folder).resolve()
            if place in wanted or any(each.parent == place for each in wanted if each != (base / named).resolve()):
                self._set_folders([each for each in written if each != folder])
                return folder
        origin = catalogue.origin(named) if named in catalogue.names() else ""
        why = (
            f"it comes from {origin}" if origin not in ("", "shipped") else "it ships with AgentForge" if origin else ""
        )
        raise NotRegistered(
            f"`{named}` is not registered in this project" + (f": {why}" if why else ""),
            hint="`agentforge framework list` shows where each framework comes from.",
        )

    def deprecate(self, policy: DeprecationPolicy, catalogue: Catalogue) -> None:
        """Write the project's word on some releases, in place of an earlier one. Raises AF2xx, NotEditableError."""
        _known_reference(policy.framework, catalogue)
        if policy.successor:
            _known_reference(policy.successor, catalogue)
        table = {key: value for key, value in policy.model_dump(exclude_none=True).items() if value != ""}
        table = {"framework": table.pop("framework"), **table}
        index = self._index(policy.framework)

        def change(text: str) -> str:
            return add_table(text if index is None else remove_table(text, _POLICIES, index), _POLICIES, table)

        def expected(data: dict[str, Any]) -> None:
            policies = data.setdefault("catalogue", {}).setdefault("deprecated", [])
            if index is not None:
                policies.pop(index)
            policies.append(table)

        self._edit(change, expected)

    def undeprecate(self, reference: str) -> None:
        """Take the project's word back. Raises NotRegistered, NotEditableError."""
        index = self._index(reference)
        if index is None:
            said = ", ".join(f"`{each.framework}`" for each in self.config.deprecated) or "nothing"
            raise NotRegistered(
                f"This project does not deprecate `{reference}`; it deprecates {said}",
                hint="What an adapter deprecates is overridden by a policy with other days.",
            )

        def expected(data: dict[str, Any]) -> None:
            data["catalogue"]["deprecated"].pop(index)
            if not data["catalogue"]["deprecated"]:
                del data["catalogue"]["deprecated"]
            if not data["catalogue"]:
                del data["catalogue"]

        self._edit(lambda text: remove_table(text, _POLICIES, index), expected)

    def _index(self, reference: str) -> int | None:
        names = [policy.framework for policy in self.config.deprecated]
        return names.index(reference) if reference in names else None

    def _written(self) -> list[str]:
        return list(self.config.folders)

    def _shown(self, path: Path) -> str:
        return os.path.relpath(path, self._root) if path.is_relative_to(self._root) else str(path)

    def _set_folders(self, folders: list[str]) -> None:
        self._edit(
            lambda text: set_value(text, "catalogue", "folders", folders),
            lambda data: data.setdefault("catalogue", {}).update(folders=folders),
        )

    def _edit(self, change: Any, expected: Any) -> None:
        edit(self._file, change, expected)
        self._known = None


def _known_reference(text: str, catalogue: Catalogue) -> None:
    reference = Reference.parse(text)
    catalogue.get(reference.name)
    if reference.series is None:
        catalogue.resolve(text)


def today(now: float) -> date:
    """Return the day of a time, UTC: days of deprecations begin and end there."""
    return datetime.fromtimestamp(now, UTC).date()


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
