"""Reading `framework.toml`: one error says everything that is wrong with it, each with file, line, column and key."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agentforge.config.checking import dotted, problems_of
from agentforge.config.reading import read_text
from agentforge.config.source import KeyPath, Problem, Source
from agentforge.config.toml_source import parse_toml
from agentforge.errors.config import ConfigError, InvalidValueError, UnknownKeyError
from agentforge.errors.frameworks import ManifestInvalid
from agentforge.frameworks.folders import MANIFEST_FILE
from agentforge.frameworks.manifest import Manifest

__all__ = ["load_manifest", "read_manifest"]

_MOST_BYTES = 256 * 1024
_SHOWN = 8
_TOLD = 100
"""Problems that programs are told of."""


def load_manifest(folder: Path, *, check_files: bool = True, check_settings: bool = False) -> Manifest:
    """Read the manifest in a folder and check that the files it names are there. Raises ManifestInvalid.

    `check_settings` also checks that its settings are a JSON Schema, which takes a moment: for who adds a framework.
    """
    source = read_manifest(folder)
    problems: list[Problem] = []
    if "folder" in source.data:  # a name of our own, not a key of the file
        problems.append(
            Problem(UnknownKeyError, source.key_place(("folder",)), "folder", "`folder` is not a known key")
        )
    manifest = None
    try:
        manifest = Manifest.model_validate({**source.data, "folder": folder.resolve()})
    except ValidationError as error:
        problems += problems_of(Manifest, source, error)
    if manifest is not None and check_files:
        problems += _missing_files(source, manifest)
    if manifest is not None and check_settings:
        problems += _wrong_settings(source, manifest)
    if manifest is None or problems:
        raise _invalid(problems)
    return manifest


def read_manifest(folder: Path) -> Source:
    """Return what a folder's manifest says, unchecked. Raises ManifestInvalid."""
    file = folder / MANIFEST_FILE
    try:
        return parse_toml(read_text(file, _MOST_BYTES), str(file))
    except ConfigError as error:
        raise ManifestInvalid(error.message, hint=error.hint, reason=error.message, **error.details) from None


def _missing_files(source: Source, manifest: Manifest) -> Iterator[Problem]:
    for number, releases in enumerate(manifest.releases):
        module = releases.adapter.partition(":")[0]
        if not any((manifest.folder / each).is_file() for each in (f"{module}.py", f"{module}/__init__.py")):
            statement = f"`releases[{number}].adapter` is `{releases.adapter}`, but `{module}.py` is not there"
            yield _missing(source, ("releases", number, "adapter"), statement, f"Write `{module}.py` into the folder.")
        for place, tested in enumerate(releases.tested):
            if tested.lock and not (manifest.folder / tested.lock).is_file():
                statement = f"the lock `{tested.lock}` of {tested.version} is not there"
                hint = f"`python -m agentforge.environments.relock {manifest.name}=={tested.version}` writes it."
                yield _missing(source, ("releases", number, "tested", place, "lock"), statement, hint)


def _missing(source: Source, path: KeyPath, statement: str, hint: str) -> Problem:
    return Problem(InvalidValueError, source.value_place(path), dotted(path), statement, hint)


def _wrong_settings(source: Source, manifest: Manifest) -> Iterator[Problem]:
    from agentforge.config.agent_file import schema_problem

    tables: list[tuple[KeyPath, Mapping[str, Any]]] = [(("settings",), manifest.settings)]
    tables += [(("releases", number, "settings"), each.settings) for number, each in enumerate(manifest.releases)]
    for path, schema in tables:
        wrong = schema_problem(dict(schema))
        if wrong:
            hint = "Write a JSON Schema of an object, with `properties`."
            yield Problem(
                InvalidValueError, source.value_place(path), dotted(path), f"not a JSON Schema: {wrong}", hint
            )


def _invalid(problems: Sequence[Problem]) -> ManifestInvalid:
    first = problems[0]
    lines = [each.message for each in problems[:1]]
    lines += [f"{each.message} ({each.hint})" if each.hint else each.message for each in problems[1:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN} more")
    return ManifestInvalid(
        "\n".join(lines),
        hint=first.hint or "Correct the file; docs/reference/framework.schema.json has every key.",
        problems=[{**_details(each), "hint": each.hint} for each in problems[:_TOLD]],
        **_details(first),
    )


def _details(problem: Problem) -> dict[str, object]:
    mark = problem.place.mark
    place = {"line": mark.line, "column": mark.column} if mark else {}
    return {"file": problem.place.file, **place, "key": problem.key, "reason": problem.statement}
