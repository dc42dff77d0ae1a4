"""One agent from one command: several frameworks side by side, the contract's JSON, exit codes, Ctrl-C."""

import asyncio
import csv
import json
from decimal import Decimal

import jsonschema
import pytest

from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import EXAMPLE, KEY, Project

pytestmark = pytest.mark.asyncio(loop_scope="module")

FRAMEWORKS = ("langchain", "crewai", "pydantic-ai")
USAGE = {
    "type": "object",
    "required": ["input_tokens", "output_tokens"],
    "properties": {"input_tokens": {"type": "integer"}, "output_tokens": {"type": "integer"}},
}
RESULT = {
    "type": "object",
    "required": [
        "run_id", "agent", "framework", "release", "status", "output", "tool_calls", "model_calls", "usage",
        "cost_usd", "duration_ms", "replayed_effects", "sandbox", "error",
    ],
    "properties": {
        "run_id": {"type": ["string", "null"]},
        "agent": {"type": "string"},
        "framework": {"type": ["string", "null"]},
        "release": {"type": ["string", "null"]},
        "status": {"enum": ["queued", "running", "waiting", "succeeded", "failed", "cancelled"]},
        "tool_calls": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "arguments"],
                "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
            },
        },
        "model_calls": {"type": "integer"},
        "usage": USAGE,
        "cost_usd": {"type": ["number", "null"]},
        "duration_ms": {"type": ["integer", "null"]},
        "replayed_effects": {"type": "integer"},
        "sandbox": {"enum": ["strict", "standard", "none", None]},
        "error": {
            "type": ["object", "null"],
            "required": ["code", "message", "hint", "origin"],
            "properties": {
                "code": {"type": "string", "pattern": "^AF[0-9]{3}$"},
                "message": {"type": "string"},
                "hint": {"type": "string"},
                "origin": {"enum": ["user", "framework", "adapter", "worker", "model", "tool", "host"]},
            },
        },
    },
}  # fmt: skip
"""A run's result, as the contract has it."""


def total(category: str) -> float:
    """Add a category of the example up, as its tool should."""
    with (EXAMPLE / "expenses.csv").open(newline="") as file:
        return float(sum(Decimal(row["amount"]) for row in csv.DictReader(file) if row["category"] == category))


@pytest.mark.feature("AF-016")
@pytest.mark.framework("crewai")
async def test_three_frameworks_side_by_side_print_one_object_each_and_nothing_else(shared_project: Project) -> None:
    done = await shared_project.command(
        "run", str(EXAMPLE), "How much was travel?", "--on", ",".join(FRAMEWORKS), "--json"
    )
    assert done.code == 0, done
    assert len(done.objects) == 3
    assert {each["framework"] for each in done.objects} == set(FRAMEWORKS)
    for result in done.objects:
        jsonschema.validate(result, RESULT)
        assert result["status"] == "succeeded", result
        assert result["tool_calls"] == [
            {"name": "total_for", "arguments": {"category": "travel"}, "result": total("travel")}
        ]
        assert str(total("travel")) in result["output"]
        assert result["model_calls"] >= 2
        assert result["usage"]["input_tokens"] > 0
        assert result["release"][0].isdigit()
        assert result["error"] is None
    assert len({result["run_id"] for result in done.objects}) == 3


@pytest.mark.framework("langchain")
@pytest.mark.framework("pydantic-ai")
async def test_people_get_a_table_of_the_frameworks(shared_project: Project) -> None:
    done = await shared_project.command(
        "run", str(EXAMPLE), "How much was travel?", "--on", "langchain,pydantic-ai", variables={"COLUMNS": "200"},
    )  # fmt: skip
    assert done.code == 0, done
    header, *rows = [line for line in done.out.splitlines() if line.strip()]
    assert header.split() == ["framework", "status", "answer", "tool", "calls", "tokens", "time"]
    for framework in ("langchain", "pydantic-ai"):
        (row,) = [each for each in rows if each.split()[0] == framework]
        assert "succeeded" in row
        assert f"total_for(category='travel') → {total('travel')}" in row


async def test_one_framework_prints_the_answer_alone(shared_project: Project) -> None:
    done = await shared_project.command("run", shared_project.agent(), "hello there")
    assert (done.code, done.out) == (0, "FINAL: hello there\n")


async def test_the_input_comes_from_an_argument_from_stdin_or_from_a_file(shared_project: Project) -> None:
    agent = shared_project.agent()
    shared_project.write("question.txt", "from the file")
    assert (await shared_project.run(agent, "from the argument"))["output"] == "FINAL: from the argument"
    assert (await shared_project.run(agent, "-", stdin="from stdin"))["output"] == "FINAL: from stdin"
    assert (await shared_project.run(agent, "@question.txt"))["output"] == "FINAL: from the file"


async def test_exit_codes_tell_success_failure_and_usage_apart(shared_project: Project) -> None:
    agent = shared_project.agent()
    assert (await shared_project.command("run", agent, "hello")).code == 0
    assert (await shared_project.command("run", agent, "hello", "--model", "openai:fail-401")).code == 1
    assert (await shared_project.command("run", agent, "hello", "--on", "python,nothing")).code == 1
    for wrong in (
        ["run", agent, "@missing.txt"],
        ["run", agent, "hello", "--label", "novalue"],
        ["run", agent, "hello", "--on", "python,python"],
        ["run", agent, "hello", "--on", "python,"],
        ["run", agent, "hello", "--bogus"],
        ["run"],
        ["runs", "list", "--limit", "0"],
        ["nonsense"],
    ):
        done = await shared_project.command(*wrong)
        assert (done.code, done.out) == (2, ""), done
        assert done.err, wrong


async def test_our_own_bug_ends_with_3_and_a_report(own_project: Project) -> None:
    broken = own_project.write(
        "broken/sitecustomize.py", "import agentforge.api.http as http\nhttp.HttpClient = None\n"
    )
    done = await own_project.command(
        "run", own_project.agent(), "x", "--json", variables={"PYTHONPATH": str(broken.parent)}
    )
    assert (done.code, done.out) == (3, ""), done
    assert "error[AF900]" in done.err
    report = done.err.rpartition("the report is in `")[2].partition("`")[0]
    assert "Traceback" in own_project.root.joinpath(report).read_text()


@pytest.mark.parametrize("framework", ["python", pytest.param("langchain", marks=pytest.mark.framework("langchain"))])
async def test_ctrl_c_cancels_the_runs_and_exits_130(own_project: Project, framework: str) -> None:
    agent = own_project.agent()
    command = await own_project.start("run", agent, "x", "--on", framework, "--model", "openai:slow-600", "--json")
    async with asyncio.timeout(90):
        await own_project.model.wait_for_requests(1)
    command.interrupt()
    done = await command.done()
    assert (done.code, done.out) == (130, ""), done
    (run,) = (await own_project.command("runs", "list", "--json")).objects
    assert run["status"] == "cancelled"
    assert run["error"] is None
    async with asyncio.timeout(10):
        await own_project.model.wait_until_idle()
    assert own_project.model.requests[0].aborted


async def test_ctrl_c_cancels_every_run_that_goes_on_side_by_side(own_project: Project) -> None:
    agent = own_project.agent()
    command = await own_project.start(
        "run", agent, "x", "--on", "python,python@3.11", "--model", "openai:slow-600", "--json"
    )
    async with asyncio.timeout(60):
        await own_project.model.wait_for_requests(2)
    command.interrupt()
    assert (await command.done()).code == 130
    runs = (await own_project.command("runs", "list", "--json")).objects
    assert [run["status"] for run in runs] == ["cancelled", "cancelled"]


@pytest.mark.feature("AF-017")
async def test_an_alias_of_the_project_file_reaches_its_endpoint_with_the_real_key(own_project: Project) -> None:
    own_project.write(
        "agentforge.toml",
        f'[models.mine]\nbase_url = "{own_project.model.base_url}"\napi_key = "${{env:MY_KEY}}"\nmodel = "echo"\n'
        "settings = { temperature = 0.5 }\n",
    )
    agent = own_project.agent(model="mine", settings={"max_tokens": 17})
    own_project.variables = {"MY_KEY": KEY}
    result = await own_project.run(agent)
    assert result["status"] == "succeeded", result
    (request,) = own_project.model.requests
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.model == "echo"
    assert (request.json["temperature"], request.json["max_tokens"]) == (0.5, 17)
    for file in (own_project.root / ".agentforge").rglob("*"):
        if file.is_file():
            assert KEY.encode() not in file.read_bytes(), file


async def test_each_command_brings_its_own_key_to_the_host_that_runs(shared_project: Project) -> None:
    agent = shared_project.agent()
    await shared_project.run(agent)
    await shared_project.run(agent, variables={"OPENAI_API_KEY": "sk-another-key-000000"})
    assert [request.header("authorization") for request in shared_project.model.requests[-2:]] == [
        f"Bearer {KEY}", "Bearer sk-another-key-000000",
    ]  # fmt: skip


async def test_tools_get_typed_arguments_and_their_results_come_back(shared_project: Project) -> None:
    tools = '''
from dataclasses import dataclass

@dataclass
class Item:
    name: str
    price: float

def add_up(items: list[Item], tax: float = 0.5) -> dict:
    """Add prices up.

    Args:
        items: What was bought.
    """
    return {"net": sum(item.price for item in items), "tax": tax}
'''
    arguments = {"items": [{"name": "pen", "price": 1.5}, {"name": "ink", "price": 2}]}
    model = shared_project.model.script("buy", Step(calls=[CalledTool("add_up", arguments)]), Step(text="done: {tool}"))
    result = await shared_project.run(
        shared_project.with_tools("shop", tools, "add_up"), "x", "--model", f"openai:{model}"
    )
    assert result["tool_calls"] == [{"name": "add_up", "arguments": arguments, "result": {"net": 3.5, "tax": 0.5}}]
    assert result["output"] == 'done: {"net": 3.5, "tax": 0.5}'


async def test_detached_runs_go_on_in_the_host(shared_project: Project) -> None:
    run_id = await shared_project.detached(shared_project.agent(), "later")
    assert (await shared_project.ended(run_id))["output"] == "FINAL: later"
    shown = (await shared_project.command("runs", "show", run_id, "--json")).result
    assert (shown["run_id"], shown["output"]) == (run_id, "FINAL: later")


async def test_streaming_shows_the_answer_as_it_comes(shared_project: Project) -> None:
    model = shared_project.model.script("song", Step(text="one two three four"))
    done = await shared_project.command("run", shared_project.agent(), "x", "--stream", "--model", f"openai:{model}")
    assert (done.code, done.out) == (0, "one two three four\n"), json.dumps(done.err)
