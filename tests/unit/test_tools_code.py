"""Code tools on the host's side: what goes to the model, and what comes from a process that may say anything."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge.errors.sandbox import MemoryExceeded
from agentforge.errors.tools import ToolArgumentsWrong, ToolFailure, ToolLimitHit, ToolTimedOut, ToolWorkerDied
from agentforge.tools import MOST_REPORT, CodeTools, PythonTools, Tool, Toolbox, ToolRequest

pytestmark = pytest.mark.feature("AF-148")
TOOL = Tool(code="python", name="run_python", timeout_s=3)
REPORT = {"ended": "done", "stdout": "hi\n", "stderr": "", "result": "2", "error": None, "files": ["a.txt"]}
ERROR = {"type": "E", "message": "m", "traceback": "t"}


class Runner:
    """Gives a report without running anything."""

    def __init__(self, report: Any = REPORT) -> None:
        self.report = report
        self.asked: list[tuple[str, str, float]] = []

    async def run(self, code: str, run_id: str, timeout_s: float) -> tuple[bytes, str]:
        self.asked.append((code, run_id, timeout_s))
        if isinstance(self.report, BaseException):
            raise self.report
        return self.report if isinstance(self.report, bytes) else json.dumps(self.report).encode(), "(exit status 0)"


async def call(runner: Runner, **arguments: Any) -> Any:
    return await CodeTools(runner).call(ToolRequest(TOOL, arguments or {"code": "1 + 1"}, "r1", "key"))


async def test_the_model_gets_what_the_code_came_to() -> None:
    runner = Runner()
    assert await call(runner) == {key: value for key, value in REPORT.items() if key != "ended"}
    assert runner.asked == [("1 + 1", "r1", 3)]


async def test_an_exception_in_the_code_is_a_result() -> None:
    value = await call(Runner({**REPORT, "result": None, "error": ERROR}))
    assert value["error"] == ERROR


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"code": 1}, "`code` of `run_python` is no text"),
        ({"kode": "1"}, "`run_python` has no parameter `kode`"),
        ({"code": "1", "timeout": 9}, "`run_python` has no parameter `timeout`"),
        ({"code": "1" * 200_001}, "has 200001 characters; at most 200000 are run"),
    ],
)
async def test_wrong_arguments_are_told_and_nothing_runs(arguments: dict[str, Any], problem: str) -> None:
    runner = Runner()
    with pytest.raises(ToolArgumentsWrong) as caught:
        await call(runner, **arguments)
    assert problem in caught.value.message
    assert runner.asked == []


async def test_code_that_takes_too_long_is_told_with_what_it_had_printed() -> None:
    with pytest.raises(ToolTimedOut) as caught:
        await call(Runner({**REPORT, "ended": "timed_out", "stdout": "x" * 5000 + "last"}))
    assert "did not end within 3 s and was stopped; it had printed: xxx" in caught.value.message
    assert caught.value.message.endswith("last")
    assert len(caught.value.message) < 1200
    assert caught.value.details["stdout"].endswith("last")


async def test_a_process_that_does_not_even_report_in_time_is_a_time_out_as_well() -> None:
    with pytest.raises(ToolTimedOut):
        await call(Runner(TimeoutError()))


async def test_code_that_is_ended_for_a_limit_is_told_which_one() -> None:
    with pytest.raises(ToolLimitHit) as caught:
        await call(Runner(MemoryExceeded("its processes used more than `memory_mib: 64`")))
    assert caught.value.info().code == "AF442"
    assert caught.value.message.startswith("the code given to `run_python` was ended: its processes used more than")
    assert not caught.value.shared, "nobody else was in there"


HOSTILE = {
    "nothing": b"",
    "no json": b"hello",
    "half": json.dumps(REPORT).encode()[:-5],
    "two": json.dumps(REPORT).encode() * 2,
    "no text": b'\xff\xfe{"ended": "done"}',
    "a list": b"[]",
    "too much": b" " * (MOST_REPORT + 1) + json.dumps(REPORT).encode(),
    "deep": b'{"ended": ' + b"[" * 400_000,
    "deep inside": b'{"files": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep unknown": b'{"x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "unknown key": json.dumps({**REPORT, "secret": 1}).encode(),
    "missing key": json.dumps({key: value for key, value in REPORT.items() if key != "files"}).encode(),
    "wrong type": json.dumps({**REPORT, "stdout": 1}).encode(),
    "another end": json.dumps({**REPORT, "ended": "well"}).encode(),
    "refused": json.dumps({**REPORT, "ended": "refused"}).encode(),
    "long stdout": json.dumps({**REPORT, "stdout": "x" * 25_001}).encode(),
    "long result": json.dumps({**REPORT, "result": "x" * 15_001}).encode(),
    "many files": json.dumps({**REPORT, "files": ["a"] * 101}).encode(),
    "long file": json.dumps({**REPORT, "files": ["a" * 501]}).encode(),
    "long traceback": json.dumps({**REPORT, "error": {**ERROR, "traceback": "x" * 10_001}}).encode(),
    "more of an error": json.dumps({**REPORT, "error": {**ERROR, "more": 1}}).encode(),
    "half characters": json.dumps({**REPORT, "stdout": "\ud800"}).encode(),
    "not a number": b'{"ended": NaN}',
}


@pytest.mark.parametrize("report", HOSTILE.values(), ids=HOSTILE)
async def test_a_report_that_is_none_is_not_believed(report: bytes) -> None:
    with pytest.raises(ToolWorkerDied) as caught:
        await call(Runner(report))
    assert caught.value.message.endswith("did not say how its code ended: (exit status 0)")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*REPORT, *ERROR]), inner, max_size=6),
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
async def test_whatever_a_process_writes_is_a_report_or_an_error_of_ours(report: bytes) -> None:
    try:
        value = await call(Runner(report))
    except ToolFailure:
        return
    assert set(value) == {"stdout", "stderr", "result", "error", "files"}


class Functions:
    """Stands for the tool workers."""

    async def describe(self, tools: list[Tool]) -> list[Tool]:
        return [Tool(file=tool.file, name=tool.file) for tool in tools]

    async def call(self, request: ToolRequest, *, alone: bool) -> str:
        return "from a function"


async def test_a_toolbox_gives_each_call_to_its_kind_and_keeps_their_order() -> None:
    functions: Any = Functions()
    toolbox = Toolbox(functions, CodeTools(Runner()))
    first, code, last = await toolbox.describe([Tool(file="a"), TOOL, Tool(file="b")])
    assert [first.name, code.name, last.name] == ["a", "run_python", "b"]
    assert code.parameters["required"] == ["code"]
    assert "new process" in code.description
    assert await toolbox.call(ToolRequest(first, {}, "r1", "k")) == "from a function"
    assert (await toolbox.call(ToolRequest(code, {"code": "1"}, "r1", "k")))["result"] == "2"


async def test_an_agent_with_code_alone_starts_no_tool_worker() -> None:
    nothing: PythonTools = None  # type: ignore[assignment]
    assert len(await Toolbox(nothing, CodeTools(Runner())).describe([TOOL])) == 1
