"""Adapter code as workers get it: a read-only folder named by its content."""

import os
import shutil
from pathlib import Path

from agentforge.frameworks import Manifest, Release
from agentforge.workers import AdapterCode

__all__ = ["AdapterStore"]


class AdapterStore:
    """Copies of adapters below `folder`, each written once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def code(self, release: Release) -> AdapterCode:
        """Return the adapter of a release, copied into place if it is not there yet."""
        manifest = release.framework
        target = self._folder / f"{manifest.name}-{manifest.digest[:16]}"
        if not target.is_dir():
            self._copy(manifest, target)
        return AdapterCode(target, release.adapter_module, release.adapter_class, manifest.digest)

    def _copy(self, manifest: Manifest, target: Path) -> None:
        staging = self._folder / f".{target.name}.{os.getpid()}"
        shutil.rmtree(staging, ignore_errors=True)
        for relative in manifest.adapter_files():
            place = staging / relative
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(manifest.folder / relative, place)
            place.chmod(0o444)
        try:
            staging.rename(target)
        except OSError:  # another process was faster; equal names mean equal bytes
            shutil.rmtree(staging, ignore_errors=True)
