"""The gateway with its model in another process: many calls at once, and ends that nobody announced."""

import asyncio
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from agentforge.gateway import Gateway, Grant, ModelCall, ModelFailure, ModelResponse, Secret, Upstream

CROWD = 500


class Counting:
    """Counts outcomes by run."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.failures: list[ModelFailure] = []

    async def requested(self, call: ModelCall) -> None:
        return None

    def delta(self, call: ModelCall, text: str) -> None:
        pass

    async def completed(self, call: ModelCall, response: ModelResponse) -> None:
        text = response.data["choices"][0]["message"]["content"]
        self.answers.setdefault(call.run_id, []).append(text)

    async def failed(self, call: ModelCall, failure: ModelFailure) -> None:
        self.failures.append(failure)


@pytest.fixture
async def model() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    command = [sys.executable, "-m", "agentforge_conformance.scripted_model", "--port", "0"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    yield process, url
    if process.returncode is None:
        process.terminate()
    await process.communicate()


async def test_five_hundred_runs_at_once_each_get_their_own_answer(
    model: tuple[asyncio.subprocess.Process, str],
) -> None:
    observer = Counting()
    gateway = Gateway(observer)
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/chat/completions"
    await gateway.open_door(listening, "w")
    # The barrier proves that all are under way at the same moment.
    upstream = Upstream("default", "openai", model[1], f"barrier-{CROWD}", Secret("sk-crowd-key-12345"))

    async def run(number: int, client: aiohttp.ClientSession) -> str:
        token = gateway.grant(Grant(f"run-{number}", 1, "w", {"default": upstream}))
        body = {
            "model": "default",
            "messages": [{"role": "user", "content": f"marker {number}"}],
            "stream": number % 2 == 0,
        }
        async with client.post(url, json=body, headers={"Authorization": f"Bearer {token}"}) as answer:
            text = await answer.text()
        if not body["stream"]:
            return str(json.loads(text)["choices"][0]["message"]["content"])
        chunks = [json.loads(line[6:]) for line in text.split("\n\n") if line and "[DONE]" not in line]
        return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        answers = await asyncio.gather(*(run(number, client) for number in range(CROWD)))
        async with client.get(model[1].replace("/v1", "/__requests")) as answer:
            requests = await answer.json()
    await gateway.close()
    assert answers == [f"FINAL: marker {number}" for number in range(CROWD)]
    assert observer.answers == {f"run-{number}": [f"FINAL: marker {number}"] for number in range(CROWD)}
    assert observer.failures == []
    assert len(requests) == CROWD
    assert {dict(map(tuple, r["headers"]))["Authorization"] for r in requests} == {"Bearer sk-crowd-key-12345"}


async def test_a_model_that_is_killed_breaks_the_stream_for_the_framework(
    model: tuple[asyncio.subprocess.Process, str],
) -> None:
    observer = Counting()
    gateway = Gateway(observer)
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/chat/completions"
    await gateway.open_door(listening, "w")
    token = gateway.grant(Grant("r", 1, "w", {"default": Upstream("default", "openai", model[1], "silent-stream")}))
    body = {"model": "default", "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as client:
        async with client.post(url, json=body) as answer:
            assert await answer.content.readany()
            os.kill(model[0].pid, signal.SIGKILL)
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        async with client.post(url, json=body) as answer:
            assert answer.status == 502
    await gateway.close()
    assert [failure.code for failure in observer.failures] == ["AF507", "AF505"]


async def test_calls_wait_for_a_connection_where_descriptors_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, under_way, most = 1024 // 2 - 256, 0, 0
    full = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if most >= limit:
            full.set()
        await full.wait()
        await asyncio.sleep(0.1)  # one call too many would come meanwhile
        under_way -= 1
        return web.json_response({"choices": [{"message": {"content": "hello"}}]})

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gateway = Gateway(Counting())
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/chat/completions"
    await gateway.open_door(listening, "w")
    upstream = Upstream("default", "openai", f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "m", None)
    headers = {"Authorization": f"Bearer {gateway.grant(Grant('run', 1, 'w', {'default': upstream}))}"}

    async def call(client: aiohttp.ClientSession) -> int:
        async with client.post(url, json={"model": "default", "messages": []}, headers=headers) as answer:
            return answer.status

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        assert await asyncio.gather(*(call(client) for _ in range(400))) == [200] * 400
    assert most == limit
    await gateway.close()
    await runner.cleanup()
