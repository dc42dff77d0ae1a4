"""Scripted scenarios that an environment has to pass before it takes the place of another one.

Who calls it: updates, after the build's own check. A real worker runs the release's adapter against the scripted
model; each scenario counts only where the manifest says `full` for what it needs. The suite of the conformance package
asks for far more; this is what goes wrong most often between two releases, in seconds.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentforge.engine.adapters import AdapterStore
from agentforge.environments import Environment
from agentforge.errors import AgentForgeError
from agentforge.frameworks import Release
from agentforge.sandbox import Fence, Level
from agentforge.workers import Trial, TrialRun, WorkerSpec
from agentforge_conformance.scripted_model import CalledTool, RecordedRequest, ScriptedModel, Step
from agentforge_worker.wire import RpcError

__all__ = ["SCENARIOS", "Outcome", "Scenario", "smoke"]

_PATIENCE_S = 60.0
_START_S = 180.0
_ADD = {
    "name": "add",
    "description": "Add two whole numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}
_BOOK = {
    "name": "book",
    "description": "Book expenses.",
    "parameters": {
        "type": "object",
        "properties": {
            "category": {"type": "string", "enum": ["travel", "meals"]},
            "amount": {"type": "number"},
            "labels": {"type": "array", "items": {"type": "string"}},
            "note": {"type": "string"},
        },
        "required": ["category", "amount", "labels"],
    },
}
_OUTPUT = {
    "type": "object",
    "properties": {"total": {"type": "number"}, "currency": {"type": "string", "enum": ["EUR", "USD"]}},
    "required": ["total", "currency"],
    "additionalProperties": False,
}
_INSTRUCTIONS = "You keep the books of Zürich {branch}."


class _Wrong(Exception):
    """What a scenario found, in a sentence."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one scenario ended."""

    scenario: str
    state: Literal["passed", "failed", "skipped"]
    message: str = ""
    duration_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as reports show it."""
        duration_ms = round(self.duration_s * 1000)
        return {"scenario": self.scenario, "state": self.state, "message": self.message, "duration_ms": duration_ms}


class _Stage:
    """A worker in the environment, and the model that it asks."""

    def __init__(self, trial: Trial, model: ScriptedModel, release: Release) -> None:
        self.model = model
        self.release = release
        self._trial = trial
        self._opened = 0

    async def run(self, text: str, *steps: Step, stream: bool = False, **agent: Any) -> TrialRun:
        """Have an agent answer while the model goes through its steps (none: what it does by default)."""
        self._opened += 1
        name = f"smoke-{self._opened}"
        spec = {"name": "smoke", "instructions": _INSTRUCTIONS, "model": name, "tools": [], **agent}
        messages = spec.pop("messages", None)
        if steps:
            self.model.script(name, *steps, per="conversation")
        await self._trial.open({"agent_id": name, "spec": spec})
        return await self._trial.run(name, text, stream=stream, messages=messages)

    def requests(self, run: TrialRun) -> list[RecordedRequest]:
        """Return what a run asked the model."""
        return [each for each in self.model.requests if each.header("authorization") == f"Bearer {run.token}"]


def _calls(run: TrialRun, *expected: tuple[str, dict[str, Any]]) -> None:
    found = [json.dumps(call, sort_keys=True) for call in run.tool_calls]
    wanted = [json.dumps(call, sort_keys=True) for call in expected]
    if found != wanted:
        raise _Wrong(
            f"the tools were to be called with {', '.join(wanted)}, but were with {', '.join(found) or 'none'}"
        )


def _answer(run: TrialRun, expected: Any) -> None:
    output = (run.result or {}).get("output")
    if output != expected:
        raise _Wrong(f"the answer was to be {json.dumps(expected)}, but was {json.dumps(output)[:300]}")


def _asks(requests: Sequence[RecordedRequest], *texts: str) -> None:
    for number, request in enumerate(requests, 1):
        said = json.dumps(request.json, ensure_ascii=False)
        for text in texts:
            if json.dumps(text, ensure_ascii=False)[1:-1] not in said:
                raise _Wrong(f"`{text}` did not reach the model in request {number}")


async def _tool_rounds(stage: _Stage) -> None:
    """Two calls, one after the other; instructions and tools reach the model, both results come back."""
    first, second = {"a": 2, "b": 3}, {"a": 5, "b": 4}
    steps = (Step(calls=[CalledTool("add", first)]), Step(calls=[CalledTool("add", second)]), Step(text="{tools}"))
    run = await stage.run("How much?", *steps, tools=[_ADD])
    _calls(run, ("add", first), ("add", second))
    _answer(run, "5 9")
    requests = stage.requests(run)
    _asks(requests, _INSTRUCTIONS, "How much?")
    for tool in requests[0].conversation.tools:
        if set((tool.get("parameters") or {}).get("properties") or {}) != {"a", "b"}:
            raise _Wrong(f"the model was told of the tool as {json.dumps(tool)[:300]}")


async def _arguments(stage: _Stage) -> None:
    """Lists, numbers, letters of all sorts and one left out: a tool gets what the model gave."""
    given = {"category": "meals", "amount": 12.5, "labels": ["a b", "Zoë", '"q"'], "note": "x\ny {z}"}
    less = {"category": "travel", "amount": 3.25, "labels": []}
    steps = (Step(calls=[CalledTool("book", given)]), Step(calls=[CalledTool("book", less)]), Step(text="{tools}"))
    run = await stage.run("Book it.", *steps, tools=[_BOOK])
    calls = [(name, {key: value for key, value in said.items() if value is not None}) for name, said in run.tool_calls]
    if calls != [("book", given), ("book", less)]:
        raise _Wrong(f"the tool was to get {json.dumps([given, less])}, but got {json.dumps(calls)[:600]}")
    _answer(run, "booked 4 booked 3")


async def _parallel_calls(stage: _Stage) -> None:
    """Two calls in one answer of the model: both are made, and each result goes back to its call."""
    calls = [CalledTool("add", {"a": 1, "b": 2}, "call-1"), CalledTool("add", {"a": 30, "b": 4}, "call-2")]
    run = await stage.run("How much?", Step(calls=calls), Step(text="{tools}"), tools=[_ADD])
    if sorted(str(each.get("a")) for _, each in run.tool_calls) != ["1", "30"]:
        raise _Wrong(f"two calls were to be made, but were {json.dumps(run.tool_calls)}")
    told = (run.result or {}).get("output")
    if sorted(str(told).split()) != ["3", "34"]:
        raise _Wrong(f"the results 3 and 34 were to go back to the model, but it had `{str(told)[:200]}`")


async def _streaming(stage: _Stage) -> None:
    """A run that is watched streams its model requests, calls the tool and answers."""
    given = {"a": 20, "b": 22}
    steps = (Step(calls=[CalledTool("add", given)]), Step(text="It is {tool}."))
    run = await stage.run("How much?", *steps, tools=[_ADD], stream=True)
    if not all(request.json.get("stream") for request in stage.requests(run)):
        raise _Wrong("a model request did not stream")
    _calls(run, ("add", given))
    _answer(run, "It is 42.")


async def _history(stage: _Stage) -> None:
    """What was said before reaches the model."""
    said = [{"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Hello Ada!"}]
    run = await stage.run("Who am I?", Step(text="Ada."), messages=said)
    _asks(stage.requests(run)[:1], "My name is Ada.", "Hello Ada!", "Who am I?")
    _answer(run, "Ada.")


async def _structured_output(stage: _Stage) -> None:
    """The answer is the value that the schema describes."""
    run = await stage.run("How much was it?", output=_OUTPUT)
    _answer(run, {"total": 2.0, "currency": "EUR"})


async def _settings(stage: _Stage) -> None:
    """The model settings that the manifest names reach the wire."""
    values = {"temperature": 0.25, "max_tokens": 321, "top_p": 0.75}
    given = {name: value for name, value in values.items() if name in stage.release.traits.model_settings}
    run = await stage.run("Hello.", Step(text="Hi."), settings=given)
    (sent, *_) = [request.json for request in stage.requests(run)]
    for name, value in given.items():
        if sent.get(name, sent.get("max_completion_tokens") if name == "max_tokens" else None) != value:
            raise _Wrong(f"the model setting `{name}` = {value} did not reach the model")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scripted scenario."""

    name: str
    needs: tuple[str, ...]
    """Capabilities that the manifest has to call `full`."""
    play: Callable[[_Stage], Awaitable[None]]


SCENARIOS = (
    Scenario("tool-rounds", ("tools",), _tool_rounds),
    Scenario("arguments", ("tools",), _arguments),
    Scenario("parallel-calls", ("tools",), _parallel_calls),
    Scenario("streaming", ("streaming", "tools"), _streaming),
    Scenario("history", ("threads",), _history),
    Scenario("structured-output", ("structured-output",), _structured_output),
    Scenario("settings", (), _settings),
)
"""All of them, in their order."""


async def smoke(
    environment: Environment, release: Release, adapters: AdapterStore, level: Level
) -> AsyncIterator[Outcome]:
    """Try the scenarios in an environment, and yield how each ended. A worker that can't be started is an outcome."""
    spec = WorkerSpec(
        kind="agent",
        environment=environment.id,
        python=environment.python,
        agent_version="smoke",
        adapter=adapters.code(release),
        variables=release.traits.variables,
        fence=Fence(level),
        label=f"smoke test of {release.reference}",
    )
    tools = {"add": _add, "book": _book}
    async with ScriptedModel() as model:
        trial = Trial(spec, model.base_url, tools)
        try:
            async with asyncio.timeout(_START_S):
                await trial.__aenter__()
        except (RpcError, AgentForgeError, TimeoutError) as error:
            yield Outcome("start", "failed", _said(error, _START_S))
            return
        try:
            stage = _Stage(trial, model, release)
            for scenario in SCENARIOS:
                yield await _tried(scenario, stage)
        finally:
            await trial.__aexit__(None, None, None)


async def _tried(scenario: Scenario, stage: _Stage) -> Outcome:
    for name in scenario.needs:
        capability = stage.release.traits.capability(name)
        if capability.level != "full":
            said = f"`{name}` is {capability.level}" + (f": {capability.note}" if capability.note else "")
            return Outcome(scenario.name, "skipped", said)
    stage.model.reset()
    started = time.monotonic()
    problem = ""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await scenario.play(stage)
    except (_Wrong, RpcError, AgentForgeError, TimeoutError) as error:
        problem = _said(error, _PATIENCE_S)
    return Outcome(scenario.name, "failed" if problem else "passed", problem, time.monotonic() - started)


def _said(error: Exception, patience_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"it had not ended after {patience_s:g} s"
    return error.message if isinstance(error, RpcError | AgentForgeError) else str(error)


async def _add(arguments: dict[str, Any]) -> Any:
    return int(arguments["a"]) + int(arguments["b"])


async def _book(arguments: dict[str, Any]) -> Any:
    return f"booked {sum(value is not None for value in arguments.values())}"
