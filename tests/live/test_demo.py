"""The demo as a newcomer runs it: real frameworks, and a real language model without any key."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "expenses"
FRAMEWORKS = ["langchain", "crewai", "pydantic-ai"]
COMMAND = Path(sys.executable).with_name("agentforge")
ELSEWHERE = """
import sys
from pathlib import Path
from agentforge.cli import demo, main
example = Path(sys.argv.pop(1))
demo.example_folder = lambda name: example
main.main()
"""
"""The command, with the example taken from the folder that is its first argument."""

pytestmark = [pytest.mark.timeout(900), pytest.mark.feature("AF-016")]


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    """A caller without any key or setting, but with environments that are kept between test runs."""
    home = os.environ.get("AGENTFORGE_TEST_HOME") or str(REPOSITORY / ".agentforge-test")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTFORGE_", "OPENAI_"))}
    variables = {**kept, "AGENTFORGE_HOME": home, "NO_COLOR": "1"}
    yield variables
    subprocess.run([COMMAND, "host", "stop", "-C", Path(home) / "demo"], env=variables, check=False)


def totals() -> dict[str, float]:
    """Add the example up, category by category."""
    found: dict[str, Decimal] = {}
    with (EXAMPLE / "expenses.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found[row["category"]] = found.get(row["category"], Decimal(0)) + Decimal(row["amount"])
    return {category: float(total) for category, total in found.items()}


@pytest.mark.parametrize("seed", ["1", "2"])
def test_three_frameworks_answer_a_question_drawn_at_random(variables: dict[str, str], seed: str) -> None:
    command = [COMMAND, "demo", "--json", "--seed", seed]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(result["framework"] for result in results) == sorted(FRAMEWORKS)
    asked = re.search(r"question: How much did we spend on (\w+)\?", done.stderr)
    assert asked is not None, done.stderr
    for result in results:
        assert result["status"] == "succeeded"
        assert result["model"] == "local"
        for call in result["tool_calls"]:
            assert (call["name"], call["arguments"]) == ("total_for", {"category": asked[1]})
            assert call["result"] == pytest.approx(totals()[asked[1]], abs=0.005)
        assert result["tool_calls"]
    assert re.search(r"first answer: [\d.]+ s after the start", done.stderr)
    assert "right on" in done.stderr


def test_a_wrong_tool_makes_the_demo_fail(variables: dict[str, str], tmp_path: Path) -> None:
    example = tmp_path / "expenses"
    shutil.copytree(EXAMPLE, example)
    tools = (example / "tools.py").read_text()
    wrong = tools.replace("sum(amounts, Decimal(0))", "sum(amounts[1:], Decimal(0))")  # leaves a row out
    assert wrong != tools
    for text, code in ((tools, 0), (wrong, 1)):
        (example / "tools.py").write_text(text)
        command = [sys.executable, "-c", ELSEWHERE, example, "demo", "--on", "python", "--json", "--seed", "4"]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr + done.stdout
        assert json.loads(done.stdout)["status"] == "succeeded"
    assert "wrong: python" in done.stderr
