"""Adapter code as workers get it: a read-only folder named by its content."""

import shutil
from pathlib import Path

from agentforge.engine.placing import place_folder
from agentforge.errors.runs import VersionUnusable
from agentforge.frameworks import Manifest, Release
from agentforge.workers import AdapterCode

__all__ = ["AdapterStore"]


class AdapterStore:
    """Copies of adapters below `folder`, each written once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def code(self, release: Release, digest: str | None = None) -> AdapterCode:
        """Return the adapter of a release, copied into place if it is not there yet.

        `digest` names the one that a run was started with. Raises VersionUnusable if that is another one and gone.
        """
        manifest = release.framework
        wanted = digest or manifest.digest
        target = self._folder / f"{manifest.name}-{wanted[:16]}"
        if wanted == manifest.digest:
            place_folder(target, lambda folder: _copy(manifest, folder))
        elif not target.is_dir():
            raise VersionUnusable(f"the run needs the adapter `{wanted[:16]}` of {manifest.title}, which is gone")
        return AdapterCode(target, release.adapter_module, release.adapter_class, wanted)


def _copy(manifest: Manifest, folder: Path) -> None:
    for relative in manifest.adapter_files():
        place = folder / relative
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(manifest.folder / relative, place)
        place.chmod(0o444)
