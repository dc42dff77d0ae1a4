"""A run's history: its checkpoints, its effects as JSON, and how two runs differ."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentforge.engine.history import History, with_response
from agentforge.errors import UsageFault
from agentforge.errors.runs import CheckpointUnknown, RunUnknown
from agentforge.gateway import ModelResponse, Usage, request_hash
from agentforge.store import Effect, Lease, ProjectId, RunId, Store, open_store
from agentforge_conformance.store import NOW, PROJECT, new_run

JOURNALS = Path(__file__).parents[1] / "data" / "journals"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "state.db") as opened:
        yield opened


@pytest.fixture
async def lease(store: Store) -> Lease:
    return await store.acquire_lease(ProjectId(PROJECT), "host")


def tool(position: int, name: str, arguments: Any, response: Any, **fields: Any) -> Effect:
    asked = {"name": name, "arguments": arguments}
    return made(position, "tool", {**asked, "idempotent": True}, response, request_hash("tool", asked), **fields)


def made(position: int, kind: Any, request: Any, response: Any, hashed: str | None = None, **fields: Any) -> Effect:
    given = {
        "run_id": RunId(""), "position": position, "attempt": 1, "kind": kind, "occurrence": 0, "status": 200,
        "request_hash": request_hash(kind, request) if hashed is None else hashed,
        "request": json.dumps(request).encode(), "started_at": NOW, "duration_ms": 250.0,
        "response": response if isinstance(response, bytes) else json.dumps(response).encode(),
    }  # fmt: skip
    return Effect(**{**given, **fields})


def model(position: int, messages: list[Any], message: dict[str, Any], number: int = 1, **fields: Any) -> Effect:
    body = {"id": f"chatcmpl-{number}", "created": number, "choices": [{"index": 0, "message": message}]}
    record = ModelResponse(json.dumps(body).encode(), usage=Usage(1, number)).to_record()
    return made(position, "model", {"model": "gpt", "messages": messages}, record, **fields)


def calls(*ids: str) -> list[dict[str, Any]]:
    return [{"id": id, "type": "function", "function": {"name": "add", "arguments": "{}"}} for id in ids]


async def run_with(store: Store, lease: Lease, *effects: Effect, output: Any = None) -> RunId:
    run_id = await new_run(store, lease)
    for effect in effects:
        await store.append_effect(msgspec.structs.replace(effect, run_id=run_id), lease.epoch)
    await store.finish_run(run_id, lease.epoch, {"status": "succeeded", "output": output})
    return run_id


async def test_every_effect_is_a_checkpoint_with_its_name(store: Store, lease: Lease) -> None:
    run_id = await run_with(
        store, lease,
        model(0, [], {"content": "x"}, usage={"input_tokens": 1, "output_tokens": 2}),
        tool(1, "total_for", {"category": "travel"}, {"value": 1}),
        made(2, "checkpoint", {"name": "halfway"}, {}),
        made(3, "value", {"kind": "now"}, {"value": 1.5}, attempt=2),
        made(4, "answer", {"question": "Sure?", "options": None}, {"value": True}),
        made(5, "run", {"agent": {"name": "inline"}, "input": 1}, {"run_id": "r2"}),
    )  # fmt: skip

    listed = await History(store).checkpoints(run_id)

    assert [(each["effect"], each["kind"], each["name"]) for each in listed] == [
        (0, "model", "gpt"), (1, "tool", "total_for"), (2, "checkpoint", "halfway"), (3, "value", "now"),
        (4, "answer", "Sure?"), (5, "run", ""),
    ]  # fmt: skip
    assert listed[0] == {
        "effect": 0, "kind": "model", "name": "gpt", "at": "2025-11-22T08:26:40.500Z", "attempt": 1, "voided": False,
        "usage": {"input_tokens": 1, "output_tokens": 2}, "duration_ms": 250.0,
    }  # fmt: skip
    assert listed[3]["attempt"] == 2


async def test_what_a_run_left_behind_is_listed_on_demand_and_always_shown(store: Store, lease: Lease) -> None:
    run_id = await new_run(store, lease)
    for effect in (tool(0, "a", {}, {"value": 1}), tool(1, "b", {}, {"value": 2}), tool(2, "c", {}, {"value": 3})):
        await store.append_effect(msgspec.structs.replace(effect, run_id=run_id), lease.epoch)
    await store.void_effects(run_id, lease.epoch, 0)
    history = History(store)

    assert [each["effect"] for each in await history.checkpoints(run_id)] == [0]
    assert [(each["effect"], each["voided"]) for each in await history.checkpoints(run_id, voided=True)] == [
        (0, False), (1, True), (2, True),
    ]  # fmt: skip
    assert (await history.effect(run_id, 1))["voided"]


async def test_an_effect_shows_its_request_and_response_as_json(store: Store, lease: Lease) -> None:
    run_id = await run_with(
        store, lease,
        model(0, [{"role": "user", "content": "hi"}], {"role": "assistant", "content": "hello"}),
        tool(1, "add", {"a": 1}, {"value": 2}),
        tool(2, "add", {"a": 2}, {}),
        tool(3, "add", {"a": 3}, {"error": {"message": "no"}}, status=500),
        made(4, "value", {"kind": "random"}, {"value": 0.5}),
    )  # fmt: skip
    shown = [await History(store).effect(run_id, number) for number in range(5)]

    assert [(each["request"], each["response"]) for each in shown] == [
        (
            {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]},
            {"id": "chatcmpl-1", "created": 1,
             "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}}]},
        ),
        ({"name": "add", "arguments": {"a": 1}}, {"value": 2}),
        ({"name": "add", "arguments": {"a": 2}}, {"value": None}),
        ({"name": "add", "arguments": {"a": 3}}, {"error": {"message": "no"}}),
        ({"kind": "random"}, {"value": 0.5}),
    ]  # fmt: skip
    assert shown[3]["status"] == 500
    assert shown[0]["request_hash"] == request_hash("model", shown[0]["request"])


async def test_an_unknown_run_or_effect_is_said_so(store: Store, lease: Lease) -> None:
    history = History(store)
    run_id = await run_with(store, lease, tool(0, "a", {}, {"value": 1}), tool(2, "a", {}, {"value": 1}))

    for number in (-1, 1, 3):
        with pytest.raises(CheckpointUnknown, match=f"no effect `{number}`"):
            await history.effect(run_id, number)
    for asked in (
        history.checkpoints("x"),
        history.effect("x", 0),
        history.diff(run_id, "x"),
        history.diff("x", run_id),
    ):
        with pytest.raises(RunUnknown, match="`x`"):
            await asked


# ---- two runs


async def test_a_run_does_not_differ_from_itself(store: Store, lease: Lease) -> None:
    run_id = await run_with(store, lease, model(0, [], {"content": "x"}), tool(1, "a", {}, {"value": 1}), output="x")

    found = await History(store).diff(run_id, run_id)

    assert (found["same"], found["output_same"], found["first_difference"]) == (True, True, None)
    assert [(each["effect"], each["other_effect"], each["status"]) for each in found["effects"]] == [
        (0, 0, "same"), (1, 1, "same"),
    ]  # fmt: skip


async def test_runs_with_the_same_effects_and_another_output_differ(store: Store, lease: Lease) -> None:
    first, second = [await run_with(store, lease, tool(0, "a", {}, {"value": 1}), output=each) for each in ("x", "y")]

    found = await History(store).diff(first, second)

    assert (found["same"], found["output_same"], found["first_difference"]) == (False, False, None)


async def test_two_live_runs_are_the_same_whatever_ids_the_model_gave(store: Store, lease: Lease) -> None:
    def effects(number: int) -> list[Effect]:
        asked = {"role": "assistant", "content": None, "tool_calls": calls(f"call_{number}a", f"call_{number}b")}
        told = [{"role": "tool", "tool_call_id": f"call_{number}{each}", "content": "1"} for each in "ab"]
        return [
            model(0, [], asked, number),
            tool(1, "add", {}, {"value": 1}),
            model(2, [asked, *told], {"content": "done"}, number + 1),
        ]

    first, second = [await run_with(store, lease, *effects(number)) for number in (1, 5)]
    third = await run_with(store, lease, *effects(1)[:2], model(2, [], {"content": "done"}))

    assert (await History(store).diff(first, second))["same"]
    assert not (await History(store).diff(first, third))["same"]


async def test_ids_of_tool_calls_that_changed_places_differ(store: Store, lease: Lease) -> None:
    asked = {"role": "assistant", "tool_calls": calls("a", "b")}

    def told(*ids: str) -> list[Any]:
        return [asked, *({"role": "tool", "tool_call_id": id, "content": "1"} for id in ids)]

    first = await run_with(store, lease, model(0, told("a", "b"), {"content": "x"}))
    second = await run_with(store, lease, model(0, told("b", "a"), {"content": "x"}))

    assert (await History(store).diff(first, second))["effects"][0]["status"] == "changed"


async def test_a_difference_is_told_with_its_path_in_request_or_response(store: Store, lease: Lease) -> None:
    first = await run_with(store, lease, tool(0, "a", {}, {"value": 1}), model(1, ["1"], {"content": "x"}), output="x")
    second = await run_with(store, lease, tool(0, "a", {}, {"value": 2}), model(1, ["2"], {"content": "y"}), output="y")

    found = await History(store).diff(first, second)

    assert (found["same"], found["output_same"], found["first_difference"]) == (False, False, 0)
    assert found["output"] == [{"path": "$", "kind": "changed", "before": "x", "after": "y"}]
    assert [[change["path"] for change in each["changes"]] for each in found["effects"]] == [
        ["$.response.value"], ["$.request.messages[0]", "$.response.choices[0].message.content"],
    ]  # fmt: skip


async def test_an_effect_that_only_one_run_has_moves_no_other(store: Store, lease: Lease) -> None:
    shared = [tool(0, "a", {}, {"value": 1}), tool(1, "b", {}, {"value": 1}), tool(2, "c", {}, {"value": 1})]
    more = [
        shared[0],
        tool(1, "extra", {}, {"value": 1}),
        *(msgspec.structs.replace(e, position=e.position + 3) for e in shared[1:]),
    ]
    first, second = await run_with(store, lease, *shared), await run_with(store, lease, *more)
    history = History(store)

    there, back = await history.diff(first, second), await history.diff(second, first)

    def brief(found: Any) -> list[Any]:
        return [(each["effect"], each["other_effect"], each["name"], each["status"]) for each in found["effects"]]

    assert brief(there) == [
        (0, 0, "a", "same"),
        (1, 1, "extra", "only_second"),
        (1, 4, "b", "same"),
        (2, 5, "c", "same"),
    ]
    assert brief(back) == [
        (0, 0, "a", "same"),
        (1, None, "extra", "only_first"),
        (4, 1, "b", "same"),
        (5, 2, "c", "same"),
    ]
    assert (there["same"], there["output_same"], there["first_difference"]) == (False, True, 1)


async def test_changes_are_told_up_to_a_limit_and_that_there_are_more(store: Store, lease: Lease) -> None:
    one = {f"k{number}": 1 for number in range(30)}
    first = await run_with(store, lease, *(tool(n, "a", one, {"value": n}) for n in range(40)))
    second = await run_with(store, lease, *(tool(n, "a", dict.fromkeys(one, 2), {"value": n}) for n in range(40)))

    found = (await History(store).diff(first, second))["effects"]

    assert {each["status"] for each in found} == {"changed"}
    assert all(each["more_changes"] for each in found)
    assert len(found[0]["changes"]) == 20
    assert sum(len(each["changes"]) for each in found) == 500


@pytest.mark.parametrize("framework", ["langchain", "crewai", "pydantic-ai"])
async def test_one_agent_on_two_frameworks_is_compared_call_by_call(store: Store, lease: Lease, framework: str) -> None:
    first, second = [await run_with(store, lease, *recorded(name)) for name in ("python", framework)]

    found = await History(store).diff(first, second)

    assert [(each["kind"], each["effect"], each["other_effect"]) for each in found["effects"]] == [
        ("model", 0, 0), ("tool", 1, 1), ("tool", 2, 2), ("model", 3, 3), ("tool", 4, 4), ("model", 5, 5),
    ]  # fmt: skip
    assert [each["status"] for each in found["effects"] if each["kind"] == "tool"] == ["same"] * 3


def recorded(framework: str) -> list[Effect]:
    effects = json.loads((JOURNALS / f"{framework}.json").read_text())["effects"]
    return [
        made(
            each["position"], each["kind"], json.loads(each["request"]), each["response"].encode(), each["request_hash"]
        )
        for each in effects
    ]


# ---- other responses


async def test_a_response_in_the_form_it_is_shown_in_can_be_put_in_its_place(store: Store, lease: Lease) -> None:
    answer = {"choices": [{"index": 0, "message": {"content": "other"}}]}
    effects = [
        with_response(model(0, [], {"content": "x"}), answer),
        with_response(tool(1, "a", {}, {"value": 1}), {"value": [2]}),
        with_response(tool(2, "a", {}, {"value": 1}), {"error": "no such thing"}),
        with_response(tool(3, "a", {}, {"error": {"message": "x"}}, status=500), {"value": None}),
        with_response(made(4, "value", {"kind": "now"}, {"value": 1}), {"value": 2}),
    ]
    run_id = await run_with(store, lease, *effects)
    shown = [await History(store).effect(run_id, number) for number in range(5)]

    assert [(each["status"], each["response"]) for each in shown] == [
        (200, answer), (200, {"value": [2]}),
        (500, {"error": {"code": "AF603", "message": "no such thing", "hint": "", "origin": "tool"}}),
        (200, {"value": None}), (200, {"value": 2}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("effect", "response"),
    [
        (model(0, [], {}), "text"),
        (model(0, [], {}), {"choices": "text"}),
        (tool(0, "a", {}, {}), 5),
        (tool(0, "a", {}, {}), {}),
        (tool(0, "a", {}, {}), {"result": 5}),
        (tool(0, "a", {}, {}), {"value": 1, "error": "x"}),
        (tool(0, "a", {}, {}), {"error": {"code": "x"}}),
        (made(0, "value", {}, {}), 5),
    ],
)
def test_a_response_that_the_effect_cannot_have_is_refused(effect: Effect, response: Any) -> None:
    with pytest.raises(UsageFault):
        with_response(effect, response)
