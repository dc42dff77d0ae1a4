"""A trial: agents run in one worker against a model endpoint, with no gateway and no store in between.

Builds check an environment with it, conformance suites check adapters. The door is forwarded byte for byte to the
endpoint, so the endpoint sees exactly what the framework's client sent, run token included.
"""

import asyncio
import contextlib
import itertools
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentforge.workers.process import Handlers, Worker, WorkerTimeouts
from agentforge.workers.spec import WorkerSpec
from agentforge.workers.zip import worker_zip
from agentforge_worker.wire import ErrorCode, Method, RpcError

__all__ = ["Trial", "TrialRun"]

Tool = Callable[[dict[str, Any]], Awaitable[Any]]


@dataclass
class TrialRun:
    """What one run of a trial did."""

    run_id: str
    token: str
    workspace: Path
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tool_calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    result: dict[str, Any] | None = None


class Trial:
    """An async context: a live worker whose door leads to `model_url` (http://127.0.0.1:PORT/v1).

    `tools` are the bodies of the portable agent's tools by name; one that raises makes the call fail with AF603.
    """

    def __init__(self, spec: WorkerSpec, model_url: str, tools: Mapping[str, Tool] | None = None) -> None:
        self._spec = spec
        self._model = urlsplit(model_url)
        self._tools = dict(tools or {})
        self._runs: dict[str, TrialRun] = {}
        self._numbers = itertools.count(1)
        self._stack = contextlib.AsyncExitStack()
        self.worker: Worker
        self.logs: list[str] = []

    async def __aenter__(self) -> "Trial":
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        self._folder = folder
        self.worker = await Worker.start(
            "trial",
            self._spec,
            pyz=worker_zip(folder),
            folder=folder / "worker",
            handlers=Handlers(self._call_tool, self._event, self._log, self._warn),
            timeouts=WorkerTimeouts(),
        )
        self._stack.push_async_callback(self.worker.stop)
        assert self.worker.door is not None
        server = await asyncio.start_server(self._forward, sock=self.worker.door)
        self._stack.callback(server.close)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def open(self, agent: Mapping[str, Any]) -> dict[str, Any]:
        """Open an agent: {"agent_id", "spec" | "source"}; returns {"card", "warnings"}."""
        opened: dict[str, Any] = await self.worker.call(Method.AGENT_OPEN, dict(agent))
        return opened

    def prepare(self) -> TrialRun:
        """Return a run that can be watched (and cancelled) while `run` executes it."""
        number = next(self._numbers)
        workspace = self._folder / f"workspace-{number}"
        workspace.mkdir()
        run = TrialRun(f"run-{number}", "af-run-" + secrets.token_urlsafe(12), workspace)
        self._runs[run.run_id] = run
        return run

    async def run(
        self,
        agent_id: str,
        text: Any,
        *,
        run: TrialRun | None = None,
        stream: bool = False,
        messages: list[dict[str, Any]] | None = None,
    ) -> TrialRun:
        """Run an opened agent to its end. Raises RpcError when it fails (its `data` is the error object)."""
        run = run or self.prepare()
        params = {
            "run_id": run.run_id,
            "agent_id": agent_id,
            "token": run.token,
            "workspace": str(run.workspace),
            "input": text,
            "messages": messages or [],
            "stream": stream,
        }
        run.result = await self.worker.call(Method.RUN_START, params)
        return run

    def cancel(self, run: TrialRun) -> None:
        """Ask for a run's end."""
        self.worker.notify(Method.RUN_CANCEL, {"run_id": run.run_id})

    async def _call_tool(self, worker: Worker, params: dict[str, Any]) -> Any:
        name, arguments = params["name"], params["arguments"]
        self._runs[params["run_id"]].tool_calls.append((name, arguments))
        try:
            return {"value": await self._tools[name](arguments)}
        except asyncio.CancelledError:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            raise RpcError(ErrorCode.FAILED, text, {"code": "AF603", "message": text, "origin": "tool"}) from error

    def _event(self, worker: Worker, params: dict[str, Any]) -> None:
        self._runs[params["run_id"]].events.append((params["kind"], params["data"]))

    def _log(self, worker: Worker, params: dict[str, Any]) -> None:
        run = self._runs.get(params.get("run_id") or "")
        (run.logs if run else self.logs).append(params["text"])

    def _warn(self, worker: Worker, params: dict[str, Any]) -> None:
        self._runs[params["run_id"]].warnings.append(params["message"])

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            back, forth = await asyncio.open_connection(self._model.hostname, self._model.port)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pipe(reader, forth))
                group.create_task(_pipe(back, writer))


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
