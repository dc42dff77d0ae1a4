"""What commands take from the command line is checked before anything is started."""

from pathlib import Path
from typing import Any, get_args

import pytest

from agentforge.api import schemas
from agentforge.api.paths import framework_path
from agentforge.cli import runs, tables
from agentforge.cli.arguments import input_text, labels, run_id, text_only
from agentforge.errors import UsageFault
from agentforge.errors.frameworks import ReferenceInvalid


@pytest.mark.parametrize("given", ["é", "", "?x=1", "a/b", "..", "r1 ", "r1\n"])
def test_what_can_be_no_id_of_a_run_is_refused(given: str) -> None:
    with pytest.raises(UsageFault):
        run_id(given)
    assert run_id("r019af3c2b-A_1") == "r019af3c2b-A_1"


@pytest.mark.parametrize("given", ["foo", "=x", ""])
def test_a_label_is_a_key_and_a_value(given: str) -> None:
    with pytest.raises(UsageFault, match="key=value"):
        labels(["a=b", given])
    assert labels(["a=b=c", "d="]) == {"a": "b=c", "d": ""}


def test_an_argument_that_is_no_utf8_is_named() -> None:
    text_only(["run", "é", "😀"])
    with pytest.raises(UsageFault, match=r"argument 2 .*`caf\\xe9`"):
        text_only(["run", "caf\udce9"])


def test_a_file_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "input.txt"
    file.write_bytes(b"caf\xe9")
    with pytest.raises(UsageFault, match=r"input\.txt"):
        input_text(f"@{file}")


def test_the_statuses_that_a_list_takes_are_those_of_the_api() -> None:
    assert get_args(runs.Status) == get_args(schemas.Status)


def test_no_cell_of_the_table_is_markup(capsys: pytest.CaptureFixture[str]) -> None:
    result: dict[str, Any] = {
        "framework": "[/b]",
        "release": "[red]1",
        "status": "[/]",
        "output": "[/i]",
        "error": None,
        "tool_calls": [{"name": "[/u]", "arguments": {}}],
        "usage": {"input_tokens": 1, "output_tokens": 2},
        "duration_ms": None,
    }
    tables.results_table([{**result, "status": "succeeded"}, {**result, "error": {"message": "[/s]"}}])
    out = capsys.readouterr().out
    for cell in ("[/b] [red]1", "[/]", "[/i]", "[/u]", "[/s]"):
        assert cell in out


def test_a_reference_is_one_part_of_a_path_and_nothing_else() -> None:
    assert framework_path("langchain@0.3") == "/v1/frameworks/langchain@0.3"
    assert framework_path("kit==1!1.0+local", "/docs") == "/v1/frameworks/kit==1%211.0%2Blocal/docs"
    for given in ("", "search/docs", "../runs", "kit?x=1", "kit#a"):
        with pytest.raises(ReferenceInvalid):
            framework_path(given)
