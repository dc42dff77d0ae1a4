"""The store's errors: codes, hints, pages; and its public names."""

from pathlib import Path

import pytest

import agentforge.store
from agentforge.errors import store as errors

PAGES = Path(__file__).parents[2] / "docs" / "errors"
CLASSES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_has_a_code_a_hint_and_a_page(error) -> None:
    assert error.code.startswith("AF8")
    assert error.default_hint.endswith(".")
    page = (PAGES / f"{error.code}.md").read_text()
    assert page.startswith(f"# {error.code}: ")
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## What happened",
        "## Why",
        "## What to do",
    ]


def test_codes_and_pages_are_one_to_one() -> None:
    assert sorted(error.code for error in CLASSES) == sorted(path.stem for path in PAGES.glob("AF8*.md"))


def test_the_public_names_are_these() -> None:
    assert " ".join(agentforge.store.__all__) == (
        "BLOB_LIMIT FINISHED UNFINISHED AgentVersion AgentVersionId Attempt AttemptStatus BlobId Durability Effect "
        "EffectKind Event HealthRecord HealthState Json JsonObject Lease Measurement Project ProjectId Run RunChanges "
        "RunId RunStatus Store Thread ThreadMessage UsedRelease open_store unfinished_specs"
    )
    for name in agentforge.store.__all__:
        assert hasattr(agentforge.store, name)
