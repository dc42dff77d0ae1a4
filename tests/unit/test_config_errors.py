from pathlib import Path

import pytest

from agentforge.errors import config

ROOT = Path(__file__).parents[2]
CLASSES = [each for name in config.__all__ if (each := getattr(config, name)) is not config.ConfigError]


@pytest.mark.parametrize("error", CLASSES)
def test_every_code_has_its_page(error):
    page = (ROOT / "docs" / "errors" / f"{error.code}.md").read_text()
    assert page.startswith(f"# {error.code}: ")
    for heading in ("## What happened", "## Why", "## What to do"):
        assert heading in page


def test_codes_are_of_this_layer_and_differ():
    codes = [error.code for error in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(code.startswith("AF1") for code in codes)


def test_no_page_is_left_of_a_code_that_is_gone():
    pages = {page.stem for page in (ROOT / "docs" / "errors").glob("AF1*.md")}
    assert pages == {error.code for error in CLASSES}
