"""A worker that is hostile, against a real host: what it says of others, what it says wrongly, how much it says."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentforge.api.connection import Connection
from agentforge.api.place import host_place

from .project_world import Project

pytestmark = pytest.mark.asyncio(loop_scope="module")

VICTIM = """
import asyncio

async def agent(input, ctx):
    await ctx.checkpoint("begun")
    await asyncio.sleep(600)
"""
SPEAKS_OF_OTHERS = """
async def agent(input, ctx):
    method, params = input["method"], {"run_id": input["run"], "attempt": 1, **input["params"]}
    if input["notify"]:
        ctx._peer.notify(method, params)
        await ctx.now()  # what was said before an answer has arrived
        return "said"
    try:
        return {"answer": await ctx._peer.call(method, params, 5)}
    except Exception as error:
        return {"code": getattr(error, "code", None), "message": str(error)}
"""
SAYS_WRONGLY = """
import asyncio, json
from agentforge_worker.wire import encode_frames

async def agent(input, ctx):
    if ctx.attempt > 1:
        return "well behaved"
    raw = input["raw"].replace("RUN", ctx.run_id).encode()
    ctx._peer._transport.write(raw if input.get("unframed") else encode_frames(raw))
    await asyncio.sleep(60)
"""
ANSWERS_WRONGLY = """
import asyncio

async def agent(input, ctx):
    if ctx.attempt > 1:
        return "well behaved"
    peer = ctx._peer
    send = peer._send
    def wrongly(message):
        if "id" in message and "result" in message:
            message = {**message, **input}
            if "error" in input:
                del message["result"]
        send(message)
    peer._send = wrongly
    return "an answer"
"""
REQUESTS: dict[str, dict[str, Any]] = {
    "tool.call": {"name": "pay", "arguments": {}},
    "effect.open": {"name": "pay", "arguments": {}, "idempotent": False},
    "effect.close": {"effect": "abc", "value": 1},
    "value.take": {"kind": "random"},
    "checkpoint.save": {"name": "not theirs"},
    "question.ask": {"question": "Your password?"},
    "run.call": {"agent": "agent.yaml", "input": ""},
}
NEWS: dict[str, dict[str, Any]] = {
    "event.emit": {"kind": "message.added", "data": {"role": "assistant", "content": "not theirs"}},
    "log.write": {"stream": "stdout", "text": "not theirs"},
    "run.warn": {"message": "not theirs"},
}


@asynccontextmanager
async def under_way(project: Project, agent: str, given: Any = "") -> AsyncIterator[tuple[Connection, str]]:
    """A run that goes on until the block ends."""
    async with project.connection() as connection:
        run = await connection.post("/v1/runs", {"agent": agent, "input": given, "base_dir": str(project.root)})
        run_id = str(run["run_id"])
        await project.until(run_id, "checkpoint.saved")
        try:
            yield connection, run_id
        finally:
            await connection.post(f"/v1/runs/{run_id}/cancel", {})


async def run_of(project: Project, agent: str, given: Any) -> dict[str, Any]:
    """Run an agent with a JSON value as its input."""
    async with project.connection() as connection:
        started = await connection.post("/v1/runs", {"agent": agent, "input": given, "base_dir": str(project.root)})
    return await project.ended(started["run_id"])


@pytest.fixture
async def project(shared_project: Project) -> Project:
    """The module's project, with a host."""
    shared_project.native("first", "async def agent(input, ctx):\n    return 'here'\n")
    assert (await shared_project.run("first"))["output"] == "here"
    return shared_project


@pytest.fixture(autouse=True)
def no_trace(shared_project: Project) -> Any:
    """Whatever a worker does, the host's log has no traceback of it."""
    yield
    log = host_place(shared_project.root).log.read_text()
    assert "Traceback" not in log, log
    assert "never retrieved" not in log, log


# ---- of others


@pytest.mark.framework("python")
@pytest.mark.parametrize("method", [*REQUESTS, *NEWS])
async def test_a_worker_can_not_speak_of_a_run_in_another_worker(project: Project, method: str) -> None:
    victim, attacker = project.native("victim", VICTIM), project.native("attacker", SPEAKS_OF_OTHERS)
    async with under_way(project, victim) as (_, theirs):
        before = await project.events(theirs)
        params = REQUESTS.get(method) or NEWS[method]
        given = {"method": method, "run": theirs, "params": params, "notify": method in NEWS}
        result = await run_of(project, attacker, given)
        assert result["status"] == "succeeded", result
        if method in REQUESTS:
            assert result["output"] == {"code": -32602, "message": "no such run in this worker"}
        assert await project.events(theirs) == before
        assert not any("not theirs" in str(event) for event in await project.events(result["run_id"]))
    assert "not theirs" not in host_place(project.root).log.read_text()


@pytest.mark.framework("python")
@pytest.mark.parametrize("method", [*REQUESTS, *NEWS])
async def test_a_worker_can_not_speak_of_a_run_that_has_ended_in_it(project: Project, method: str) -> None:
    attacker = project.native("attacker", SPEAKS_OF_OTHERS)
    ask = {"method": "value.take", "run": "none", "params": {"kind": "now"}, "notify": False}
    ended = (await run_of(project, attacker, ask))["run_id"]
    before = await project.events(ended)
    params = REQUESTS.get(method) or NEWS[method]
    given = {"method": method, "run": ended, "params": params, "notify": method in NEWS}
    result = await run_of(project, attacker, given)
    if method in REQUESTS:
        assert result["output"] == {"code": -32602, "message": "no such run in this worker"}
    assert await project.events(ended) == before


@pytest.mark.framework("python")
@pytest.mark.parametrize("attempt", [0, 2, -1])
async def test_a_worker_can_not_speak_of_another_attempt(project: Project, attempt: int) -> None:
    code = SPEAKS_OF_OTHERS.replace('input["run"], "attempt": 1', f'ctx.run_id, "attempt": {attempt}')
    code = code.replace(
        "async def agent(input, ctx):", "async def agent(input, ctx):\n    if ctx.attempt > 1: return 'over'"
    )
    attacker = project.native(f"attempt{attempt + 1}", code)
    params = {"method": "value.take", "params": {"kind": "now"}, "notify": False}
    result = await run_of(project, attacker, params)
    if attempt > 0:
        assert result["output"] == {"code": -32001, "message": "this attempt is over"}
    else:  # there can be no such attempt
        assert result["output"] == "over"


TOOLS_THAT_SPEAK = """
import asyncio, gc

def meddle(run: str) -> str:
    peer = next(each for each in gc.get_objects() if type(each).__name__ == "Peer")
    asked = peer.call("value.take", {"run_id": run, "attempt": 1, "kind": "now"})
    try:
        return str(asyncio.run_coroutine_threadsafe(asked, peer._loop).result(5))
    except Exception as error:
        return f"{error.code} {error}"
"""


@pytest.mark.framework("python")
async def test_a_tool_worker_can_not_speak_of_runs_either(project: Project) -> None:
    from agentforge_conformance.scripted_model import CalledTool, Step

    agent = project.with_tools("meddling", TOOLS_THAT_SPEAK, "meddle")
    async with under_way(project, project.native("victim", VICTIM)) as (_, theirs):
        model = project.model.script(
            "meddles", Step(calls=[CalledTool("meddle", {"run": theirs})]), Step(text="{tool}"), per="conversation"
        )
        result = await project.run(agent, "go", "--model", f"openai:{model}")
    assert "-32602 no such run in this worker" in result["tool_calls"][0]["result"]


# ---- wrongly


def said(method: str, **params: Any) -> str:
    """Return a notification in the name of the run that sends it."""
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": {"run_id": "RUN", "attempt": 1, **params}})


def asked(method: str, **params: Any) -> str:
    """Return a request in the name of the run that sends it."""
    return json.dumps({**json.loads(said(method, **params)), "id": "x"})


WRONG: dict[str, tuple[str, str]] = {
    "no-json": ("{not json", "not JSON"),
    "no-rpc": ("[1, 2]", "not JSON-RPC"),
    "too-deep": ("[" * 5000, "deep"),
    "too-much": ("[" + "[]," * 600_000 + "1]", "lists and objects"),
    "a-host-only-event": (said("event.emit", kind="run.finished", data={}), "malformed event.emit"),
    "a-host-only-stream": (said("log.write", stream="warning", text="x"), "malformed log.write"),
    "a-tool-without-a-name": (asked("tool.call", arguments={}), "malformed tool.call"),
    "a-long-name": (asked("checkpoint.save", name="n" * 300), "malformed checkpoint.save"),
    "a-question-for-ever": (asked("question.ask", question="?", timeout_s=1e300), "malformed question.ask"),
}


@pytest.mark.framework("python")
@pytest.mark.parametrize(("raw", "reason"), WRONG.values(), ids=WRONG)
async def test_a_worker_that_breaks_the_protocol_is_replaced_and_its_run_tried_again(
    project: Project, raw: str, reason: str
) -> None:
    await is_replaced(project, {"raw": raw}, reason)


@pytest.mark.framework("python")
async def test_a_worker_that_sends_no_frames_is_replaced_and_its_run_tried_again(project: Project) -> None:
    await is_replaced(project, {"raw": "\x7fELF" * 10, "unframed": True}, "frame")


async def is_replaced(project: Project, given: dict[str, Any], reason: str) -> None:
    result = await run_of(project, project.native("wrong", SAYS_WRONGLY), given)
    assert (result["status"], result["output"], result["attempts"]) == ("succeeded", "well behaved", 2), result
    (lost,) = [event for event in await project.events(result["run_id"]) if event["kind"] == "attempt.lost"]
    assert reason in lost["data"]["reason"]
    assert "protocol error" in lost["data"]["reason"]


@pytest.mark.framework("python")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"result": "text"}, "malformed answer to run.start"),
        ({"result": {"output": "x", "messages": [{"role": "root", "content": "x"}]}}, "malformed answer to run.start"),
        ({"result": {"output": "x", "metrics": {"cpu_ms": "much"}}}, "malformed answer to run.start"),
        ({"error": {"code": -32000, "message": "x", "data": {"code": "AF9", "message": "x"}}}, "malformed answer"),
        ({"error": {"code": -32000, "message": "x"}}, "malformed answer"),
        ({"error": "text"}, "an error answer without a code"),
    ],
    ids=["text", "a-role", "metrics", "a-code", "no-data", "no-error"],
)
async def test_a_worker_that_answers_wrongly_is_replaced_and_its_run_tried_again(
    project: Project, answer: dict[str, Any], reason: str
) -> None:
    result = await run_of(project, project.native("answers", ANSWERS_WRONGLY), answer)
    assert (result["status"], result["output"], result["attempts"]) == ("succeeded", "well behaved", 2), result
    (lost,) = [event for event in await project.events(result["run_id"]) if event["kind"] == "attempt.lost"]
    assert reason in lost["data"]["reason"]


@pytest.mark.framework("python")
async def test_an_error_object_may_hold_any_details(project: Project) -> None:
    details = {"hint": "h", "message": "m", "self": 1, "code": "AF000"}
    error = {
        "error": {"code": -32000, "message": "x", "data": {"code": "AF422", "message": "mine", "details": details}}
    }
    result = await run_of(project, project.native("details", ANSWERS_WRONGLY), error)
    assert (result["status"], result["error"]["code"]) == ("failed", "AF422")
    assert result["error"]["details"] == details


# ---- too much

CHATTERS = """
import asyncio

async def agent(input, ctx):
    for number in range(input["lines"]):
        print("x" * input["size"])
        if number % 100 == 0:
            await asyncio.sleep(0)
    return "done"
"""
PRODUCES = """
async def agent(input, ctx):
    return "x" * input
"""
GOES_ON = """
import asyncio

async def agent(input, ctx):
    if input == "talk":
        for _ in range(5000):
            print("y" * 16000)
            await asyncio.sleep(0)
        return "talked"
    await ctx.checkpoint("begun")
    while ctx.attempt == 1:
        await asyncio.sleep(0.05)
        await ctx.now()
"""


@pytest.mark.framework("python")
@pytest.mark.parametrize(
    ("lines", "size", "words"),
    [(110_000, 1, "events and lines of log are over its limit of 100000"), (5000, 16_000, "limit of 64 MiB")],
    ids=["events", "bytes"],
)
async def test_a_run_that_writes_too_much_ends(project: Project, lines: int, size: int, words: str) -> None:
    result = await run_of(project, project.native("chatters", CHATTERS), {"lines": lines, "size": size})
    assert (result["status"], result["error"]["code"]) == ("failed", "AF447"), result["error"]
    assert words in result["error"]["message"]
    assert result["attempts"] == 1


@pytest.mark.framework("python")
async def test_a_result_counts_too(project: Project) -> None:
    produces = project.native("produces", PRODUCES)
    assert (await run_of(project, produces, 1_000_000))["status"] == "succeeded"
    code = "    print('x' * 40_000_000)\n    return 'x' * 30_000_000\n"
    chatty = project.native("chatty", "async def agent(input, ctx):\n" + code)
    result = await run_of(project, chatty, "")
    assert (result["status"], result["error"]["code"]) == ("failed", "AF447")


@pytest.mark.framework("python")
async def test_the_neighbours_of_a_run_that_writes_too_much_go_on_in_its_worker(project: Project) -> None:
    agent = project.native("neighbours", GOES_ON, "python")
    async with under_way(project, agent) as (_, neighbour):
        result = await run_of(project, agent, "talk")
        assert result["error"]["code"] == "AF447"
        before = await project.events(neighbour)
        async with asyncio.timeout(20):
            while len(events := await project.events(neighbour)) < len(before) + 5:
                await asyncio.sleep(0.1)
        begun = [event["data"] for event in events if event["kind"] == "attempt.started"]
        begun += [e["data"] for e in await project.events(result["run_id"]) if e["kind"] == "attempt.started"]
        assert [each["attempt"] for each in begun] == [1, 1]
        assert begun[0]["worker"] == begun[1]["worker"]


# ---- children

ASKS_FOR_A_CHILD = """
async def agent(input, ctx):
    params = {"run_id": ctx.run_id, "attempt": ctx.attempt, "agent": input, "input": ""}
    try:
        return await ctx._peer.call("run.call", params)
    except Exception as error:
        return error.data
"""
RECURSES = """
async def agent(input, ctx):
    try:
        child = await ctx.run_agent("agent.yaml", "")
    except Exception as error:
        return [error.code]
    return ["run", *child["output"]]
"""
CHILD = {"name": "child", "instructions": "Answer.", "framework": "python"}


@pytest.mark.framework("python")
@pytest.mark.parametrize(
    ("asked_for", "words"),
    [
        ("/etc/passwd", "not in the agent's own folder"),
        ("../../agentforge.toml", "not in the agent's own folder"),
        ("..", "not in the agent's own folder"),
        ("a/../../b", "not in the agent's own folder"),
        ({**CHILD, "sandbox": "none"}, "`sandbox`"),
        ({**CHILD, "network": ["127.0.0.1:22"]}, "`network`"),
        ({**CHILD, "permissions": {"read": ["/"]}}, "`permissions`"),
        ({**CHILD, "requirements": ["evil @ file:///tmp/evil.zip"]}, "`requirements`"),
        ({**CHILD, "limits": {"memory_mib": 10**6, "steps": 3}}, "`limits.memory_mib`"),
    ],
    ids=str,
)
async def test_a_child_is_no_way_out_of_the_fence(project: Project, asked_for: Any, words: str) -> None:
    output = (await run_of(project, project.native("parent", ASKS_FOR_A_CHILD), asked_for))["output"]
    assert output["code"] == "AF723"
    assert words in output["message"]
    assert "root:" not in str(output)


@pytest.mark.framework("python")
async def test_a_child_given_as_a_value_runs_within_its_parents_fence(project: Project) -> None:
    result = await run_of(project, project.native("parent", ASKS_FOR_A_CHILD), {**CHILD, "limits": {"steps": 3}})
    assert result["output"]["status"] == "succeeded", result


@pytest.mark.framework("python")
async def test_runs_that_start_themselves_come_to_an_end(project: Project) -> None:
    assert (await run_of(project, project.native("recurses", RECURSES), ""))["output"] == ["run"] * 8 + ["AF723"]


# ---- run tokens

USES_TOKENS = """
import asyncio, json, os, urllib.error, urllib.request

async def agent(input, ctx):
    said = {}
    for name, token in {"own": ctx.token, **json.loads(input)}.items():
        body = json.dumps({"model": "fake" if name != "alias" else "other", "messages": []}).encode()
        token = ctx.token if name == "alias" else token
        url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
        request = urllib.request.Request(url, body, {"Authorization": "Bearer " + token})
        try:
            said[name] = await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=10).status)
        except urllib.error.HTTPError as error:
            said[name] = [error.code, json.load(error)["error"]["code"]]
    return {"said": said, "token": ctx.token}
"""
TELLS_ITS_TOKEN = """
import asyncio

async def agent(input, ctx):
    await ctx.checkpoint(ctx.token)
    await asyncio.sleep(600)
"""


@pytest.mark.framework("python")
async def test_no_token_but_its_own_is_good_in_a_worker(project: Project) -> None:
    uses = project.native("uses", USES_TOKENS)
    model = ("--model", "openai:fake")
    replayed = (await project.run(uses, "{}", *model))["output"]["token"]
    async with under_way(project, project.native("tells", TELLS_ITS_TOKEN)) as (_, other):
        saved = await project.until(other, "checkpoint.saved")
        foreign = saved["data"]["name"]
        assert foreign.startswith("af-run-")
        given = {"replayed": replayed, "foreign": foreign, "forged": "af-run-" + "x" * 43, "none": "", "alias": ""}
        said = (await project.run(uses, json.dumps(given), *model))["output"]["said"]
    refused = [401, "AF510"]
    assert said == {
        "own": 200,
        "replayed": refused,
        "foreign": refused,
        "forged": refused,
        "none": refused,
        "alias": [404, "AF508"],
    }
