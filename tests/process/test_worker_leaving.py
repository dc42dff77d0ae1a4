"""How runs are left in real workers: by a cancellation, by having to wait, by whatever is raised."""

import asyncio
import textwrap
from pathlib import Path
from typing import Any

import pytest

from agentforge_worker.wire import ErrorCode, Method, RpcError

from .effects_world import answering, head, never, script, scripted_host, waits
from .worker_world import Host, portable


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return scripted_host(tmp_path)


async def test_a_run_is_left_once_though_answer_and_cancellation_both_come(host: Host) -> None:
    """What cleans up after itself is not disturbed by the second."""

    async def wait_and_cancel(params: dict[str, Any]) -> Any:
        live[0].notify(Method.RUN_CANCEL, head())
        raise waits()

    host.answers = {Method.QUESTION_ASK: wait_and_cancel}
    body = """
    try:
        await ctx.ask("May I?")
    finally:
        for _ in range(5):
            await asyncio.sleep(0.01)
        print("cleaned up")
    """
    async with host.worker() as worker:
        live = [worker]
        await worker.call(Method.AGENT_OPEN, portable())
        with pytest.raises(RpcError, match="cancelled"):
            await worker.call(Method.RUN_START, host.order(textwrap.dedent(body)))
    assert host.lines("r1") == ["cleaned up"]


async def test_a_framework_that_makes_a_result_of_its_cancellation_has_none(host: Host) -> None:
    host.answers = {Method.QUESTION_ASK: answering(waits())}
    body = """
    try:
        await ctx.ask("May I?")
    except BaseException:
        return "an answer all the same"
    """
    with pytest.raises(RpcError) as caught:
        await script(host, body)
    assert caught.value.code == ErrorCode.CANCELLED


async def test_every_later_effect_of_a_run_that_is_left_is_refused_here(host: Host) -> None:
    host.answers = {Method.QUESTION_ASK: answering(waits())}
    body = """
    try:
        await ctx.ask("May I?")
    except BaseException:
        for effect in (ctx.now, ctx.random):
            try:
                await effect()
            except Cancelled:
                print("refused")
        raise
    """
    with pytest.raises(RpcError, match="cancelled"):
        await script(host, body)
    assert host.lines("r1") == ["refused", "refused"]
    assert [method for method, _ in host.asked] == ["question.ask"]


async def test_a_task_that_nobody_waits_for_is_stopped_too(host: Host) -> None:
    host.answers = {Method.QUESTION_ASK: answering(waits())}
    body = """
    async def alone():
        try:
            await ctx.ask("May I?")
            print("went on")
        except Cancelled:
            print("stopped")
    task = asyncio.ensure_future(alone())
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.wait([task])
    """
    with pytest.raises(RpcError, match="cancelled"):
        await script(host, body)
    assert host.lines("r1") == ["stopped"]


@pytest.mark.parametrize("adapter", ["Loop", "Blocking"])
async def test_whatever_is_raised_ends_the_run_and_not_the_worker(host: Host, adapter: str) -> None:
    async with host.worker(adapter=adapter) as worker:
        await worker.call(Method.AGENT_OPEN, portable())
        for body in ("raise KeyboardInterrupt()", "raise BaseException('odd')", "raise GeneratorExit()"):
            with pytest.raises(RpcError, match=r"KeyboardInterrupt|odd|GeneratorExit") as caught:
                await worker.call(Method.RUN_START, host.order(body))
            assert caught.value.code == ErrorCode.FAILED
        assert (await worker.call(Method.RUN_START, host.order("return 1")))["output"] == 1


# ---- conversations to go on from


CALLS = [{"id": "c1", "name": "double", "arguments": {"n": 1}}, {"id": "c2", "name": "double", "arguments": {"n": 2}}]


@pytest.mark.parametrize("adapter", ["Loop", "Blocking"])
async def test_calls_that_a_conversation_ends_with_are_made_first(host: Host, adapter: str) -> None:
    messages = [
        {"role": "user", "content": "Both, please."},
        {"role": "assistant", "content": "", "tool_calls": CALLS},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]
    async with host.worker(adapter=adapter) as worker:
        await worker.call(Method.AGENT_OPEN, portable())
        order = host.order("return [m.content for m in request.messages]", messages=messages, continues=True)
        answer = await worker.call(Method.RUN_START, order)
    assert answer["output"] == ["Both, please.", "", "2", "4"]
    assert host.heard("tool.call") == [{**head(), "name": "double", "arguments": {"n": 2}}]
    assert [(m["role"], m["content"], m["tool_call_id"]) for m in answer["messages"]] == [
        ("tool", "4", "c2"),
        ("assistant", '["Both, please.", "", "2", "4"]', None),
    ]
    assert [event["kind"] for event in host.events] == ["step.started", "step.finished"]


async def test_a_cancelled_run_makes_none_of_them_to_its_end(host: Host) -> None:
    host.answers = {Method.TOOL_CALL: never}
    messages = [{"role": "assistant", "content": "", "tool_calls": CALLS}]
    async with host.worker() as worker:
        await worker.call(Method.AGENT_OPEN, portable())
        order = host.order("print('never')", messages=messages, continues=True)
        run = asyncio.create_task(worker.call(Method.RUN_START, order))
        await host.hears(lambda: len(host.asked) == 2)
        worker.notify(Method.RUN_CANCEL, head())
        with pytest.raises(RpcError, match="cancelled"):
            await asyncio.wait_for(run, 5)
    assert host.logs == []


async def test_a_conversation_that_nobody_took_over_is_left_as_it_is(host: Host) -> None:
    messages = [{"role": "assistant", "content": "", "tool_calls": CALLS}]
    assert await script(host, "return [len(request.messages), request.continues]", messages=messages) == [1, False]
    assert host.asked == []
