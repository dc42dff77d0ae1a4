"""What a run asks of its host, attempt by attempt, in real workers: what goes over the wire."""

import asyncio
import textwrap
from pathlib import Path
from typing import Any

import pytest

from agentforge_worker.wire import ErrorCode, Method, RpcError

from .effects_world import answering, head, never, opened, refusal, script, scripted_host, waits
from .worker_world import Host, portable


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return scripted_host(tmp_path)


# ---- on every Python: what goes over the wire


async def test_every_effect_is_asked_for_in_the_name_of_its_attempt(host: Host, python: Path) -> None:
    host.answers = {
        Method.QUESTION_ASK: answering({"value": "the red one"}, {"value": 7}),
        Method.VALUE_TAKE: answering({"value": 1700000000}, {"value": 0.25}),
        Method.CHECKPOINT_SAVE: answering({}),
        Method.RUN_CALL: answering({"output": "done", "status": "succeeded"}),
    }
    body = """
    ctx.emit("message.added", {})
    ctx.warn("careful")
    print("said")
    return [
        await ctx.ask("Which one?", options=("the red one", "none"), timeout_s=60, default=None),
        await ctx.ask("How many?", schema={"type": "integer"}),
        await ctx.now(), await ctx.random(), await ctx.checkpoint("chosen"),
        await ctx.run_agent("other.yaml", {"n": 1}, on="crewai", model="small", timeout_s=5),
        await ctx.call_tool("double", {"n": 4}),
    ]
    """
    output = await script(host, body, python=python, attempt=3)
    assert output == ["the red one", 7, 1700000000.0, 0.25, None, {"output": "done", "status": "succeeded"}, 8]
    question = {"question": "Which one?", "options": ["the red one", "none"], "schema": None, "timeout_s": 60}
    number = {"question": "How many?", "options": None, "schema": {"type": "integer"}, "timeout_s": None}
    child = {"agent": "other.yaml", "input": {"n": 1}, "on": "crewai", "model": "small", "timeout_s": 5}
    assert host.asked == [
        ("question.ask", {**head(3), **question, "default": None, "has_default": True}),
        ("question.ask", {**head(3), **number, "default": None, "has_default": False}),
        ("value.take", {**head(3), "kind": "now"}),
        ("value.take", {**head(3), "kind": "random"}),
        ("checkpoint.save", {**head(3), "name": "chosen"}),
        ("run.call", {**head(3), **child}),
        ("tool.call", {**head(3), "name": "double", "arguments": {"n": 4}}),
    ]
    assert [(event["run_id"], event["attempt"]) for event in host.events] == [("r1", 3), ("r1", 3)]
    assert host.logs == [("r1", "stdout", "said")]
    assert host.log_attempts == [3]


async def test_threads_wait_for_effects(host: Host, python: Path) -> None:
    host.answers = {
        Method.QUESTION_ASK: answering({"value": "yes"}),
        Method.EFFECT_OPEN: answering(opened()),
        Method.EFFECT_CLOSE: answering({}),
    }
    body = """
    mine = threading.current_thread().name
    called = ctx.tool_effect_blocking("where", {}, lambda: threading.current_thread().name == mine)
    return [ctx.wait(ctx.ask("Sure?")), called]
    """
    assert await script(host, body, "Blocking", python) == ["yes", True]
    assert host.heard("effect.close") == [{**head(), "effect": "e1", "value": True}]


@pytest.mark.parametrize(
    "call",
    [
        "lambda: CALLED.append(threading.current_thread().name) or (1, 2)",
        "asyncio.coroutine_function",
    ],
    ids=["blocking", "async"],
)
async def test_a_tool_of_the_agents_own_is_announced_made_and_recorded(host: Host, python: Path, call: str) -> None:
    host.answers = {Method.EFFECT_OPEN: answering(opened()), Method.EFFECT_CLOSE: answering({})}
    body = f"""
    async def asyncs():
        CALLED.append("tool-look")
        return (1, 2)
    asyncio.coroutine_function = asyncs
    value = await ctx.tool_effect("look", {{"at": "it"}}, {call}, idempotent=True)
    return [value, CALLED]
    """
    assert await script(host, body, python=python) == [[1, 2], ["tool-look"]]
    assert host.asked == [
        ("effect.open", {**head(), "name": "look", "arguments": {"at": "it"}, "idempotent": True}),
        ("effect.close", {**head(), "effect": "e1", "value": [1, 2]}),
    ]


async def test_a_recorded_tool_is_not_called_again(host: Host, python: Path) -> None:
    details = {"exception": "builtins.KeyError", "arguments": ["meals"]}
    raised = {"code": "AF603", "message": "KeyError: 'meals'", "details": details}
    host.answers = {
        Method.EFFECT_OPEN: answering(opened(effect=None, value={"n": 1}), opened(effect=None, error=raised))
    }
    body = """
    first = await ctx.tool_effect("a", {}, lambda: CALLED.append(1))
    try:
        await ctx.tool_effect("b", {}, lambda: CALLED.append(2))
    except KeyError as error:
        return [first, error.args[0], CALLED]
    """
    assert await script(host, body, python=python) == [{"n": 1}, "meals", []]


async def test_a_run_that_has_to_wait_leaves_a_tool_that_tells_of_whatever_is_raised(host: Host, python: Path) -> None:
    """As frameworks do: they catch every exception of a tool, tell the model, and go on."""
    host.answers = {Method.QUESTION_ASK: answering(waits())}
    body = """
    async def tool():
        try:
            return await ctx.ask("May I?")
        except Exception as error:
            return str(error)
    print("told", await asyncio.gather(asyncio.ensure_future(tool())))
    await ctx.call_tool("double", {"n": 1})
    """
    with pytest.raises(RpcError) as caught:
        await script(host, body, python=python)
    assert caught.value.code == ErrorCode.CANCELLED
    assert host.logs == []
    assert [method for method, _ in host.asked] == ["question.ask"]


async def test_a_thread_that_has_to_wait_leaves_its_tool_and_ends(host: Host, python: Path) -> None:
    host.answers = {Method.QUESTION_ASK: answering(waits())}
    body = """
    try:
        ctx.wait(ctx.ask("May I?"))
    except Exception as error:
        print("told", error)
    finally:
        print("left")
    """
    with pytest.raises(RpcError) as caught:
        await script(host, body, "Blocking", python)
    assert caught.value.code == ErrorCode.CANCELLED
    assert host.lines("r1") == ["left"]


async def test_a_cancellation_is_for_one_attempt(host: Host, python: Path) -> None:
    host.answers = {Method.QUESTION_ASK: never}
    body = "return await ctx.ask('May I?') if ctx.attempt < 3 else 'went on'"
    async with host.worker(python) as worker:
        await worker.call(Method.AGENT_OPEN, portable())
        first, second = (
            asyncio.create_task(worker.call(Method.RUN_START, host.order(body, attempt=n))) for n in (1, 2)
        )
        await host.hears(lambda: len(host.asked) == 2)
        worker.notify(Method.RUN_CANCEL, head(1))
        with pytest.raises(RpcError, match="cancelled"):
            await asyncio.wait_for(first, 5)
        worker.notify(Method.RUN_CANCEL, head(1))  # late: it is over
        await worker.call(Method.PING, {})
        assert not second.done()
        worker.notify(Method.RUN_CANCEL, head(2))
        with pytest.raises(RpcError, match="cancelled"):
            await asyncio.wait_for(second, 5)
        assert (await worker.call(Method.RUN_START, host.order(body, attempt=3)))["output"] == "went on"


# ---- attempts


async def test_without_a_number_it_is_the_first_attempt(host: Host) -> None:
    async with host.worker() as worker:
        await worker.call(Method.AGENT_OPEN, portable())
        assert (await worker.call(Method.RUN_START, host.order("return ctx.attempt")))["output"] == 1
        worker.notify(Method.RUN_CANCEL, {"run_id": "r2"})
        with pytest.raises(RpcError, match="cancelled"):
            await worker.call(Method.RUN_START, host.order("return 1", "r2"))


async def test_an_attempt_begins_while_a_thread_of_the_last_one_still_ends(host: Host) -> None:
    body = """
    if ctx.attempt == 1:
        print("in attempt 1")
        while not CALLED:
            time.sleep(0.001)
        try:
            ctx.wait(ctx.call_tool("double", {"n": 1}))
        finally:
            print("left attempt 1", end="")
    CALLED.append(1)
    print("in attempt 2", end="")
    return ctx.wait(ctx.call_tool("double", {"n": 2}))
    """
    async with host.worker(adapter="Blocking") as worker:
        await worker.call(Method.AGENT_OPEN, portable())
        order = host.order(textwrap.dedent(body), attempt=1)
        first = asyncio.create_task(worker.call(Method.RUN_START, order))
        await host.hears(lambda: bool(host.logs))
        worker.notify(Method.RUN_CANCEL, head(1))
        assert (await worker.call(Method.RUN_START, {**order, "attempt": 2}))["output"] == 4
        with pytest.raises(RpcError, match="cancelled"):
            await asyncio.wait_for(first, 5)
    said = sorted(zip(host.log_attempts, host.lines("r1"), strict=True))
    assert said == [(1, "in attempt 1"), (1, "left attempt 1"), (2, "in attempt 2")]
    assert host.heard("tool.call") == [{**head(2), "name": "double", "arguments": {"n": 2}}]


# ---- tools of the agent's own


async def test_a_tool_that_raises_is_recorded_and_its_exception_stays(host: Host) -> None:
    host.answers = {Method.EFFECT_OPEN: answering(opened()), Method.EFFECT_CLOSE: answering({})}
    body = """
    def fail():
        raise ZeroDivisionError("by nothing")
    await ctx.tool_effect("divide", {}, fail)
    """
    with pytest.raises(RpcError, match="by nothing") as caught:
        await script(host, body)
    assert "ZeroDivisionError" in caught.value.message
    (closed,) = host.heard("effect.close")
    assert closed["error"] == {
        "code": "AF603",
        "message": "ZeroDivisionError: by nothing",
        "details": {"exception": "builtins.ZeroDivisionError", "arguments": ["by nothing"]},
    }


async def test_a_tool_that_raises_in_its_thread_is_recorded(host: Host) -> None:
    host.answers = {Method.EFFECT_OPEN: answering(opened()), Method.EFFECT_CLOSE: answering({})}
    body = """
    try:
        ctx.tool_effect_blocking("divide", {}, lambda: 1 / 0)
    except ZeroDivisionError:
        return "raised"
    """
    assert await script(host, body, "Blocking") == "raised"
    assert host.heard("effect.close")[0]["error"]["details"]["exception"] == "builtins.ZeroDivisionError"


async def test_an_exception_that_cannot_be_made_again_is_a_failed_tool(host: Host) -> None:
    error = {"message": "Odd: twice", "details": {"exception": "no.such.Odd", "arguments": ["twice"]}}
    host.answers = {Method.EFFECT_OPEN: answering(opened(effect=None, error=error))}
    with pytest.raises(RpcError) as caught:
        await script(host, "await ctx.tool_effect('odd', {}, None)")
    assert (caught.value.data["code"], caught.value.data["message"]) == ("AF603", "Odd: twice")


async def test_an_exception_of_an_earlier_attempt_is_told_as_the_agents_own(host: Host) -> None:
    error = {"message": "ZeroDivisionError: by nothing"}
    error["details"] = {"exception": "builtins.ZeroDivisionError", "arguments": ["by nothing"]}
    host.answers = {Method.EFFECT_OPEN: answering(opened(effect=None, error=error))}
    with pytest.raises(RpcError, match="`ZeroDivisionError`: by nothing") as caught:
        await script(host, "await ctx.tool_effect('divide', {}, None)")
    assert (caught.value.data["code"], caught.value.data["origin"]) == ("AF422", "user")


async def test_a_result_that_json_cannot_hold_fails_the_tool(host: Host) -> None:
    host.answers = {Method.EFFECT_OPEN: answering(opened()), Method.EFFECT_CLOSE: answering({})}
    with pytest.raises(RpcError, match="bytes") as caught:
        await script(host, "await ctx.tool_effect('read', {}, lambda: b'x')")
    assert caught.value.data["code"] == "AF604"
    assert host.heard("effect.close")[0]["error"]["code"] == "AF604"


async def test_a_tool_that_asks_for_its_key_gets_it(host: Host) -> None:
    host.answers = {Method.EFFECT_OPEN: answering(opened()), Method.EFFECT_CLOSE: answering({})}
    body = "return await ctx.tool_effect('pay', {}, lambda idempotency_key: 'with ' + idempotency_key)"
    assert await script(host, body) == "with k-1"


async def test_a_tool_that_the_framework_gives_up_is_recorded_as_failed(host: Host) -> None:
    closed = asyncio.Event()

    async def close(params: dict[str, Any]) -> Any:
        closed.set()
        return {}

    host.answers = {Method.EFFECT_OPEN: answering(opened()), Method.EFFECT_CLOSE: close, Method.QUESTION_ASK: never}
    body = """
    try:
        await asyncio.wait_for(ctx.tool_effect("slow", {}, asyncio.Event().wait), 0.01)
    except asyncio.TimeoutError:
        await ctx.ask("And now?")
    """
    task = asyncio.create_task(script(host, body))
    async with asyncio.timeout(20):
        await closed.wait()
    assert host.heard("effect.close")[0]["error"]["details"]["exception"].endswith("CancelledError")
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("adapter", ["Loop", "Blocking"])
async def test_a_tool_that_is_interrupted_stays_open(host: Host, adapter: str) -> None:
    """Nobody knows how it ended: it is in flight for whoever takes the run up."""
    host.answers = {Method.EFFECT_OPEN: answering(opened()), Method.QUESTION_ASK: answering(waits())}
    body = {
        "Loop": "await ctx.tool_effect('confirm', {}, lambda: ctx.wait(ctx.ask('Sure?')))",
        "Blocking": "ctx.tool_effect_blocking('confirm', {}, lambda: ctx.wait(ctx.ask('Sure?')))",
    }[adapter]
    with pytest.raises(RpcError) as caught:
        await script(host, body, adapter)
    assert caught.value.code == ErrorCode.CANCELLED
    assert [method for method, _ in host.asked] == ["effect.open", "question.ask"]


async def test_a_call_of_two_halves_is_announced_and_recorded(host: Host) -> None:
    """For frameworks that tell before and after a tool's call."""
    answer = answering(opened(), opened(effect=None, value="before"))
    host.answers = {Method.EFFECT_OPEN: answer, Method.EFFECT_CLOSE: answering({})}
    body = """
    first = await ctx.begin_tool("a", {"n": 1}, idempotent=True)
    returned = await first.returned((1,))
    second = await ctx.begin_tool("b", {})
    return [first.recorded, first.idempotency_key, returned, second.recorded, second.result()]
    """
    assert await script(host, body) == [False, "k-1", [1], True, "before"]
    assert [method for method, _ in host.asked] == ["effect.open", "effect.close", "effect.open"]


async def test_waiting_on_the_loop_itself_is_an_error_and_no_deadlock(host: Host) -> None:
    with pytest.raises(RpcError, match="for threads"):
        await script(host, "ctx.wait(ctx.now())")
    assert "never awaited" not in " ".join(host.lines("r1"))


async def test_a_thread_that_asks_after_the_end_is_told_so_and_nothing_else(host: Host) -> None:
    host.answers = {Method.QUESTION_ASK: answering(waits())}
    body = """
    try:
        ctx.wait(ctx.ask("May I?"))
    finally:
        for _ in range(3):
            try:
                ctx.wait(ctx.now())
            except Cancelled:
                pass
    """
    with pytest.raises(RpcError, match="cancelled"):
        await script(host, body, "Blocking")
    assert host.logs == []


# ---- refusals, and the end of a run


@pytest.mark.parametrize("effect", ["ctx.ask('When?')", "ctx.run_agent('a.yaml', 1)", "ctx.checkpoint('x')"])
async def test_what_the_host_refuses_keeps_its_code_and_origin(host: Host, effect: str) -> None:
    refuse = answering(refusal("AF715", "nobody answered"))
    host.answers = dict.fromkeys((Method.QUESTION_ASK, Method.RUN_CALL, Method.CHECKPOINT_SAVE), refuse)
    with pytest.raises(RpcError) as caught:
        await script(host, "await " + effect)
    data = caught.value.data
    assert (data["code"], data["message"], data["hint"]) == ("AF715", "nobody answered", "Do this.")
    assert data["origin"] == "user"


async def test_a_refusal_can_be_caught_and_tells_its_code(host: Host) -> None:
    host.answers = {Method.QUESTION_ASK: answering(refusal("AF715", "nobody answered"))}
    body = """
    try:
        await ctx.ask("When?")
    except EffectFailed as error:
        return [error.code, error.text, isinstance(error, ToolFailed)]
    """
    assert await script(host, body) == ["AF715", "nobody answered", False]
