import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest

from agentforge_conformance.scripted_model import CalledTool, Script, ScriptedModel, Step, builtin_step, example

TOOLS = [
    {"type": "function", "function": {"name": "total_for", "parameters": {"properties": {"n": {"type": "integer"}}}}},
    {"type": "function", "function": {"name": "final_result", "parameters": {"type": "object", "properties": {}}}},
]
RESULT = [
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "total_for"}}]},
    {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "412.5"}]},
]


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel() as model:
        yield model


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Asking:
    """A client of the scripted model."""

    def __init__(self, model: ScriptedModel, client: aiohttp.ClientSession) -> None:
        self.url = model.base_url
        self.client = client

    async def __call__(self, *, path: str = "/chat/completions", status: int = 200, **body: Any) -> Any:
        if path == "/chat/completions":
            body = {"model": "fake", "messages": [{"role": "user", "content": "hello you"}], **body}
        async with self.client.post(self.url + path, json=body) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def message(self, **body: Any) -> Any:
        return (await self(**body))["choices"][0]["message"]


@pytest.fixture
def ask(model: ScriptedModel, client: aiohttp.ClientSession) -> Asking:
    return Asking(model, client)


async def test_it_calls_the_first_tool_then_tells_what_the_tool_said(ask: Asking) -> None:
    answer = await ask(tools=TOOLS)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "total_for", "arguments": '{"n": 2}'}
    asked = [{"role": "user", "content": "marker 7"}, *RESULT]
    assert (await ask.message(tools=TOOLS, messages=asked))["content"] == "FINAL: tool said 412.5"
    assert (await ask.message(model="echo", messages=asked))["content"] == "FINAL: tool said 412.5 | user said marker 7"
    assert (await ask.message())["content"] == "FINAL: hello you"


async def test_a_scripted_text_can_hold_what_tools_and_user_said(model: ScriptedModel, ask: Asking) -> None:
    name = model.script("s", Step(text="{user}: last {tool}, all {tools}"))
    more = {"role": "tool", "tool_call_id": "2", "content": "96"}
    messages = [{"role": "user", "content": "sum"}, *RESULT, more]
    assert (await ask.message(model=name, messages=messages))["content"] == "sum: last 96, all 412.5 96"
    assert (await ask.message(model=name, messages=messages[:1]))["content"] == "sum: last , all "


async def test_a_request_that_demands_a_tool_gets_one(ask: Asking) -> None:
    named = {"type": "function", "function": {"name": "final_result"}}
    for choice, messages, name in [
        (named, [], "final_result"),
        ("required", [], "total_for"),
        ("required", RESULT, "final_result"),
    ]:
        message = await ask.message(tools=TOOLS, tool_choice=choice, messages=messages)
        assert message["tool_calls"][0]["function"]["name"] == name
    assert "tool_calls" not in await ask.message(tools=TOOLS, tool_choice="none")


async def test_usage_counts_words(ask: Asking) -> None:
    assert (await ask())["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


async def test_an_answer_fits_the_schema_that_the_request_gives(ask: Asking) -> None:
    schema = {"type": "object", "properties": {"total": {"type": "number"}, "why": {"type": "string"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for name in ("fake", "json"):
        text = (await ask.message(model=name, response_format=wanted))["content"]
        assert json.loads(text) == {"total": 2.0, "why": "FINAL: hello you"}
    assert isinstance(json.loads((await ask.message(response_format={"type": "json_object"}))["content"]), dict)


async def chunks_of(ask: Asking, **body: Any) -> tuple[list[Any], bytes]:
    body = {"model": "fake", "stream": True, "messages": [{"role": "user", "content": "hello you"}], **body}
    async with ask.client.post(ask.url + "/chat/completions", json=body) as answer:
        raw = await answer.read()
    lines = raw.decode().strip().split("\n\n")
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines], raw


async def test_a_stream_gives_text_word_by_word(ask: Asking) -> None:
    chunks, _ = await chunks_of(ask)
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == "FINAL: hello you"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert all("usage" not in chunk for chunk in chunks)
    assert len(chunks) == 5


async def test_a_stream_gives_arguments_in_pieces_and_usage_where_asked(ask: Asking) -> None:
    step = Step(calls=[CalledTool("a", {"x": "some text"}), CalledTool("b", "no json")])
    ask_model = {"model": "script:two"}
    async with ask.client.post(
        ask.url.replace("/v1", "/__scripts"),
        json={"name": "two", "steps": [{"calls": [{"name": c.name, "arguments": c.arguments} for c in step.calls]}]},
    ) as answer:
        assert await answer.json() == ask_model
    chunks, _ = await chunks_of(ask, **ask_model, stream_options={"include_usage": True})
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert chunks[-1]["choices"] == []
    assert chunks[0]["usage"] is None
    parts = [c["choices"][0]["delta"].get("tool_calls", [None])[0] for c in chunks[:-1]]
    for index, arguments in ((0, '{"x": "some text"}'), (1, "no json")):
        mine = [part for part in parts if part and part["index"] == index]
        assert len(mine) == 4
        assert [part.get("id") is not None for part in mine] == [True, False, False, False]
        assert "".join(part["function"]["arguments"] for part in mine) == arguments


async def test_requests_are_recorded_byte_for_byte(ask: Asking, model: ScriptedModel) -> None:
    body = b'{"model" : "fake",  "messages":[]}'
    async with ask.client.post(ask.url + "/chat/completions?a=b", data=body, headers={"X-CaSe": "Q"}):
        pass
    (request,) = model.requests
    assert (request.body, request.path, request.status) == (body, "/v1/chat/completions?a=b", 200)
    assert ("X-CaSe", "Q") in request.headers
    root = ask.url.removesuffix("/v1")
    async with ask.client.get(root + "/__requests") as answer:
        (listed,) = await answer.json()
    assert base64.b64decode(listed["body"]) == body
    assert ["X-CaSe", "Q"] in listed["headers"]
    async with ask.client.post(root + "/__reset"):
        assert model.requests == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
async def test_a_model_fails_as_its_name_says(ask: Asking, status: int) -> None:
    error = await ask(model=f"openai/fail-{status}", status=status)
    assert error["error"]["code"] == f"scripted_{status}"


async def test_a_script_answers_request_by_request(ask: Asking, model: ScriptedModel) -> None:
    name = model.script("s", Step(status=429, headers={"Retry-After": "0"}), Step(text="ok {user}"))
    await ask(model=name, status=429)
    for _ in range(2):
        assert (await ask.message(model=name))["content"] == "ok hello you"
    model.script("s", Step(text="a"), Step(text="b"), after="cycle")
    assert [(await ask.message(model="s"))["content"] for _ in range(3)] == ["a", "b", "a"]
    model.script("s", Step(text="a"), after="default")
    assert [(await ask.message(model=name))["content"] for _ in range(2)] == ["a", "FINAL: hello you"]
    await ask(model="script:nobody", status=400)


async def test_a_script_per_conversation_serves_many_runs_at_once(ask: Asking, model: ScriptedModel) -> None:
    name = model.script("s", Step(calls=[CalledTool("t")]), Step(value={"ok": True}), per="conversation")
    for _ in range(2):
        assert (await ask.message(model=name))["tool_calls"][0]["function"]["arguments"] == "{}"
    for _ in range(2):
        assert (await ask.message(model=name, messages=RESULT))["content"] == '{"ok": true}'


async def test_a_barrier_holds_answers_until_enough_requests_are_open(ask: Asking, model: ScriptedModel) -> None:
    first = [asyncio.ensure_future(ask(model="barrier-3")) for _ in range(2)]
    await model.wait_for_requests(2)
    await ask()
    assert not any(task.done() for task in first)
    await asyncio.gather(*first, ask(model="barrier-3"))
    assert model.open_requests == 0


async def test_a_gate_that_enough_requests_have_opened_stays_open(ask: Asking, model: ScriptedModel) -> None:
    first = [asyncio.ensure_future(ask(model="gate-3")) for _ in range(2)]
    await model.wait_for_requests(2)
    await ask()
    assert not any(task.done() for task in first)
    await asyncio.gather(*first, ask(model="gate-3"))
    await ask(model="gate-3")
    model.reset()
    again = asyncio.ensure_future(ask(model="gate-3"))
    await model.wait_for_requests(1)
    await ask()
    assert not again.done()
    again.cancel()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_cut_or_falls_silent_where_the_script_says(
    ask: Asking, model: ScriptedModel, stream: bool
) -> None:
    body = {"messages": [{"role": "user", "content": "hello you"}], "stream": stream}
    async with ask.client.post(ask.url + "/chat/completions", json={"model": "cut-stream", **body}) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    async with ask.client.post(ask.url + "/chat/completions", json={"model": "silent-stream", **body}) as answer:
        assert await answer.content.readany()
    await model.wait_until_idle()
    assert [(request.status, request.aborted) for request in model.requests] == [(None, False), (None, True)]


async def test_a_slow_model_answers_late(ask: Asking) -> None:
    started = asyncio.get_running_loop().time()
    await ask(model="slow-0.05")
    await chunks_of(ask, model="slow-stream-0.01")
    assert asyncio.get_running_loop().time() - started >= 0.09


async def test_embeddings_depend_on_the_text_alone_in_both_encodings(ask: Asking) -> None:
    plain = await ask(path="/embeddings", model="fake", input=["a", "b", "a"], dimensions=8)
    vectors = [item["embedding"] for item in plain["data"]]
    assert vectors[0] == vectors[2] != vectors[1]
    packed = await ask(path="/embeddings", model="fake", input="a", dimensions=8, encoding_format="base64")
    assert struct.unpack("<8f", base64.b64decode(packed["data"][0]["embedding"])) == pytest.approx(vectors[0])


async def test_the_responses_format_is_spoken_unstreamed(ask: Asking) -> None:
    tool = {"type": "function", "name": "t", "parameters": {}}
    called = await ask(path="/responses", model="fake", input="hi there", tools=[tool])
    item = called["output"][0]
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "t", "{}")
    conversation = [{"role": "user", "content": "hi"}, item, {"type": "function_call_output", "output": "7"}]
    answered = await ask(path="/responses", model="fake", input=conversation, tools=[tool])
    assert answered["output"][0]["content"][0]["text"] == "FINAL: tool said 7"
    await ask(path="/responses", model="fake", input="x", stream=True, status=400)


async def test_models_are_listed_and_a_wrong_key_is_refused(client: aiohttp.ClientSession) -> None:
    async with ScriptedModel({"s": Script([Step()])}, api_key="right") as model:
        async with client.get(model.base_url + "/models") as answer:
            assert "script:s" in [entry["id"] for entry in (await answer.json())["data"]]
        await Asking(model, client)(status=401)


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"messages": 3}'])
async def test_what_is_no_request_is_a_400(ask: Asking, body: bytes) -> None:
    async with ask.client.post(ask.url + "/chat/completions", data=body) as answer:
        assert answer.status == 400


async def test_it_serves_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "model.sock"
    async with ScriptedModel(unix_path=path) as model:
        assert model.base_url == f"unix://{path}/v1"
        client = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path)))
        async with client, client.get("http://x/v1/models") as answer:
            assert answer.status == 200


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"enum": ["x", "y"]}, "b": {"default": 9}}, "required": ["a", "b"]},
    {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 5}]},
    {"type": ["null", "string"], "minLength": 4, "maxLength": 6},
    {"$defs": {"N": {"type": "number", "maximum": 1}}, "type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}},
    {"allOf": [{"properties": {"a": {"type": "boolean"}}}, {"required": ["a"]}]},
    {"type": "array", "items": {"const": 3}, "minItems": 2},
    {"type": "string", "format": "date-time"},
    {"type": "integer", "exclusiveMinimum": 2},
    {"$defs": {"T": {"type": "object", "properties": {"next": {"$ref": "#/$defs/T"}}}}, "$ref": "#/$defs/T"},
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_made_value_fits_its_schema(schema: dict[str, Any]) -> None:
    jsonschema.validate(example(schema), schema)


def test_steps_and_scripts_are_read_from_json_and_unknown_fields_are_named() -> None:
    script = Script.parse(
        {"steps": [{"calls": [{"name": "t", "arguments": {"x": 1}}], "delay_s": 1}], "after": "cycle"}
    )
    assert script == Script([Step(calls=[CalledTool("t", {"x": 1})], delay_s=1)], after="cycle")
    with pytest.raises(ValueError, match="txet"):
        Step.parse({"txet": "a"})
    assert builtin_step("slow-fox") == Step()
    assert builtin_step("gpt-4o") == Step()
