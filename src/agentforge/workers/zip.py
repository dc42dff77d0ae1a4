"""The guest as one file: the worker package packed into a zip that any Python >= 3.8 runs."""

import hashlib
import importlib.util
import os
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

__all__ = ["worker_zip"]

_PACKAGE = "agentforge_worker"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def worker_zip(folder: Path) -> Path:
    """Return `folder`/worker-<digest>.pyz, written if it is not there; equal code gives an equal name and bytes."""
    data = _pack(_package_folder())
    target = folder / f"worker-{hashlib.sha256(data).hexdigest()[:16]}.pyz"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, staging = tempfile.mkstemp(prefix=".", dir=folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(staging).chmod(0o644)
        Path(staging).rename(target)
    return target


def _package_folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _pack(package: Path) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(package.rglob("*.py")):
            name = f"{_PACKAGE}/{path.relative_to(package).as_posix()}"
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
        entry = zipfile.ZipInfo("__main__.py", _EPOCH)
        archive.writestr(entry, (package / "__main__.py").read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
