"""Reading `framework.toml`: every fault becomes one error that names file, key and reason."""

import tomllib
from pathlib import Path

from pydantic import ValidationError

from agentforge.errors.frameworks import ManifestInvalid
from agentforge.frameworks.manifest import MANIFEST_FILE, Manifest

__all__ = ["load_manifest"]


def load_manifest(folder: Path, *, check_files: bool = True) -> Manifest:
    """Read the manifest in a folder and check that the locks it names are there. Raises ManifestInvalid."""
    file = folder / MANIFEST_FILE
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(file, "", f"the file can't be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise _invalid(file, "", f"not TOML: {error}") from None
    if "folder" in table:
        raise _invalid(file, "folder", "unknown key")
    try:
        manifest = Manifest.model_validate({**table, "folder": folder.resolve()})
    except ValidationError as error:
        raise _first_of(file, error) from None
    if check_files:
        _check_locks(file, manifest)
    return manifest


def _first_of(file: Path, error: ValidationError) -> ManifestInvalid:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    reason = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    found = first["input"]
    if isinstance(found, str | int | float | bool) and first["type"] != "extra_forbidden":
        reason += f" (found `{found}`)"
    return _invalid(file, key, reason[0].lower() + reason[1:])


def _check_locks(file: Path, manifest: Manifest) -> None:
    for number, releases in enumerate(manifest.releases):
        for tested in releases.tested:
            if tested.lock and not (manifest.folder / tested.lock).is_file():
                key = f"releases.{number}.tested"
                raise _invalid(file, key, f"the lock `{tested.lock}` of {tested.version} is not there")


def _invalid(file: Path, key: str, reason: str) -> ManifestInvalid:
    place = f"`{file}`" + (f", key `{key}`" if key else "")
    return ManifestInvalid(
        f"The manifest {place} can't be used: {reason}",
        hint="Correct the file; the shipped frameworks show every key.",
        file=str(file),
        key=key,
        reason=reason,
    )
