"""`kill -9` of the host and its workers while runs are under way on all frameworks: a short `benchmarks/chaos.py`."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

_PROGRAM = Path(__file__).parents[2] / "benchmarks" / "chaos.py"
TRIALS = 8


@pytest.mark.feature("AF-081")
@pytest.mark.framework("langchain")
@pytest.mark.framework("crewai")
@pytest.mark.framework("pydantic-ai")
@pytest.mark.framework("python")
async def test_no_kill_loses_a_run_or_repeats_what_is_finished(tmp_path: Path) -> None:
    figures = tmp_path / "chaos.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(_PROGRAM), "--trials", str(TRIALS), "--seed", "7",
        "--json", str(figures), "--keep", str(tmp_path / "project"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, out.decode()
    found = json.loads(figures.read_text())
    assert found["kills"] == TRIALS
    assert (found["lost_runs"], found["repeated_effects"], found["wrong_results"]) == (0, 0, 0)
    # Kills that hit nothing would prove nothing.
    assert found["kills_that_hit_a_run"] >= TRIALS / 2, out.decode()
    assert found["runs_with_several_attempts"] >= 1, out.decode()
