"""A trial: agents run in one worker against a model endpoint, with no gateway and no store in between.

Builds check an environment with it, conformance suites check adapters. The door is forwarded byte for byte to the
endpoint, so the endpoint sees exactly what the framework's client sent, run token included.
"""

import asyncio
import contextlib
import itertools
import json
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentforge.sandbox import sandbox_for
from agentforge.workers.bytecode import compiling_into, keep_bytecode
from agentforge.workers.process import Handlers, Worker, WorkerTimeouts
from agentforge.workers.spec import WorkerSpec
from agentforge.workers.workspaces import Workspaces
from agentforge.workers.zip import worker_zip
from agentforge_worker.wire import ErrorCode, Method, RpcError

__all__ = ["Trial", "TrialRun"]

Params = dict[str, Any]
Tool = Callable[[dict[str, Any]], Awaitable[Any]]
Serve = Callable[["TrialRun", str, Params], Awaitable[Any]]
"""Answers what a run asks of its host: the method and its parameters, as the protocol has them."""

_GROUP = "trial"
_ASKED = (
    Method.EFFECT_OPEN,
    Method.EFFECT_CLOSE,
    Method.VALUE_TAKE,
    Method.CHECKPOINT_SAVE,
    Method.QUESTION_ASK,
    Method.RUN_CALL,
)
_VALUES = {"now": 1_700_000_000.0, "random": 0.25}
"""What a run is given for time and chance."""


@dataclass
class TrialRun:
    """What one attempt of a run of a trial did."""

    run_id: str
    token: str
    workspace: Path
    attempt: int = 1
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tool_calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    own_tool_calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Calls of a native agent's own tools that were announced: made, or answered from an earlier attempt."""
    asked: list[tuple[str, Params]] = field(default_factory=list)
    """Other requests to the host: questions, values, checkpoints, child runs."""
    result: dict[str, Any] | None = None
    journal: dict[str, Params] = field(default_factory=dict)
    """How the native agent's own tools ended, shared by all attempts; by call and occurrence."""
    open: dict[str, str] = field(default_factory=dict)
    """Keys of the calls under way in this attempt, by effect."""


class Trial:
    """An async context: a live worker whose door leads to `model_url` (http://127.0.0.1:PORT/v1).

    `tools` are the bodies of the portable agent's tools by name; one that raises makes the call fail with AF603,
    an RpcError fails it as it is. `keep_bytecode`: what the worker imports from its environment is compiled, in there,
    for all the workers to come. `answers` are those to an agent's questions; another question ends the attempt, as
    a host does that has a human to ask. A child run's output is its input. `serve` answers all requests of the runs in
    place of these.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        model_url: str,
        tools: Mapping[str, Tool] | None = None,
        answers: Mapping[str, Any] | None = None,
        *,
        keep_bytecode: bool = False,
        serve: Serve | None = None,
    ) -> None:
        self._serve = serve
        self._spec = spec
        self._keep_bytecode = keep_bytecode
        self._model = urlsplit(model_url)
        self._tools = dict(tools or {})
        self.answers = dict(answers or {})
        self._runs: dict[tuple[str, int], TrialRun] = {}
        self._numbers = itertools.count(1)
        self._stack = contextlib.AsyncExitStack()
        self.worker: Worker
        self.logs: list[str] = []

    async def __aenter__(self) -> "Trial":
        try:
            await self._begin()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _begin(self) -> None:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        sandbox = await asyncio.to_thread(sandbox_for, self._spec.fence.level)
        self._workspaces = Workspaces(folder / "workspaces")
        self._sandbox = sandbox
        shared, user = self._workspaces.group(_GROUP, sandbox, self._spec.user)
        fence = replace(self._spec.fence, workspaces=shared)
        spec = replace(self._spec, fence=fence, user=user)
        if self._keep_bytecode:
            compiled = self._workspaces.open(_GROUP, "bytecode", sandbox, user)
            spec = replace(spec, variables={**spec.variables, **compiling_into(compiled)})
            self._stack.callback(keep_bytecode, compiled, spec.python.parent.parent)
        self.worker = await Worker.start(
            "trial",
            spec,
            pyz=worker_zip(folder),
            folder=folder / "worker",
            handlers=Handlers(self._handled_tool, self._event, self._log, self._warn, self._requests()),
            timeouts=WorkerTimeouts(),
        )
        self._stack.push_async_callback(self.worker.stop)
        assert self.worker.door is not None
        server = await asyncio.start_server(self._forward, sock=self.worker.door)
        self._stack.callback(server.close)

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def open(self, agent: Mapping[str, Any]) -> dict[str, Any]:
        """Open an agent: {"agent_id", "spec" | "source"}; returns {"card", "warnings"}."""
        opened: dict[str, Any] = await self.worker.call(Method.AGENT_OPEN, dict(agent))
        return opened

    def prepare(self, run_id: str = "") -> TrialRun:
        """Return a run that can be watched (and cancelled) while `run` executes it; without a name it is numbered."""
        run_id = run_id or f"run-{next(self._numbers)}"
        return self._known(TrialRun(run_id, _token(), self.folder(run_id)))

    def folder(self, name: str) -> Path:
        """Return a folder that the worker may read and write."""
        return self._workspaces.open(_GROUP, name, self._sandbox, self.worker.spec.user)

    def prepare_again(self, run: TrialRun) -> TrialRun:
        """Return the next attempt of a run: its own tools that have ended are not called again."""
        return self._known(
            TrialRun(run.run_id, _token(), run.workspace, run.attempt + 1, journal=run.journal),
        )

    def _known(self, run: TrialRun) -> TrialRun:
        self._runs[run.run_id, run.attempt] = run
        return run

    async def run(
        self,
        agent_id: str,
        text: Any,
        *,
        run: TrialRun | None = None,
        stream: bool = False,
        messages: list[dict[str, Any]] | None = None,
        continues: bool = False,
    ) -> TrialRun:
        """Run an opened agent to its end. Raises RpcError when it fails (its `data` is the error object)."""
        run = run or self.prepare()
        params = {
            "run_id": run.run_id,
            "attempt": run.attempt,
            "agent_id": agent_id,
            "token": run.token,
            "workspace": str(run.workspace),
            "input": text,
            "messages": messages or [],
            "stream": stream,
            "continues": continues,
        }
        run.result = await self.worker.call(Method.RUN_START, params)
        return run

    def cancel(self, run: TrialRun) -> None:
        """Ask for a run's end."""
        self.worker.notify(Method.RUN_CANCEL, {"run_id": run.run_id, "attempt": run.attempt})

    # ---- what the worker asks for

    async def _handled_tool(self, worker: Worker, params: Params) -> Any:
        if self._serve is not None:
            return await self._serve(self._run_of(params), Method.TOOL_CALL, params)
        return await self._call_tool(worker, params)

    def _requests(self) -> dict[str, Callable[[Worker, Params], Awaitable[Any]]]:
        if self._serve is not None:
            return {method: self._served(method) for method in _ASKED}
        return {
            Method.EFFECT_OPEN: self._open_effect,
            Method.EFFECT_CLOSE: self._close_effect,
            Method.VALUE_TAKE: self._asked(Method.VALUE_TAKE, lambda params: {"value": _VALUES[params["kind"]]}),
            Method.CHECKPOINT_SAVE: self._asked(Method.CHECKPOINT_SAVE, lambda params: {}),
            Method.QUESTION_ASK: self._asked(Method.QUESTION_ASK, self._answer),
            Method.RUN_CALL: self._asked(Method.RUN_CALL, lambda params: {"output": params["input"]}),
        }

    def _served(self, method: str) -> Callable[[Worker, Params], Awaitable[Any]]:
        async def serve(worker: Worker, params: Params) -> Any:
            assert self._serve is not None
            return await self._serve(self._run_of(params), method, params)

        return serve

    def _asked(self, method: str, answer: Callable[[Params], Any]) -> Callable[[Worker, Params], Awaitable[Any]]:
        async def serve(worker: Worker, params: Params) -> Any:
            self._run_of(params).asked.append((method, params))
            return answer(params)

        return serve

    def _answer(self, params: Params) -> Any:
        if params["question"] in self.answers:
            return {"value": self.answers[params["question"]]}
        raise RpcError(ErrorCode.CANCELLED, "the run waits")

    async def _call_tool(self, worker: Worker, params: Params) -> Any:
        name, arguments = params["name"], params["arguments"]
        self._run_of(params).tool_calls.append((name, arguments))
        try:
            return {"value": await self._tools[name](arguments)}
        except (asyncio.CancelledError, RpcError):
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            raise RpcError(ErrorCode.FAILED, text, {"code": "AF603", "message": text, "origin": "tool"}) from error

    async def _open_effect(self, worker: Worker, params: Params) -> Any:
        run = self._run_of(params)
        call = f"{params['name']} {json.dumps(params['arguments'], sort_keys=True)}"
        occurrence = run.own_tool_calls.count((params["name"], params["arguments"]))
        run.own_tool_calls.append((params["name"], params["arguments"]))
        key = f"{call} {occurrence}"
        if key in run.journal:
            return {"effect": None, **run.journal[key]}
        effect = f"{run.attempt}-{len(run.own_tool_calls)}"
        run.open[effect] = key
        return {"effect": effect, "value": None, "error": None, "idempotency_key": f"{run.run_id} {key}"}

    async def _close_effect(self, worker: Worker, params: Params) -> Any:
        run = self._run_of(params)
        outcome = {"value": params.get("value"), "error": params.get("error")}
        run.journal[run.open.pop(params["effect"])] = outcome
        return {}

    def _run_of(self, params: Params) -> TrialRun:
        return self._runs[params["run_id"], params["attempt"]]

    def _event(self, worker: Worker, params: Params) -> None:
        self._run_of(params).events.append((params["kind"], params["data"]))

    def _log(self, worker: Worker, params: Params) -> None:
        logs = self._run_of(params).logs if params["run_id"] else self.logs
        logs.append(params["text"])

    def _warn(self, worker: Worker, params: Params) -> None:
        self._run_of(params).warnings.append(params["message"])

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            back, forth = await asyncio.open_connection(self._model.hostname, self._model.port)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pipe(reader, forth))
                group.create_task(_pipe(back, writer))


def _token() -> str:
    return "af-run-" + secrets.token_urlsafe(12)


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    except ConnectionError:
        pass
    finally:
        with contextlib.suppress(ConnectionError, RuntimeError):
            target.close()
