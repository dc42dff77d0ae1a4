"""What the worker's tests share: every Python that the guest supports, and a host that hears a worker out."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from agentforge.sandbox import Fence, Level, sandbox_for
from agentforge.workers import AdapterCode, Handlers, Worker, WorkerSpec, WorkerTimeouts, Workspaces, worker_zip
from agentforge.workers.interpreter import started_from
from agentforge_worker.wire import Method

OLDEST, NEWEST = (3, 8), (3, 13)


def pythons() -> list[Path]:
    """The interpreters that pyenv has, one of each minor version, or this one alone."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {version(path): path for path in sorted(root.glob("3.*/bin/python"))}
    return [path for minor, path in sorted(found.items()) if OLDEST <= minor <= NEWEST] or [Path(sys.executable)]


def version(python: Path) -> tuple[int, ...]:
    said = subprocess.run([python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, check=True)
    return tuple(map(int, said.stdout.split()))


@cache
def runs(python: Path) -> bool:
    """Whether the interpreter was built with what any Python has."""
    return subprocess.run([python, "-c", "import asyncio, ssl, sqlite3"], capture_output=True).returncode == 0


@dataclass
class Host:
    """What a worker's host would hear of it."""

    folder: Path
    level: Level = "standard"
    logs: list[tuple[str | None, str, str]] = field(default_factory=list)
    log_attempts: list[int | None] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """The worker's requests, in order."""
    answers: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = field(default_factory=dict)
    """What answers them, by method."""

    def spec(self, python: Path, adapter: str, **variables: str) -> WorkerSpec:
        code = AdapterCode(self.folder / "adapter", "adapter", adapter)
        variables["FRAMEWORK"] = str(self.folder / "site")
        group, user = self.workspaces.group("runs", sandbox_for(self.level))
        reads = tuple(each for each in (self.folder / "site", self.folder / "project") if each.exists())
        if python.is_relative_to(self.folder):  # a program in the place of an interpreter, run by this one
            reads += started_from(Path(sys.executable))
        fence = Fence(self.level, reads=reads, workspaces=group)
        return WorkerSpec("agent", "env", python, "version", code, variables, fence=fence, user=user, label="test")

    @property
    def workspaces(self) -> Workspaces:
        return Workspaces(self.folder / "workspaces")

    @contextlib.asynccontextmanager
    async def worker(
        self, python: Path = Path(sys.executable), adapter: str = "Loop", **timeouts: float
    ) -> AsyncIterator[Worker]:
        worker = await Worker.start(
            "w1",
            self.spec(python, adapter, GIVEN="yes"),
            pyz=worker_zip(self.folder / "zip"),
            folder=self.folder / "worker",
            handlers=Handlers(None, self._event, self._log, self._event, self._requests()),
            timeouts=WorkerTimeouts(**timeouts),
        )
        try:
            yield worker
        finally:
            await worker.stop()

    async def run(self, worker: Worker, what: Any, run_id: str = "r1", agent: dict[str, Any] | None = None) -> Any:
        await worker.call(Method.AGENT_OPEN, agent or portable())
        return await self.start(worker, what, run_id, agent["agent_id"] if agent else "a")

    async def start(self, worker: Worker, what: Any, run_id: str, agent_id: str = "a") -> Any:
        return await worker.call(Method.RUN_START, self.order(what, run_id, agent_id=agent_id))

    def order(self, what: Any, run_id: str = "r1", **more: Any) -> dict[str, Any]:
        """The parameters of `run.start`."""
        workspace = self.workspaces.open("runs", run_id, sandbox_for(self.level))
        order = {"run_id": run_id, "agent_id": "a", "token": f"token-{run_id}", "workspace": str(workspace)}
        return {**order, "input": what, **more}

    async def hears(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.news.clear()
                await self.news.wait()

    def lines(self, run_id: str | None) -> list[str]:
        return [text for run, _, text in self.logs if run == run_id]

    def heard(self, method: str) -> list[dict[str, Any]]:
        """The parameters of the worker's requests of one method."""
        return [params for each, params in self.asked if each == method]

    def _requests(self) -> dict[str, Callable[[Worker, dict[str, Any]], Awaitable[Any]]]:
        methods = (Method.TOOL_CALL, Method.EFFECT_OPEN, Method.EFFECT_CLOSE, Method.VALUE_TAKE)
        methods += (Method.CHECKPOINT_SAVE, Method.QUESTION_ASK, Method.RUN_CALL)
        return {method: self._server(method) for method in methods}

    def _server(self, method: str) -> Callable[[Worker, dict[str, Any]], Awaitable[Any]]:
        async def serve(worker: Worker, params: dict[str, Any]) -> Any:
            self.asked.append((method, params))
            self.news.set()
            if method in self.answers:
                return await self.answers[method](params)
            return {"value": params["arguments"]["n"] * 2}  # the tool `double`

        return serve

    def _event(self, worker: Worker, params: dict[str, Any]) -> None:
        self.events.append(params)
        self.news.set()

    def _log(self, worker: Worker, params: dict[str, Any]) -> None:
        self.logs.append((params["run_id"], params["stream"], params["text"]))
        self.log_attempts.append(params["attempt"])
        self.news.set()


def portable(agent_id: str = "a", instructions: str = "help") -> dict[str, Any]:
    return {"agent_id": agent_id, "spec": {"name": "tester", "instructions": instructions, "model": "m"}}
