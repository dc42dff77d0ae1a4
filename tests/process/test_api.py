"""The HTTP API as any client sees it: resources, problem documents, idempotency, pages."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from agentforge.api.place import host_place

from .project_world import KEY, Project

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.feature("AF-181")]

PROBLEM = {"type", "title", "status", "detail", "exit_code", "code", "message", "hint", "origin"}


async def ask(project: Project, method: str, path: str, **options: Any) -> tuple[int, str, Any]:
    """Send a request to the project's host (started if need be); returns status, content type and the JSON."""
    if not host_place(project.root).socket.exists():
        await project.command("runs", "list")
    connector = aiohttp.UnixConnector(str(host_place(project.root).socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://host{path}", **options) as answer,
    ):
        return answer.status, answer.content_type, await answer.json() if await answer.read() else None


def body(project: Project, agent: str, text: Any = "x", **more: Any) -> dict[str, Any]:
    """Return a request for a run."""
    return {"agent": agent, "input": text, "base_dir": str(project.root), "variables": dict(project.variables), **more}


async def test_openapi_describes_every_resource(shared_project: Project) -> None:
    status, _, document = await ask(shared_project, "GET", "/openapi.json")
    assert status == 200
    assert document["openapi"].startswith("3.")
    assert {
        "/v1/host", "/v1/host/stop", "/v1/runs", "/v1/runs/{run_id}", "/v1/runs/{run_id}/cancel",
        "/v1/runs/{run_id}/events", "/v1/runs/resume", "/v1/runs/import", "/v1/runs/{run_id}/resume",
        "/v1/runs/{run_id}/answer", "/v1/runs/{run_id}/checkpoints", "/v1/runs/{run_id}/checkpoints/{number}",
        "/v1/runs/{run_id}/diff", "/v1/runs/{run_id}/rollback", "/v1/runs/{run_id}/fork", "/v1/runs/{run_id}/replay",
        "/v1/runs/{run_id}/export", "/v1/threads", "/v1/threads/{name}", "/v1/environments",
        "/v1/environments/{environment_id}", "/v1/environments/collect", "/v1/environments/export",
        "/v1/environments/import", "/v1/frameworks",
        "/v1/frameworks/{name}", "/v1/catalogue/search", "/v1/catalogue/compare", "/v1/catalogue/folders",
        "/v1/catalogue/deprecations",
    } <= set(document["paths"])  # fmt: skip
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)


async def test_a_run_is_submitted_awaited_and_read_again(shared_project: Project) -> None:
    status, kind, run = await ask(shared_project, "POST", "/v1/runs", json=body(shared_project, shared_project.agent()))
    assert (status, kind) == (201, "application/json")
    path = f"/v1/runs/{run['run_id']}"
    _, _, ended = await ask(shared_project, "GET", path, params={"wait_s": "30"})
    assert (ended["status"], ended["output"]) == ("succeeded", "FINAL: x")
    assert (await ask(shared_project, "GET", path))[2] == ended
    _, _, page = await ask(shared_project, "GET", f"{path}/events", params={"after": "1"})
    assert page["events"][0]["seq"] == 2


async def test_an_agent_may_be_sent_as_an_object(shared_project: Project) -> None:
    agent = {"name": "inline", "instructions": "Answer.", "framework": "python"}
    request = {**body(shared_project, ""), "agent": agent}
    _, _, run = await ask(shared_project, "POST", "/v1/runs", json=request, params={"wait_s": "30"})
    assert (run["agent"], run["status"], run["output"]) == ("inline", "succeeded", "FINAL: x")


async def test_the_same_idempotency_key_is_the_same_run(shared_project: Project) -> None:
    before = len(shared_project.model.requests)
    request = body(shared_project, shared_project.agent(), "once")
    headers = {"Idempotency-Key": "order-66"}
    posts = (ask(shared_project, "POST", "/v1/runs", json=request, headers=headers) for _ in range(5))
    runs = {run["run_id"] for status, _, run in await asyncio.gather(*posts) if status == 201}
    assert len(runs) == 1
    await shared_project.ended(runs.pop())
    assert len(shared_project.model.requests) == before + 1
    other = await ask(shared_project, "POST", "/v1/runs", json=request, headers={"Idempotency-Key": "order-67"})
    assert (await shared_project.ended(other[2]["run_id"]))["status"] == "succeeded"


async def test_runs_come_in_pages_newest_first(shared_project: Project) -> None:
    agent = shared_project.agent("paged")
    made = [(await shared_project.run(agent, str(number)))["run_id"] for number in range(3)]
    found, cursor = [], None
    while True:
        query = {"agent": "paged", "limit": "2", **({"before": cursor} if cursor else {})}
        _, _, page = await ask(shared_project, "GET", "/v1/runs", params=query)
        found += [run["run_id"] for run in page["runs"]]
        if (cursor := page["next"]) is None:
            break
    assert found == made[::-1]


async def test_events_come_in_pages(shared_project: Project) -> None:
    run = await shared_project.run(shared_project.agent())
    whole = await shared_project.events(run["run_id"])
    found, after = [], 0
    while after is not None:
        path = f"/v1/runs/{run['run_id']}/events"
        _, _, page = await ask(shared_project, "GET", path, params={"after": str(after), "limit": "2"})
        assert len(page["events"]) <= 2
        found += page["events"]
        after = page["next"]
    assert found == whole
    assert len(found) > 2


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/v1/runs/nothing", {}, 404, "AF701"),
        ("GET", "/v1/runs/nothing/events", {}, 404, "AF701"),
        ("POST", "/v1/runs/nothing/cancel", {}, 404, "AF701"),
        ("POST", "/v1/runs", {"data": b"{not json"}, 422, "AF902"),
        ("POST", "/v1/runs", {"data": b"\xff\xfe"}, 422, "AF902"),
        ("POST", "/v1/runs", {"json": []}, 422, "AF902"),
        ("POST", "/v1/runs", {"json": {}}, 422, "AF902"),
        ("POST", "/v1/runs", {"json": {"agent": 7}}, 422, "AF902"),
        ("POST", "/v1/runs", {"json": {"agent": "x", "inputt": "y"}}, 422, "AF902"),
        ("POST", "/v1/runs", {"json": {"agent": "x", "labels": {"a": 1}}}, 422, "AF902"),
        ("POST", "/v1/runs", {"json": {"agent": {"name": "x"}}}, 422, "AF105"),
        ("POST", "/v1/runs", {"json": {"agent": "missing.yaml", "on": "python"}}, 404, "AF101"),
        ("GET", "/v1/runs?limit=0", {}, 422, "AF902"),
        ("GET", "/v1/runs?status=odd", {}, 422, "AF902"),
        ("GET", "/v1/runs?label=novalue", {}, 422, "AF902"),
        ("GET", "/v1/runs?label==value", {}, 422, "AF902"),
        ("GET", "/v1/runs/", {}, 404, "AF902"),
        ("GET", "/v1/runs/nothing/events?limit=0", {}, 422, "AF902"),
        ("GET", "/v1/runs?before=garbage", {}, 400, "AF8"),
        ("POST", "/v1/runs", {"json": {"agent": "x", "priority": 101}}, 422, "AF902"),
        ("POST", "/v1/runs", {"json": {"agent": "x", "on_divergence": "guess"}}, 422, "AF902"),
        ("POST", "/v1/runs/resume", {"json": {"variables": 1}}, 422, "AF902"),
        ("POST", "/v1/runs/nothing/resume", {"json": {}}, 404, "AF701"),
        ("POST", "/v1/runs/nothing/answer", {"json": {"decision": "retry"}}, 404, "AF701"),
        ("POST", "/v1/runs/nothing/answer", {"json": {}}, 422, "AF902"),
        ("GET", "/v1/runs/nothing/checkpoints", {}, 404, "AF701"),
        ("GET", "/v1/runs/nothing/checkpoints/0", {}, 404, "AF701"),
        ("GET", "/v1/runs/nothing/checkpoints/first", {}, 422, "AF902"),
        ("GET", "/v1/runs/nothing/diff?with=nobody", {}, 404, "AF701"),
        ("GET", "/v1/runs/nothing/diff", {}, 422, "AF902"),
        ("POST", "/v1/runs/nothing/rollback", {"json": {"at": 0}}, 404, "AF701"),
        ("POST", "/v1/runs/nothing/rollback", {"json": {"at": -2}}, 422, "AF902"),
        ("POST", "/v1/runs/nothing/fork", {"json": {}}, 404, "AF701"),
        ("POST", "/v1/runs/nothing/fork", {"json": {"att": 1}}, 422, "AF902"),
        ("POST", "/v1/runs/nothing/replay", {"json": {}}, 404, "AF701"),
        ("GET", "/v1/runs/nothing/export", {}, 404, "AF701"),
        ("POST", "/v1/runs/import", {"data": b"no export"}, 400, "AF719"),
        ("GET", "/v1/threads/nothing", {}, 404, "AF721"),
        ("DELETE", "/v1/threads/a%2Fb%20c", {}, 404, "AF721"),
        ("GET", "/v1/nowhere", {}, 404, "AF902"),
        ("PUT", "/v1/runs", {}, 405, "AF902"),
        ("GET", "/v1/frameworks/nothing", {}, 404, "AF202"),
        ("GET", "/v1/environments/nothing", {}, 404, "AF3"),
        ("DELETE", "/v1/environments/nothing", {}, 404, "AF3"),
        ("DELETE", "/v1/environments/..%2f..%2fetc", {}, 404, "AF"),
    ],
)
async def test_every_refusal_is_a_problem_document(
    shared_project: Project, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    headers = {"Content-Type": "application/json"} if "data" in options else {}
    got, kind, problem = await ask(shared_project, method, path, headers=headers, **options)
    assert kind == "application/problem+json", problem
    assert set(problem) >= PROBLEM
    assert problem["code"].startswith(code), problem
    assert (got, problem["status"]) == (status, status), problem
    assert problem["detail"] == problem["message"]
    assert problem["hint"]


@pytest.mark.parametrize(
    ("more", "query", "headers", "status"),
    [
        ({"labels": {"a": "b"}, "thread": "t", "stream": True}, "?wait_s=30", {"Idempotency-Key": "both"}, 201),
        ({"model": "nowhere"}, "?wait_s=30", {}, 422),
        ({"on": "nothing"}, "", {}, 404),
        ({"labels": {"a": 1}}, "", {}, 422),
        ({"input": "\ud800", "on": "nothing"}, "", {}, 404),
        ({}, "?wait_s=61", {}, 422),
        ({}, "?wait_s=-1", {}, 422),
        ({}, "?wait_s=nan", {}, 422),
        ({}, "?wait_s=x", {}, 422),
        ({}, "?wait_s=30&other=1", {}, 201),
        ({}, "", {"Idempotency-Key": "k" * 201}, 422),
    ],
)
async def test_a_run_is_taken_directly_as_it_is_by_the_route(
    shared_project: Project, more: dict[str, Any], query: str, headers: dict[str, str], status: int
) -> None:
    data = json.dumps(body(shared_project, shared_project.agent(), **more)).encode()
    answers = []
    for kind in ("application/json", "application/json; charset=utf-8"):  # the second is left to the route
        sent = {"Content-Type": kind, **headers}
        answers.append(await ask(shared_project, "POST", f"/v1/runs{query}", data=data, headers=sent))
    direct, routed = answers
    assert direct[0] == status
    assert direct[:2] == routed[:2]
    if status != 201:
        assert direct[2] == routed[2]
    elif "Idempotency-Key" in headers:
        assert direct[2]["run_id"] == routed[2]["run_id"]
    else:
        assert set(direct[2]) == set(routed[2])


async def test_a_key_never_comes_back(shared_project: Project) -> None:
    agent = shared_project.agent()
    _, _, run = await ask(shared_project, "POST", "/v1/runs", json=body(shared_project, agent), params={"wait_s": "30"})
    for path in ("/v1/host", "/v1/runs", f"/v1/runs/{run['run_id']}", f"/v1/runs/{run['run_id']}/events"):
        assert KEY not in str(await ask(shared_project, "GET", path))


async def test_the_socket_is_its_owners_alone(shared_project: Project) -> None:
    await shared_project.run(shared_project.agent())
    socket = host_place(shared_project.root).socket
    assert socket.stat().st_mode & 0o777 == 0o600
    assert socket.parent.stat().st_mode & 0o777 == 0o700


async def test_frameworks_and_environments_are_listed(shared_project: Project) -> None:
    run = await shared_project.run(shared_project.agent())
    (begun,) = [each for each in await shared_project.events(run["run_id"]) if each["kind"] == "attempt.started"]
    _, _, frameworks = await ask(shared_project, "GET", "/v1/frameworks")
    names = [framework["name"] for framework in frameworks["frameworks"]]
    assert {"python", "langchain", "crewai", "pydantic-ai"} <= set(names)
    _, _, environments = await ask(shared_project, "GET", "/v1/environments")
    (python,) = [each for each in environments["environments"] if each["id"] == begun["data"]["environment"]]
    status, _, one = await ask(shared_project, "GET", f"/v1/environments/{python['id']}")
    assert (status, one["id"]) == (200, python["id"]), one
    assert one["size_bytes"] > 0
    status, kind, refused = await ask(shared_project, "DELETE", f"/v1/environments/{python['id']}")
    assert (status, kind) == (409, "application/problem+json"), "a worker uses it"
    assert refused["code"].startswith("AF3")


@pytest.mark.asyncio(loop_scope="function")
async def test_a_host_is_stopped_over_http(project: Project) -> None:
    status, _, answer = await ask(project, "POST", "/v1/host/stop")
    assert (status, answer) == (202, {"stopping": True})
