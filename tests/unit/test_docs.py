"""The documentation against the code: nothing is missing, nothing is left over, generated parts are current."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CODE = [ROOT / "src", *(ROOT / "packages" / name for name in ("worker", "adapters"))]
HEADINGS = ["## What happened", "## Why", "## What to do"]
EVENT_KIND = re.compile(
    r'"((?:run|attempt|step|model|tool|message|handoff|log|checkpoint|interrupt|replay|effect|connection)\.[a-z]+)"'
)
NOT_EVENTS = {
    "run.start",
    "run.cancel",
    "run.warn",
    "run.call",
    "run.json",
    "checkpoint.save",
    "effect.open",
    "effect.close",
    "tool.call",
    "tool.invoke",
    "log.write",
    "message.content",
}


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    """The program that writes the generated parts."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


@pytest.fixture(scope="module")
def error_codes(generate: ModuleType) -> dict[str, str]:
    """Every code that a user can meet."""
    from generators.listings import error_codes  # type: ignore[import-not-found]  # docs/ is on the path now

    return dict(error_codes())


def python_files() -> Iterator[Path]:
    return (file for folder in CODE for file in folder.rglob("*.py"))


def test_generated_pages_are_what_the_code_says_now(generate: ModuleType) -> None:
    stale = [str(file.relative_to(ROOT)) for file in generate.stale()]
    assert stale == [], "run `make generate`"


def test_every_error_code_has_a_page_and_every_page_a_code(error_codes: dict[str, str]) -> None:
    pages = {file.stem for file in (DOCS / "errors").glob("AF*.md")}
    assert pages == set(error_codes)


def test_every_code_that_is_written_anywhere_has_a_page(error_codes: dict[str, str]) -> None:
    written = {code for file in python_files() for code in re.findall(r'"(AF\d{3})"', file.read_text("utf-8"))}
    assert written - set(error_codes) == set()


@pytest.mark.parametrize("page", sorted((DOCS / "errors").glob("AF*.md")), ids=lambda page: page.stem)
def test_an_error_page_says_what_happened_why_and_what_to_do(page: Path) -> None:
    lines = page.read_text("utf-8").splitlines()
    assert re.fullmatch(rf"# {page.stem}: \S.*", lines[0])
    assert [line for line in lines if line.startswith("## ")] == HEADINGS


def test_two_classes_do_not_share_a_code(generate: ModuleType, error_codes: dict[str, str]) -> None:
    from generators.listings import _subclasses

    from agentforge.errors import AgentForgeError

    codes = [kind.code for kind in _subclasses(AgentForgeError) if "code" in vars(kind)]
    assert sorted(codes) == sorted(set(codes))


def test_every_event_kind_is_in_the_reference_and_comes_from_somewhere() -> None:
    emitting = [*(ROOT / "src/agentforge/engine").glob("*.py"), *(ROOT / "packages/worker").rglob("*.py")]
    emitting += (ROOT / "packages/adapters").rglob("*.py")
    emitted = {kind for file in emitting for kind in EVENT_KIND.findall(file.read_text("utf-8"))} - NOT_EVENTS
    text = (DOCS / "reference/events.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `([a-z]+\.[a-z]+)` \|", text, re.MULTILINE))
    assert documented == emitted


def test_every_feature_that_a_test_names_is_a_feature(generate: ModuleType) -> None:
    from generators.listings import feature_tests

    assert [feature for feature in feature_tests() if not re.fullmatch(r"AF-\d{3}", feature)] == []


def test_a_page_of_the_documentation_is_reached_from_its_index() -> None:
    for folder in ("tutorial", "howto", "reference", "explanation", "adr"):
        index = (DOCS / folder / "index.md").read_text("utf-8")
        if ":glob:" in index:
            continue
        pages = {page.stem for page in (DOCS / folder).glob("*.md")} - {"index"}
        assert pages <= set(index.split()), folder
