"""The embedded model itself: the real engine and weights, in its own process."""

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import aiohttp
import psutil
import pytest
import pytest_asyncio

from agentforge.errors.embedded import EmbeddedModelNotStarted
from agentforge.gateway.embedded import EmbeddedModel, EmbeddedSettings

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

EXAMPLE = Path(__file__).parents[2] / "examples" / "expenses"
SYSTEM = "You answer questions about the expense report. Use the tools."


def load_tools():
    spec = importlib.util.spec_from_file_location("expenses_tools", EXAMPLE / "tools.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOLS = load_tools()
CATEGORIES = list(get_args(TOOLS.Category))


class Client:
    def __init__(self, base_url):
        socket, _, _ = base_url.removeprefix("unix://").partition("/v1")
        self.session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket))

    async def post(self, body, path="chat/completions"):
        async with self.session.post(f"http://model/v1/{path}", json=body) as response:
            return response.status, await response.json()

    async def choice(self, body):
        status, answer = await self.post(body)
        assert status == 200, answer
        return answer["choices"][0]

    async def stream(self, body):
        chunks = []
        async with self.session.post("http://model/v1/chat/completions", json={**body, "stream": True}) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            async for line in response.content:
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    chunks.append(json.loads(line[6:]))
        return chunks


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def model(tmp_path_factory):
    model = EmbeddedModel(tmp_path_factory.mktemp("embedded"))
    yield model
    await model.close()


@pytest_asyncio.fixture(loop_scope="module")
async def client(model):
    async with model.use() as base_url:
        client = Client(base_url)
        yield client
        await client.session.close()


async def ended(pid):
    """Wait for the end of a child without taking its exit status away from asyncio."""
    with contextlib.suppress(ChildProcessError):
        await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def asked(question, *more, **request):
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}, *more]
    return {"model": "local", "messages": messages, **request}


def tool(**schema):
    parameters = {
        "type": "object",
        "properties": {"category": {"type": "string", "enum": CATEGORIES}},
        "required": ["category"],
        **schema,
    }
    description = TOOLS.total_for.__doc__
    return {
        "type": "function",
        "function": {"name": "total_for", "description": description, "parameters": parameters},
    }


def as_langchain(question):
    return asked(question, temperature=0, tools=[tool()])


def as_pydantic_ai(question):
    return asked(question, temperature=0, tool_choice="auto", tools=[tool(additionalProperties=False)])


def as_crewai(question):
    system = f"You are expenses. {SYSTEM}\nYour personal goal is: {SYSTEM}"
    task = (
        f"\nCurrent Task: {question}\n\nThis is the expected criteria for your final answer: the answer\n"
        "you MUST return the actual complete content as the final answer, not a summary."
    )
    messages = [{"role": "system", "content": system}, {"role": "user", "content": task}]
    return {"model": "local", "messages": messages, "temperature": 0, "tool_choice": "auto", "tools": [tool()]}


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("shape", [as_langchain, as_pydantic_ai, as_crewai])
async def test_every_question_of_the_example_is_called_and_answered_right(client, shape, category):
    body = shape(f"How much did we spend on {category}?")
    choice = await client.choice(body)
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == "total_for"
    assert json.loads(call["function"]["arguments"]) == {"category": category}
    value = json.dumps(TOOLS.total_for(category))
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    returned = {"role": "tool", "tool_call_id": call["id"], "content": value}
    answer = await client.choice({**body, "messages": [*body["messages"], said, returned]})
    assert answer["finish_reason"] == "stop"
    assert value in answer["message"]["content"]
    assert len(answer["message"]["content"]) < 200


async def test_text_streams_token_by_token_and_ends_with_the_usage(client):
    body = asked("Say hello.", max_tokens=8, stream_options={"include_usage": True})
    chunks = await client.stream(body)
    texts = [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]]
    assert len([text for text in texts if text]) > 2
    assert chunks[-2]["choices"][0]["finish_reason"] in ("stop", "length")
    assert chunks[-1]["usage"]["completion_tokens"] <= 8
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_a_call_streams_as_deltas(client):
    chunks = await client.stream(as_langchain("How much did we spend on travel?"))
    deltas = [delta for chunk in chunks for delta in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert deltas[0]["function"]["name"] == "total_for"
    arguments = "".join(delta["function"].get("arguments", "") for delta in deltas)
    assert json.loads(arguments) == {"category": "travel"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_response_format_gives_that_json(client):
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
    choice = await client.choice(asked("I live in Paris.", response_format=form))
    assert json.loads(choice["message"]["content"]).keys() == {"city"}


async def test_one_of_several_tools_is_called_with_arguments_of_its_own(client):
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    add = {
        "type": "function",
        "function": {"name": "add", "parameters": {**parameters, "required": ["a", "b"]}},
    }
    choice = await client.choice(asked("What is 2 plus 3?", tools=[tool(), add]))
    function = choice["message"]["tool_calls"][0]["function"]
    assert json.loads(function["arguments"]).keys() == {"total_for": {"category"}, "add": {"a", "b"}}[function["name"]]


async def test_an_old_conversation_is_cut_and_a_question_that_does_not_fit_is_refused(client):
    old = [{"role": "user", "content": "word " * 700}, {"role": "assistant", "content": "Yes."}] * 8
    body = {"messages": [*old, {"role": "user", "content": "Say hello."}], "max_tokens": 4}
    status, answer = await client.post(body)
    assert status == 200
    assert answer["usage"]["prompt_tokens"] < EmbeddedSettings().context
    status, answer = await client.post(asked("word " * 6000))
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


async def test_what_it_cannot_do_is_refused_in_the_format_of_the_api(client):
    status, answer = await client.post({"input": "x", "model": "local"}, "embeddings")
    assert (status, answer["error"]["code"]) == (501, "not_implemented")
    status, answer = await client.post({}, "responses")
    assert (status, answer["error"]["code"]) == (404, "not_found")
    bad = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {"type": "bogus"}}}}}
    status, answer = await client.post(asked("x", tools=[bad]))
    assert status == 400


async def test_many_requests_at_once_are_all_answered(client):
    async def one(number):
        category = CATEGORIES[number % len(CATEGORIES)]
        choice = await client.choice(as_langchain(f"How much did we spend on {category}?"))
        return json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"category": category}

    assert all(await asyncio.gather(*(one(number) for number in range(12))))


async def test_a_client_that_leaves_frees_its_slot(client):
    end_of_turn = "2"  # its token in SmolLM2's vocabulary; without it no answer ends before its limit
    endless = asked("Tell a story.", max_tokens=3000, logit_bias={end_of_turn: -100})

    async def leave():
        timeout = aiohttp.ClientTimeout(total=2)
        async with client.session.post("http://model/v1/chat/completions", json=endless, timeout=timeout):
            pass

    left = await asyncio.gather(*(leave() for _ in range(EmbeddedSettings().slots)), return_exceptions=True)
    assert all(isinstance(each, TimeoutError) for each in left)
    async with asyncio.timeout(20):
        await client.choice(asked("Say hello.", max_tokens=1))


async def test_nobody_but_the_owner_can_reach_it_and_nothing_listens_on_the_network(model):
    async with model.use() as base_url:
        socket = Path(base_url.removeprefix("unix://").removesuffix("/v1"))
        assert socket.parent.stat().st_mode & 0o077 == 0
        assert all(path.stat().st_mode & 0o077 == 0 for path in socket.parent.iterdir())
        assert psutil.Process(model.pid).net_connections("inet") == []


async def test_concurrent_callers_start_one_process_and_the_last_one_unloads_it(tmp_path):
    model = EmbeddedModel(tmp_path, idle_s=0.05)
    assert model.pid is None
    urls = await asyncio.gather(*(model.acquire() for _ in range(5)))
    assert len(set(urls)) == 1
    first = model.pid
    socket = urls[0].removeprefix("unix://").removesuffix("/v1")
    children = [child.cmdline() for child in psutil.Process().children()]
    assert sum(f"--socket={socket}" in words for words in children) == 1
    for _ in urls[1:]:
        model.release()
    assert model.users == 1
    model.release()
    await ended(first)
    assert model.pid is None
    async with model.use() as base_url:
        assert base_url == urls[0]
        assert model.pid != first
    await model.close()


async def test_after_a_kill_the_next_caller_gets_a_new_process(tmp_path):
    model = EmbeddedModel(tmp_path)
    await model.acquire()
    killed = model.pid
    os.kill(killed, signal.SIGKILL)
    await ended(killed)
    async with model.use() as base_url:
        assert model.pid != killed
        client = Client(base_url)
        try:
            choice = await client.choice(as_langchain("How much did we spend on travel?"))
        finally:
            await client.session.close()
        assert choice["message"]["tool_calls"]
    await model.close()


async def test_a_start_that_fails_names_its_log(tmp_path):
    model = EmbeddedModel(tmp_path, EmbeddedSettings(context=-5))
    with pytest.raises(EmbeddedModelNotStarted) as caught:
        await model.acquire()
    assert str(model.log) in caught.value.message
    assert model.users == 0
    await model.close()


HOST = """
import asyncio, sys
from pathlib import Path
from agentforge.gateway.embedded import EmbeddedModel

async def main():
    model = EmbeddedModel(Path(sys.argv[1]))
    await model.acquire()
    print(model.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_it_ends_with_its_host(tmp_path):
    host = subprocess.Popen([sys.executable, "-c", HOST, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with host:
        pid = int(await asyncio.to_thread(host.stdout.readline))
        process = psutil.Process(pid)
        host.kill()
    gone, alive = psutil.wait_procs([process], timeout=10)
    assert gone
    assert not alive
