"""The catalogue: manifests as data, references, and which release a reference means."""

import json
import textwrap
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

import agentforge.frameworks
from agentforge.environments import Lock
from agentforge.environments.resolving import check_lock
from agentforge.errors import AgentForgeError
from agentforge.errors.frameworks import (
    FrameworkTwice,
    FrameworkUnknown,
    ManifestInvalid,
    ReferenceInvalid,
    ReleaseUnknown,
    SeriesUnknown,
)
from agentforge.frameworks import Catalogue, Manifest, Reference, is_release, load_manifest
from agentforge.frameworks.schema import manifest_schema

MANIFEST = """
name = "sample"
title = "Sample"
summary = "A framework for tests."
distribution = "sample-kit"
varies = ["/seed"]
concurrency = 20
telemetry = { SAMPLE_TELEMETRY = "off" }

[capabilities.tools]
level = "full"

[capabilities.streaming]
level = "full"

[[releases]]
versions = ">=0.1,<1"
python = ">=3.8"
requirements = ["sample-kit=={version}", "sample-extras"]
adapter = "adapter:OldAdapter"
distribution = "old-sample"
concurrency = 1
env = { SAMPLE_CACHE = "" }
sample = "samples/old.py"
tested = [
    { version = "0.1.32", as_of = 2024-01-01T00:00:00Z, lock = "locks/any.txt" },
    { version = "0.3.9", as_of = 2024-02-01T00:00:00Z, lock = "locks/any.txt" },
    { version = "0.3.10", as_of = 2024-03-01T00:00:00Z, lock = "locks/any.txt" },
    { version = "0.150.0", as_of = 2024-04-01T00:00:00Z, lock = "locks/any.txt" },
]

[releases.capabilities.tools]
level = "absent"
note = "Came with 1.0."

[[releases]]
versions = ">=1,<2"
python = ">=3.10"
requirements = ["sample-kit=={version}"]
adapter = "adapter:SampleAdapter"
tested = [{ version = "1.4.0", as_of = 2026-01-01T00:00:00Z, lock = "locks/any.txt" }]
"""


def write_manifest(folder: Path, text: str = MANIFEST) -> Path:
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    (folder / "locks" / "any.txt").write_text("")
    (folder / "adapter.py").write_text("class SampleAdapter: ...\n")
    (folder / "framework.toml").write_text(text)
    return folder


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue.discover([write_manifest(tmp_path / "sample")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("langchain", Reference("langchain")),
        ("langchain@0.3", Reference("langchain", series="0.3")),
        ("pydantic-ai==2.68.0", Reference("pydantic-ai", version="2.68.0")),
        ("crewai==1.15.30.dev20261024", Reference("crewai", version="1.15.30.dev20261024")),
    ],
)
def test_a_reference_is_a_name_a_series_or_an_exact_version(text: str, expected: Reference) -> None:
    assert Reference.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["", "@1", "a@", "a==", "a@1@2", "a>=1", "a@1.x", "a==not.a.version", "a b"])
def test_anything_else_is_not_a_reference(text: str) -> None:
    with pytest.raises(ReferenceInvalid):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("ref", "version"),
    [
        ("sample", "1.4.0"),
        ("sample@1", "1.4.0"),
        ("sample@0", "0.150.0"),
        ("sample@0.1", "0.1.32"),
        ("sample@0.3", "0.3.10"),
        ("sample@0.3.9", "0.3.9"),
        ("sample==0.3.9", "0.3.9"),
        ("sample==1.4", "1.4.0"),
    ],
)
def test_a_series_is_a_prefix_by_components_and_means_its_newest_tested_release(
    catalogue: Catalogue, ref: str, version: str
) -> None:
    release = catalogue.resolve(ref)
    assert release.version == version
    assert release.tested
    assert release.lock_path is not None


@given(st.lists(st.integers(0, 300), min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 300))
def test_a_version_is_in_each_series_that_it_starts_with_and_in_no_other(
    parts: list[int], length: int, other: int
) -> None:
    version, prefix = ".".join(map(str, parts)), parts[:length]
    assert Reference("x", series=".".join(map(str, prefix))).admits(version)
    changed = [*prefix[:-1], prefix[-1] + other + 1]
    assert not Reference("x", series=".".join(map(str, changed))).admits(version)


def test_a_release_carries_what_its_own_range_says(catalogue: Catalogue) -> None:
    old, new = catalogue.resolve("sample@0.3"), catalogue.resolve("sample")
    assert old.requirements == ("sample-kit==0.3.10", "sample-extras")
    assert (old.adapter_class, old.distribution, old.python) == ("OldAdapter", "old-sample", ">=3.8")
    assert (new.adapter_module, new.adapter_class, new.distribution) == ("adapter", "SampleAdapter", "sample-kit")
    assert old.traits.capability("tools").level == "absent"
    assert new.traits.capability("tools").level == "full"
    assert new.traits.capability("never heard of").level == "absent"
    assert old.traits.capability("streaming").level == "full"
    assert (old.traits.concurrency, new.traits.concurrency) == (1, 20)
    assert old.traits.varies == new.traits.varies == ("/seed",)
    assert old.traits.variables == {"SAMPLE_TELEMETRY": "off", "SAMPLE_CACHE": ""}
    assert new.traits.variables == {"SAMPLE_TELEMETRY": "off"}
    assert (old.sample, new.sample) == ("samples/old.py", "samples/native.py")


def test_an_exact_release_need_not_be_tested(catalogue: Catalogue) -> None:
    release = catalogue.resolve("sample==1.9.1")
    assert (release.version, release.tested, release.lock_path) == ("1.9.1", False, None)
    assert release.requirements == ("sample-kit==1.9.1",)


def test_a_pin_holds_within_its_reference_and_not_beyond(catalogue: Catalogue) -> None:
    assert catalogue.resolve("sample", pinned="1.2.0").version == "1.2.0"
    assert catalogue.resolve("sample@0", pinned="1.2.0").version == "0.150.0"
    assert catalogue.resolve("sample==1.4.0", pinned="1.2.0").version == "1.4.0"


def test_an_unknown_framework_is_told_with_the_nearest_name_and_the_list(catalogue: Catalogue) -> None:
    with pytest.raises(FrameworkUnknown) as caught:
        catalogue.resolve("smaple")
    assert "`sample`" in caught.value.hint
    assert "`langchain`" in caught.value.message


def test_an_unknown_series_is_told_with_those_that_exist(catalogue: Catalogue) -> None:
    with pytest.raises(SeriesUnknown) as caught:
        catalogue.resolve("sample@2")
    assert caught.value.details["series"] == ["1", "0.150", "0.3", "0.1"]


def test_a_release_beyond_all_ranges_is_refused_with_the_ranges(catalogue: Catalogue) -> None:
    with pytest.raises(ReleaseUnknown, match="`>=1,<2`"):
        catalogue.resolve("sample==2.0")


@pytest.mark.parametrize(
    ("old", "new", "key", "reason"),
    [
        ('title = "Sample"\n', "", "title", "`title` is missing"),
        ('title = "Sample"', "title = 7", "title", "expected text"),
        ('name = "sample"', 'name = "Sample Kit"', "name", "can't be the name"),
        ('summary = "', 'sumary = "x"\nsummary = "', "sumary", "not a known key"),
        ('level = "full"', 'level = "most"', "capabilities.tools.level", "`full`"),
        ('versions = ">=1,<2"', 'versions = "1 to 2"', "releases[1].versions", "not a version range"),
        ('version = "1.4.0"', 'version = "new"', "releases[1].tested[0].version", "not a version"),
        ('version = "1.4.0"', 'version = "2.4.0"', "releases[1]", "outside"),
        ('"sample-extras"', '"-e ."', "releases[0].requirements[1]", "not a requirement line"),
        ("adapter:SampleAdapter", "adapter.SampleAdapter", "releases[1].adapter", "module:ClassName"),
        ('2026-01-01T00:00:00Z, lock = "locks/any.txt"', "2026-01-01T00:00:00Z", "releases[1]", "no `lock`"),
        ('2026-01-01T00:00:00Z, lock = "locks/any.txt"', '2026-01-01T00:00:00Z, lock = "gone"', "", "not there"),
        ('2026-01-01T00:00:00Z, lock = "locks/any.txt"', '2026-01-01T00:00:00Z, lock = "../x"', "", "inside"),
        ('name = "sample"', "name = ", "", "not valid TOML"),
        ('name = "sample"', 'name = "sample"\nfolder = "/"', "folder", "not a known key"),
    ],
)
def test_an_invalid_manifest_is_refused_with_file_key_and_reason(
    tmp_path: Path, old: str, new: str, key: str, reason: str
) -> None:
    assert old in MANIFEST
    folder = write_manifest(tmp_path / "sample", MANIFEST.replace(old, new))
    with pytest.raises(ManifestInvalid) as caught:
        load_manifest(folder)
    details = caught.value.details
    assert details["file"].endswith("framework.toml")
    assert key in details["key"]
    assert reason in details["reason"]
    assert (details["line"], details["column"]) > (0, 0)
    assert f"framework.toml:{details['line']}:{details['column']}" in caught.value.message


def _leaves(schema: dict[str, Any], group: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the path of every key that a manifest may have."""
    for key, value in group["properties"].items():
        yield f"{path}{key}"
        options = [value, *value.get("anyOf", ()), value.get("items", {}), value.get("additionalProperties") or {}]
        for each in options:
            name = each.get("$ref", "").rpartition("/")[2] if isinstance(each, dict) else ""
            if name in schema["$defs"]:
                yield from _leaves(schema, schema["$defs"][name], f"{path}{key}.")


def _spoilt(table: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Return a manifest whose key at a path has another value; of lists and named tables the first one is meant."""
    key, *rest = path
    if not rest:
        return {**table, key: value}
    below: Any = table.get(key)
    if key == "capabilities":
        below = {"tools": _spoilt((below or {}).get("tools", {"level": "full"}), rest, value)}
    elif key in ("releases", "tested"):
        below = [_spoilt((below or [{}])[0], rest, value)]
    else:
        below = _spoilt(below or {"since": date(2026, 1, 1)}, rest, value)
    return {**table, key: below}


@pytest.mark.feature("AF-001")
@pytest.mark.parametrize("key", sorted(set(_leaves(manifest_schema(), manifest_schema()))))
def test_a_manifest_with_a_wrong_value_at_any_key_is_refused_at_its_line(tmp_path: Path, key: str) -> None:
    table = _spoilt(tomllib.loads(MANIFEST), key.split("."), 7.5)
    folder = write_manifest(tmp_path / "sample", tomli_w.dumps(table))
    with pytest.raises(ManifestInvalid) as caught:
        load_manifest(folder)
    wrong = [
        each
        for each in caught.value.details["problems"]
        if each["key"].split("[")[0].split(".")[0] == key.split(".")[0]
    ]
    assert wrong, caught.value.message
    lines = (folder / "framework.toml").read_text().splitlines()
    assert any(key.split(".")[-1] in lines[each["line"] - 1] or "7" in lines[each["line"] - 1] for each in wrong), wrong
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(json.dumps(table, default=str)), manifest_schema())


@pytest.mark.feature("AF-001")
def test_all_faults_of_a_manifest_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = MANIFEST.replace('title = "Sample"', "title = 7").replace('"adapter:OldAdapter"', '"adapter"')
    folder = write_manifest(tmp_path / "sample", text.replace(">=1,<2", "one"))
    with pytest.raises(ManifestInvalid) as caught:
        load_manifest(folder)
    problems = caught.value.details["problems"]
    assert [each["key"] for each in problems] == ["title", "releases[0].adapter", "releases[1].versions"]
    assert [each["line"] for each in problems] == sorted(each["line"] for each in problems)
    for each in problems:
        assert each["hint"] or each["key"] == "title"
        assert each["reason"] in caught.value.message


def test_an_adapter_module_that_is_not_there_is_told(tmp_path: Path) -> None:
    folder = write_manifest(tmp_path / "sample")
    (folder / "adapter.py").unlink()
    with pytest.raises(ManifestInvalid, match=r"`adapter.py` is not there"):
        load_manifest(folder)


def test_settings_that_are_no_schema_are_told_to_who_adds_the_framework(tmp_path: Path) -> None:
    folder = write_manifest(tmp_path / "sample", MANIFEST + '\n[settings]\ntype = "objekt"\n')
    load_manifest(folder)
    with pytest.raises(ManifestInvalid, match="not a JSON Schema"):
        load_manifest(folder, check_settings=True)


@pytest.mark.feature("AF-001")
def test_the_published_schema_takes_every_shipped_manifest() -> None:
    jsonschema.Draft202012Validator.check_schema(manifest_schema())
    for manifest in shipped():
        table = tomllib.loads((manifest.folder / "framework.toml").read_text())
        jsonschema.validate(json.loads(json.dumps(table, default=str)), manifest_schema())
        load_manifest(manifest.folder, check_settings=True)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match="does not exist, nor does its folder"):
        Catalogue.discover([tmp_path / "nothing"])


def test_two_manifests_of_one_name_are_refused_with_both_folders(tmp_path: Path) -> None:
    write_manifest(tmp_path / "one")
    write_manifest(tmp_path / "two")
    with pytest.raises(FrameworkTwice) as caught:
        Catalogue.discover([tmp_path])
    assert str(tmp_path / "one") in caught.value.message
    assert str(tmp_path / "two") in caught.value.message


def test_the_digest_covers_code_and_manifest_but_not_locks(tmp_path: Path) -> None:
    folder = write_manifest(tmp_path / "sample")
    before = load_manifest(folder).digest
    (folder / "locks" / "any.txt").write_text("changed")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "adapter.pyc").write_text("changed")
    assert load_manifest(folder).digest == before
    (folder / "adapter.py").write_text("changed = True\n")
    changed = load_manifest(folder).digest
    (folder / "more").mkdir()
    (folder / "more" / "part.py").write_text("")
    assert len({before, changed, load_manifest(folder).digest}) == 3
    assert [str(path) for path in load_manifest(folder).adapter_files()] == [
        "adapter.py",
        "framework.toml",
        "more/part.py",
    ]


@pytest.mark.parametrize(
    ("found", "wanted", "distribution", "same"),
    [
        ("1.4.0", "1.4", "kit", True),
        ("1.4.1", "1.4", "kit", False),
        ("unknown", "1.4", "kit", False),
        ("3.11.7", "3.11", "", True),
        ("3.11.7", "3.1", "", False),
    ],
)
def test_a_found_version_is_the_release_exactly_or_for_interpreters_by_series(
    found: str, wanted: str, distribution: str, same: bool
) -> None:
    assert is_release(found, wanted, distribution) is same


def test_plain_python_means_the_newest_python_on_the_machine() -> None:
    def only(*series: str) -> Catalogue:
        return Catalogue.discover(has_interpreter=lambda python: python in {f"=={s}.*" for s in series})

    assert only("3.11").resolve("python").version == "3.11"
    assert only("3.9", "3.12").resolve("python").version == "3.12"
    assert only("3.12").resolve("python@3.11").python == "==3.11.*"
    assert only().resolve("python==3.10").requirements == ()


def shipped() -> list[Manifest]:
    catalogue = Catalogue.discover()
    return [catalogue.get(name) for name in catalogue.names()]


@pytest.mark.feature("AF-016")
@pytest.mark.parametrize("manifest", shipped(), ids=lambda manifest: manifest.name)
def test_each_shipped_release_has_a_lock_that_holds_it(manifest: Manifest) -> None:
    releases = Catalogue.discover().releases(manifest.name)
    assert releases
    for release in releases:
        if release.lock_path is None:
            assert not release.requirements
            continue
        lock = Lock(release.lock_path.read_text())
        check_lock(lock, release.reference, release.distribution, release.version)
        assert lock.packages


def test_the_first_four_frameworks_are_there_under_their_contract_names() -> None:
    assert {"crewai", "langchain", "pydantic-ai", "python"} <= set(Catalogue.discover().names())


def test_the_public_names_are_exactly_these() -> None:
    assert (
        sorted(agentforge.frameworks.__all__)
        == textwrap.dedent(
            """\
        Broken Capability Catalogue Deprecated InterpreterTest Level LiveCatalogue MANIFEST_FILE Manifest Reference
        Release ReleaseRange TestedRelease Traits deprecation_of is_release load_manifest manifest_folders
        require_able require_usable"""
        ).split()
    )


def test_each_error_of_frameworks_and_environments_has_its_page() -> None:
    import agentforge.errors.environments as environments
    import agentforge.errors.frameworks as frameworks

    pages = Path(__file__).parents[2] / "docs" / "errors"
    codes = set()
    for module, first in ((frameworks, "AF2"), (environments, "AF3")):
        for name in module.__all__:
            kind: type[AgentForgeError] = getattr(module, name)
            assert kind.code.startswith(first)
            codes.add(kind.code)
            page = (pages / f"{kind.code}.md").read_text()
            assert page.startswith(f"# {kind.code}: ")
            assert [line for line in page.splitlines() if line.startswith("## ")] == [
                "## What happened",
                "## Why",
                "## What to do",
            ]
    assert len(codes) == len(frameworks.__all__) + len(environments.__all__)
