"""Everything that can go wrong with a run ends with an AF code, a hint and exit code 1, and never with a traceback."""

import asyncio
import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import EXAMPLE, Project

pytestmark = pytest.mark.asyncio(loop_scope="module")

LANGCHAIN = pytest.param("langchain", marks=pytest.mark.framework("langchain"))
TOOLS = '''
import os, time
from pathlib import Path

def raises(why: str) -> str:
    """Fail."""
    raise LookupError("no such report")

def hangs(why: str) -> str:
    """Never return."""
    time.sleep(600)

def dies(why: str) -> str:
    """Take the process along."""
    os._exit(9)

def unspeakable(why: str) -> object:
    """Return something that JSON can't hold."""
    return object()

def fine(why: str) -> str:
    """Work."""
    return why
'''


def failed(result: dict, code: str, origin: str, *words: str) -> None:
    """Assert how a run failed: code, origin, facts in the message, something to do about it."""
    error = result["error"]
    assert result["status"] == "failed", result
    assert error["code"] == code, error
    assert error["origin"] == origin, error
    assert error["hint"], error
    for word in words:
        assert word in error["message"], error


async def refused(project: Project, *arguments: str, **options: object) -> dict:
    """Run a command whose one run is refused before it begins; return its error, which stderr has told as well."""
    human = await project.command("run", *arguments, **options)
    assert (human.code, human.out) == (1, ""), human
    done = await project.command("run", *arguments, "--json", **options)
    assert done.code == 1, done
    assert done.result["run_id"] is None
    assert done.result["status"] == "failed"
    assert f"error[{done.error['code']}]" in human.err
    assert done.error["message"] in human.err
    assert done.error["hint"]
    assert "hint: " in human.err
    return done.error


# ---- what is refused before a run begins


async def test_a_missing_agent_file_is_named(shared_project: Project) -> None:
    error = await refused(shared_project, "missing.yaml", "x", "--on", "python")
    assert error["code"] == "AF101"
    assert "missing.yaml" in error["message"]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("name: x\ninstructions: [unclosed\n", "AF102", ["agent.yaml:"]),
        ("name: x\ninstructions: hi\ntool: []\n", "AF103", ["`tool`", "agent.yaml:3"]),
        ("name: x\ninstructions: hi\nlimits: {steps: many}\n", "AF104", ["steps", "agent.yaml:3"]),
        ("name: x\n", "AF105", ["instructions"]),
        ("name: x\ninstructions: hi\ntools: [{python: 'nowhere.py:f'}]\n", "AF114", ["nowhere.py"]),
    ],
    ids=["not-yaml", "unknown-key", "wrong-value", "missing-key", "missing-tool-file"],
)
async def test_a_wrong_agent_file_is_named_with_line_and_key(
    shared_project: Project, text: str, code: str, words: list[str]
) -> None:
    shared_project.write("wrong/agent.yaml", text)
    error = await refused(shared_project, "wrong", "x", "--on", "python")
    assert error["code"] == code, error
    assert all(word in error["message"] for word in words), error


@pytest.mark.parametrize(
    ("reference", "code", "word"),
    [
        ("langchian", "AF202", "langchian"),
        ("langchain@9", "AF203", "9"),
        ("langchain==0.0.0", "AF204", "0.0.0"),
        ("langchain@", "AF201", "langchain@"),
    ],
)
async def test_unknown_frameworks_and_series_are_refused(
    shared_project: Project, reference: str, code: str, word: str
) -> None:
    error = await refused(shared_project, shared_project.agent(), "x", "--on", reference)
    assert error["code"] == code, error
    assert word in error["message"], error


async def test_an_agent_that_names_no_framework_is_asked_for_one(shared_project: Project) -> None:
    error = await refused(shared_project, str(EXAMPLE), "x")
    assert error["code"] == "AF705", error


async def test_an_unknown_model_alias_is_refused_with_the_known_ones(shared_project: Project) -> None:
    error = await refused(shared_project, shared_project.agent(), "x", "--model", "gpt")
    assert error["code"] == "AF107", error
    assert "local" in error["hint"]


async def test_a_key_that_is_not_set_is_named(shared_project: Project) -> None:
    error = await refused(shared_project, shared_project.agent(), "x", "--model", "groq:llama")
    assert error["code"] == "AF108", error
    assert "GROQ_API_KEY" in error["message"]


# ---- the model


MODEL_FAILURES = {
    "fail-401": ("AF501", "401"),
    "fail-429": ("AF502", "429"),
    "fail-500": ("AF504", "500"),
    "fail-400": ("AF503", "400"),
    "cut-stream": ("AF507", "broke off"),
}


@pytest.mark.parametrize(
    ("framework", "model"),
    [
        *(("python", model) for model in MODEL_FAILURES),
        pytest.param("langchain", "fail-429", marks=pytest.mark.framework("langchain")),
        pytest.param("langchain", "cut-stream", marks=pytest.mark.framework("langchain")),
    ],
)
async def test_a_failing_model_fails_the_run(shared_project: Project, framework: str, model: str) -> None:
    code, word = MODEL_FAILURES[model]
    agent = shared_project.agent()
    result = await shared_project.run(agent, "x", "--on", framework, "--model", f"openai:{model}")
    failed(result, code, "model", word, f"openai:{model}")
    events = await shared_project.events(result["run_id"])
    failures = [event["data"]["error"]["code"] for event in events if event["kind"] == "model.failed"]
    assert failures
    assert set(failures) == {code}


async def test_a_stream_that_breaks_off_fails_the_run(shared_project: Project) -> None:
    done = await shared_project.command(
        "run", shared_project.agent(), "x", "--model", "openai:cut-stream", "--stream", "--json"
    )
    failed(done.objects[-1], "AF507", "model")
    assert done.code == 1


async def test_a_model_that_says_nothing_is_ended_by_the_time_limit(shared_project: Project) -> None:
    agent = shared_project.agent("slow", limits={"time_s": 1})
    failed(await shared_project.run(agent, "x", "--model", "openai:silent"), "AF703", "user", "1 s")


async def test_an_endpoint_that_is_not_there_fails_the_run(shared_project: Project) -> None:
    variables = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    failed(await shared_project.run(shared_project.agent(), "x", variables=variables), "AF505", "model", "127.0.0.1:9")


# ---- tools


@pytest.mark.parametrize("framework", ["python", LANGCHAIN])
@pytest.mark.parametrize(
    ("function", "code", "origin", "word"),
    [
        ("raises", "AF603", "tool", "LookupError: no such report"),
        ("hangs", "AF605", "tool", "0.3 s"),
        ("unspeakable", "AF604", "tool", "object"),
    ],
)
async def test_a_failing_tool_fails_the_run(
    shared_project: Project, framework: str, function: str, code: str, origin: str, word: str
) -> None:
    agent = shared_project.with_tools(f"tool-{function}", TOOLS, function, timeout_s=0.3)
    result = await shared_project.run(agent, "x", "--on", framework)
    failed(result, code, origin, word)
    (call,) = result["tool_calls"]
    assert (call["name"], "result" in call) == (function, False)
    assert word in call["error"]
    kinds = [event["kind"] for event in await shared_project.events(result["run_id"])]
    assert kinds.count("tool.called") == kinds.count("tool.failed") == 1


@pytest.mark.parametrize("framework", ["python", LANGCHAIN])
async def test_a_tool_that_takes_its_process_along_has_the_run_wait(shared_project: Project, framework: str) -> None:
    agent = shared_project.with_tools("tool-dies", TOOLS, "dies")
    result = await shared_project.run(agent, "x", "--on", framework)
    assert result["status"] == "waiting"
    (interrupt,) = result["interrupts"]
    assert (interrupt["kind"], interrupt["data"]["name"]) == ("tool", "dies")


async def test_an_idempotent_tool_that_takes_its_process_along_is_tried_again_and_fails_the_run_then(
    shared_project: Project,
) -> None:
    agent = shared_project.with_tools("tool-dies-again", TOOLS, "dies", idempotent=True)
    failed(await shared_project.run(agent, "x"), "AF607", "tool", "`dies`")


async def test_after_a_tool_hung_the_next_call_gets_a_fresh_tool_worker(shared_project: Project) -> None:
    agent = shared_project.with_tools("recovers", TOOLS, "hangs", "fine", timeout_s=0.3)
    hang = shared_project.model.script("hang-then-work", Step(calls=[CalledTool("hangs", {"why": "a"})]))
    work = shared_project.model.script("work", Step(calls=[CalledTool("fine", {"why": "b"})]), Step(text="{tool}"))
    assert (await shared_project.run(agent, "x", "--model", f"openai:{hang}"))["error"]["code"] == "AF605"
    assert (await shared_project.run(agent, "x", "--model", f"openai:{work}"))["output"] == "b"


async def test_a_failure_may_be_told_to_the_model_instead(shared_project: Project) -> None:
    agent = shared_project.with_tools("tells", TOOLS, "raises", on_error="tell")
    result = await shared_project.run(agent)
    assert result["status"] == "succeeded", result
    assert "LookupError: no such report" in result["output"]
    (call,) = result["tool_calls"]
    assert "LookupError" in call["error"]


async def test_a_tool_that_the_model_made_up_is_an_error_of_the_model(shared_project: Project) -> None:
    agent = shared_project.with_tools("made-up", TOOLS, "fine")
    model = shared_project.model.script("makes-up", Step(calls=[CalledTool("imaginary", {"a": 1})]))
    failed(await shared_project.run(agent, "x", "--model", f"openai:{model}"), "AF606", "model", "imaginary")


@pytest.mark.framework("langchain")
async def test_a_framework_that_has_its_own_answer_to_a_made_up_tool_gives_it(shared_project: Project) -> None:
    agent = shared_project.with_tools("made-up", TOOLS, "fine")
    calls = Step(calls=[CalledTool("imaginary", {"a": 1})])
    model = shared_project.model.script("makes-up-once", calls, Step(text="{tool}"))
    result = await shared_project.run(agent, "x", "--on", "langchain", "--model", f"openai:{model}")
    assert "imaginary is not a valid tool" in result["output"], result
    assert result["tool_calls"] == []


async def test_arguments_that_the_types_do_not_admit_are_an_error_of_the_model(shared_project: Project) -> None:
    agent = shared_project.with_tools("typed", "def count(n: int) -> int:\n    return n\n", "count")
    model = shared_project.model.script("mistyped", Step(calls=[CalledTool("count", {"n": "many"})]))
    failed(await shared_project.run(agent, "x", "--model", f"openai:{model}"), "AF602", "model", "`n`")


async def test_a_tool_that_cannot_be_imported_is_the_users_error(shared_project: Project) -> None:
    agent = shared_project.with_tools("imports", "import nowhere_to_be_found\ndef f() -> int:\n    return 1\n", "f")
    failed(await shared_project.run(agent), "AF601", "user", "nowhere_to_be_found")


async def test_a_tool_file_that_is_not_python_is_the_users_error_and_named_with_its_line(
    shared_project: Project,
) -> None:
    agent = shared_project.with_tools("syntax", "def f(a: int) -> int:\n    return a +\n", "f")
    failed(await shared_project.run(agent), "AF601", "user", "tools.py", "line 2")


# ---- the worker


@pytest.mark.parametrize("framework", ["python", LANGCHAIN])
async def test_a_worker_that_is_killed_loses_its_attempt_and_the_next_one_ends_the_run(
    shared_project: Project, framework: str
) -> None:
    agent = shared_project.agent(f"killed-{framework}", framework=framework)
    steps = Step(text="too late", delay_s=600), Step(text="after all")
    model = shared_project.model.script(f"killed-{framework}", *steps)
    run_id = await shared_project.detached(agent, "x", "--model", f"openai:{model}")
    started = await shared_project.until(run_id, "attempt.started")
    await shared_project.until(run_id, "model.requested")
    os.kill(started["data"]["pid"], signal.SIGKILL)
    result = await shared_project.ended(run_id)
    assert (result["status"], result["output"], result["attempts"]) == ("succeeded", "after all", 2)
    events = await shared_project.events(run_id)
    first, second = [event["data"]["pid"] for event in events if event["kind"] == "attempt.started"]
    assert first != second
    (lost,) = [event["data"]["reason"] for event in events if event["kind"] == "attempt.lost"]
    assert "SIGKILL" in lost
    assert _attempts(shared_project, run_id) == ["lost", "succeeded"]


async def test_a_native_agent_that_raises_is_the_users_error_with_its_traceback_in_the_details(
    shared_project: Project,
) -> None:
    agent = shared_project.native("raising", "async def agent(input, ctx):\n    return {}['nothing']\n")
    result = await shared_project.run(agent)
    failed(result, "AF422", "user", "KeyError")
    assert "code.py" in result["error"]["details"]["traceback"]
    shown = await shared_project.command("runs", "show", result["run_id"], "--json")
    assert "code.py" in shown.result["error"]["details"]["traceback"]


# ---- the answer and the limits


WRONG_ANSWER = {
    "python": Step(text='{"total": "much"}'),
    "langchain": Step(calls=[CalledTool("answer", {"total": "much"})]),  # how LangChain asks for a schema
}


@pytest.mark.parametrize("framework", ["python", LANGCHAIN])
async def test_an_answer_that_does_not_match_its_schema_fails_the_run(shared_project: Project, framework: str) -> None:
    schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    agent = shared_project.agent("typed-answer", output=schema, limits={"steps": 5})
    wrong = shared_project.model.script(f"wrong-{framework}", WRONG_ANSWER[framework])
    result = await shared_project.run(agent, "x", "--on", framework, "--model", f"openai:{wrong}")
    failed(result, "AF702", "model", "$.total")
    assert result["error"]["details"]["output"] == {"total": "much"}


async def test_an_answer_that_matches_its_schema_is_a_value(shared_project: Project) -> None:
    agent = shared_project.agent("typed-answer", output={"type": "object", "required": ["total"]})
    right = shared_project.model.script("right", Step(text='{"total": 4.5}'))
    assert (await shared_project.run(agent, "x", "--model", f"openai:{right}"))["output"] == {"total": 4.5}


async def test_an_answer_that_is_no_json_does_not_match_its_schema(shared_project: Project) -> None:
    agent = shared_project.agent("typed-answer", output={"type": "object"})
    prose = shared_project.model.script("prose", Step(text="It was a lot."))
    failed(await shared_project.run(agent, "x", "--model", f"openai:{prose}"), "AF702", "model", "It was a lot.")


@pytest.mark.parametrize("framework", ["python", LANGCHAIN])
async def test_the_limit_of_steps_ends_the_run(shared_project: Project, framework: str) -> None:
    agent = shared_project.with_tools("endless", TOOLS, "fine")
    shared_project.agent(agent, tools=[{"python": "tools.py:fine"}], limits={"steps": 3})
    model = shared_project.model.script(f"endless-{framework}", Step(calls=[CalledTool("fine", {"why": "more"})]))
    result = await shared_project.run(agent, "x", "--on", framework, "--model", f"openai:{model}")
    failed(result, "AF704", "user", "3 steps")
    assert result["model_calls"] <= 3


async def test_the_limit_of_tokens_ends_the_run(shared_project: Project) -> None:
    agent = shared_project.with_tools("talks", TOOLS, "fine")
    shared_project.agent(agent, tools=[{"python": "tools.py:fine"}], limits={"tokens": 20})
    model = shared_project.model.script("talks", Step(calls=[CalledTool("fine", {"why": "w " * 30})]))
    failed(await shared_project.run(agent, "x", "--model", f"openai:{model}"), "AF704", "user", "20 tokens")


async def test_the_limit_of_time_ends_the_run_and_its_model_call(shared_project: Project) -> None:
    agent = shared_project.agent("late", limits={"time_s": 5})
    before = len(shared_project.model.requests)
    failed(await shared_project.run(agent, "x", "--model", "openai:slow-600"), "AF703", "user", "5 s")
    async with asyncio.timeout(10):
        await shared_project.model.wait_until_idle()
    assert shared_project.model.requests[before].aborted


# ---- other commands


@pytest.mark.parametrize("command", ["show", "events", "watch", "cancel"])
async def test_an_unknown_run_is_an_error(shared_project: Project, command: str) -> None:
    done = await shared_project.command("runs", command, "r000")
    assert (done.code, done.out) == (1, ""), done
    assert "error[AF701]" in done.err
    assert "r000" in done.err


# ---- a project that can't be served: each has its own


async def refusal_of(project: Project) -> str:
    """Run a command that can't get a host, twice; returns what it said."""
    agent = project.agent()
    first = await project.command("run", agent, "x")
    assert (first.code, first.out) == (1, ""), first
    second = await project.command("runs", "list", "--json")
    assert (second.code, second.out) == (1, ""), second
    code = second.err.partition("error[")[2].partition("]")[0]
    assert f"error[{code}]" in first.err, (first, second)
    assert "hint: " in second.err
    return second.err


@pytest.mark.asyncio(loop_scope="function")
async def test_a_broken_project_file_is_named_with_line(project: Project) -> None:
    project.write("agentforge.toml", "[models.default]\nbase_url = \n")
    said = await refusal_of(project)
    assert "error[AF102]" in said
    assert "agentforge.toml:2" in said


@pytest.mark.asyncio(loop_scope="function")
async def test_a_literal_key_in_the_project_file_is_refused_and_not_shown(project: Project) -> None:
    project.write("agentforge.toml", '[models.default]\nmodel = "m"\napi_key = "sk-oh-no-012345"\n')
    said = await refusal_of(project)
    assert "error[AF106]" in said
    assert "sk-oh-no" not in said


@pytest.mark.asyncio(loop_scope="function")
async def test_a_database_of_a_newer_agentforge_is_refused(project: Project) -> None:
    assert (await project.run(project.agent()))["status"] == "succeeded"
    await project.stop()
    with sqlite3.connect(project.root / ".agentforge" / "state.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    said = await refusal_of(project)
    assert "error[AF80" in said
    assert "newer" in said


@pytest.mark.asyncio(loop_scope="function")
async def test_a_database_that_is_none_is_refused_and_left_alone(project: Project) -> None:
    project.write(".agentforge/state.db", "this is not a database " * 100)
    said = await refusal_of(project)
    assert "error[AF8" in said
    assert "state.db" in said
    assert (project.root / ".agentforge" / "state.db").read_text() == "this is not a database " * 100


@pytest.mark.asyncio(loop_scope="function")
async def test_a_folder_that_cannot_be_written_is_named(project: Project) -> None:
    project.write(".agentforge", "a file where the folder should be")  # holds for root as well
    said = await refusal_of(project)
    assert "error[AF909]" in said
    assert ".agentforge" in said


@pytest.mark.asyncio(loop_scope="function")
async def test_a_home_that_cannot_be_written_is_named(project: Project, tmp_path: Path) -> None:
    home = project.write("occupied", "a file")
    variables = {"AGENTFORGE_HOME": str(home)}
    done = await project.command("run", project.agent(), "x", "--json", variables=variables)
    assert done.code == 1, done
    said = done.err + json.dumps(done.objects)
    assert str(home) in said
    assert "AF3" in said, said


def _attempts(project: Project, run_id: str) -> list[str]:
    with sqlite3.connect(f"file:{project.root}/.agentforge/state.db?mode=ro", uri=True) as database:
        found = database.execute("SELECT status FROM attempts WHERE run_id = ? ORDER BY number", (run_id,)).fetchall()
    database.close()
    return [status for (status,) in found]
