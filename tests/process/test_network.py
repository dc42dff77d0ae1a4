"""`network` as a user meets it: sandboxed workers reach what is listed, through the host, and nothing else."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import Project

TLS = Path(__file__).parents[1] / "data" / "tls"
ADDRESS = "127.0.0.2"
"""A loopback address that HTTP clients don't take past the proxy, as they do 127.0.0.1 (`NO_PROXY`)."""
GET = f"""
import json, socket, ssl, urllib.request

TRUSTED = {(TLS / "canary.pem").read_text()!r}


def get(url):
    try:
        context = ssl.create_default_context(cadata=TRUSTED)
        with urllib.request.urlopen(url, timeout=20, context=context) as answer:
            return answer.read().decode()
    except OSError as error:
        return f"{{type(error).__name__}}: {{error}}"


def past_the_gate(host, port):
    try:
        with socket.create_connection((host, port), timeout=5):
            return "connected"
    except OSError as error:
        return type(error).__name__
"""
AGENT = (
    GET
    + """
import asyncio

async def agent(input, ctx):
    asked = json.loads(input)
    got = [await asyncio.to_thread(get, url) for url in asked["urls"]]
    return json.dumps({"got": got, "past": past_the_gate(*asked["past"])})
"""
)
TOOL = (
    GET
    + """
def fetch(url: str) -> str:
    "Fetch a page."
    return get(url)
"""
)


class Canary:
    """A server with TLS on the host's loopback that gives a song to whoever comes."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"https://{ADDRESS}:{port}/song"


@asynccontextmanager
async def canary() -> AsyncIterator[Canary]:
    async def sing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\ntweet")
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "canary.pem", TLS / "canary-key.pem")
    server = await asyncio.start_server(sing, ADDRESS, 0, ssl=context)
    try:
        yield Canary(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def connections(project: Project, run_id: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a run's connections, what differs from run to run left out."""
    found = []
    for event in await project.events(run_id):
        if event["kind"].startswith("connection."):
            found.append((event["kind"].removeprefix("connection."), event["data"]))
    return found


@pytest.mark.feature("AF-149")
@pytest.mark.parametrize("level", ["strict", "standard", "none"])
async def test_an_agent_reaches_what_its_network_lists_and_each_connection_is_an_event(
    project: Project, level: str
) -> None:
    async with canary() as listed, canary() as other:
        project.write("singer/code.py", AGENT)
        native = {"framework": "python", "entrypoint": "code:agent"}
        agent = project.agent("singer", native=native, network=[f"{ADDRESS}:{listed.port}"], sandbox=level)
        asked = {"urls": [listed.url, other.url, "https://api.example.com/"], "past": [ADDRESS, listed.port]}
        result = await project.run(agent, json.dumps(asked))
        assert result["status"] == "succeeded", result
        said = json.loads(result["output"])
        assert said["past"] == ("connected" if level == "none" else "ConnectionRefusedError")
        song, refused, far = said["got"]
        assert song == "tweet"
        allowed = f"`{ADDRESS}:{listed.port}`"
        assert (
            f"403 Forbidden: `{ADDRESS}:{other.port}` is not listed under `network`, which allows {allowed}" in refused
        )
        assert "403 Forbidden: `api.example.com:443` is not listed" in far
        told = await connections(project, result["run_id"])
        (worker,) = {data["worker"] for _, data in told}
        (begun,) = [each for each in await project.events(result["run_id"]) if each["kind"] == "attempt.started"]
        assert worker == begun["data"]["worker"]
        assert [(kind, data["host"], data["port"]) for kind, data in told] == [
            ("opened", ADDRESS, listed.port),
            ("closed", ADDRESS, listed.port),
            ("refused", ADDRESS, other.port),
            ("refused", "api.example.com", 443),
        ]
        assert told[1][1]["why"] in ("ended", "worker")  # a client that has all it wants may just break off
        assert {data["why"] for kind, data in told if kind == "refused"} == {"unlisted"}
        opened, closed, *_ = (data for _, data in told)
        assert opened["address"] == closed["address"] == ADDRESS
        assert opened["connection_id"] == closed["connection_id"]
        assert closed["bytes_sent"] > 200
        assert closed["bytes_received"] > 200  # not five: it is TLS from end to end
        assert told[2][1]["error"]["code"] == "AF450"


async def test_a_tool_reaches_what_the_permissions_list_and_its_run_is_told(project: Project) -> None:
    async with canary() as listed, canary() as other:
        project.write("fetcher/tools.py", TOOL)
        agent = project.agent(
            "fetcher",
            tools=[{"python": "tools.py:fetch"}],
            permissions={"network": [f"{ADDRESS}:{listed.port}"]},
            network=[f"{ADDRESS}:{other.port}"],
        )
        calls = [CalledTool("fetch", {"url": each.url}) for each in (listed, other)]
        model = project.model.script("song", *(Step(calls=[call]) for call in calls), Step(text="done"))
        result = await project.run(agent, "song", "--model", f"openai:{model}")
        assert result["status"] == "succeeded", result
        song, refused = (call["result"] for call in result["tool_calls"])
        assert song == "tweet"
        assert "is not listed under `network`" in refused  # that is the agent's, not its tools'
        told = await connections(project, result["run_id"])
        assert [(kind, data["port"]) for kind, data in told] == [
            ("opened", listed.port),
            ("closed", listed.port),
            ("refused", other.port),
        ]
        (begun,) = [each for each in await project.events(result["run_id"]) if each["kind"] == "attempt.started"]
        assert {data["worker"] for _, data in told}.isdisjoint({begun["data"]["worker"]})


async def test_an_agent_without_a_network_reaches_nothing(project: Project) -> None:
    async with canary() as there:
        project.write("singer/code.py", AGENT)
        agent = project.agent("singer", native={"framework": "python", "entrypoint": "code:agent"})
        asked = {"urls": [there.url], "past": [ADDRESS, there.port]}
        result = await project.run(agent, json.dumps(asked))
        said = json.loads(result["output"])
        assert "Connection refused" in said["got"][0]
        assert said["past"] == "ConnectionRefusedError"
        assert await connections(project, result["run_id"]) == []
