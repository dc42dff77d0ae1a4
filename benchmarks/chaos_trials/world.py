"""The project under attack: its files, its model, its host, and whoever starts the next host."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import psutil

from agentforge.api.connection import Connection
from agentforge.api.place import answers, host_place
from agentforge.api.starting import ensure_host
from agentforge.errors import AgentForgeError
from agentforge.errors.host import HostGone
from agentforge_conformance.scripted_model import ScriptedModel
from chaos_trials.sightings import Requests, ToolLog
from chaos_trials.story import write_agent

__all__ = ["Way", "World", "open_world", "until"]

Way = Literal["command", "client"]
"""How a user brings runs back: `agentforge runs resume --all`, or the same through the API."""
_COMMAND = Path(sys.executable).with_name("agentforge")
_RETRY_S = 0.02
_FAULTS = "AGENTFORGE_FAULTS"


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


class World:
    """One project. Requests to its host outlive the host: they wait for the next one."""

    def __init__(self, root: Path, model: ScriptedModel) -> None:
        self.root = root
        self.model = model
        self.log = ToolLog(_made(root / "calls") / "calls.jsonl")
        self.requests = Requests(model)
        self.variables = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "sk-chaos"}
        self.connection = Connection(socket=host_place(root).socket)
        self.serving = asyncio.Event()
        self.host_pid = self._killed_pid = 0
        self.host_delay_ms = 0
        self.trouble: list[str] = []
        self._commands: set[asyncio.Task[None]] = set()

    # ---- the host

    async def start(self, delay_ms: int = 0) -> None:
        """Start a host as a client does; `delay_ms`: how long it waits between a commit and the answer."""
        while True:
            await asyncio.to_thread(ensure_host, self.root, self._environ(delay_ms))
            with contextlib.suppress(HostGone):
                self.host_pid = int((await self.connection.get("/v1/host"))["pid"])
                break
        self.host_delay_ms = _delay_of(self.host_pid)
        self.serving.set()

    async def recover(self, way: Way, delay_ms: int = 0) -> None:
        """Bring back what a killed host left; returns once the new host serves."""
        await until(self._is_gone, _RETRY_S)
        if way == "command":
            command = self._resume_by_command(delay_ms)
            await until(lambda: command.done() or answers(host_place(self.root)), _RETRY_S)
            await self.start(delay_ms)  # there is none yet only if the command failed
        else:
            await self.start(delay_ms)
            try:
                await self.connection.post("/v1/runs/resume", {"variables": self.variables})
            except AgentForgeError as error:
                self.trouble.append(f"POST /v1/runs/resume: {error.code} {error.message}")

    def killed(self) -> None:
        """Note that the host was killed."""
        self.serving.clear()
        self._killed_pid, self.host_pid = self.host_pid, 0

    async def workers(self) -> list[dict[str, Any]]:
        """Return the host's live workers. Raises HostGone."""
        return list((await self.connection.get("/v1/host"))["workers"])

    def _is_gone(self) -> bool:
        """Whether the host that was killed is no more: for a moment its socket still takes connections."""
        try:
            return bool(psutil.Process(self._killed_pid).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    def _resume_by_command(self, delay_ms: int) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._command(delay_ms, "runs", "resume", "--all", "--json"))
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)
        return task

    async def _command(self, delay_ms: int, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            str(_COMMAND), *arguments,
            cwd=self.root,
            env=self._environ(delay_ms),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, err = await process.communicate()
        said = err.decode(errors="replace")
        # 1: a run waits or failed, or the host was killed again while the command looked on.
        if process.returncode not in (0, 1) or "Traceback" in said:
            self.trouble.append(f"`agentforge {' '.join(arguments)}` ended with {process.returncode}: {said[-2000:]}")

    def _environ(self, delay_ms: int) -> dict[str, str]:
        faults = {_FAULTS: f"after-commit:{delay_ms}"} if delay_ms else {}
        return {**os.environ, **self.variables, **faults}

    # ---- talking to whatever host there is

    async def get(self, path: str, **query: Any) -> Any:
        """Return a resource, from the next host if this one dies."""
        return await self._ask(lambda: self.connection.get(path, **query))

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
        """Post, again to the next host if this one dies before it has answered."""
        return await self._ask(lambda: self.connection.post(path, body, headers))

    async def _ask(self, request: Any) -> Any:
        while True:
            await self.serving.wait()
            try:
                return await request()
            except HostGone:
                await asyncio.sleep(_RETRY_S)

    async def close(self) -> None:
        """Stop the host, and wait for commands that are still under way."""
        if answers(host_place(self.root)):
            with contextlib.suppress(HostGone):
                await self.connection.post("/v1/host/stop")
            await until(lambda: not answers(host_place(self.root)), _RETRY_S)
        await asyncio.gather(*self._commands)
        await self.connection.close()
        self.log.close()


def _delay_of(host: int) -> int:
    """Return how long a host waits after each commit: whoever started it has said so."""
    try:
        faults = psutil.Process(host).environ().get(_FAULTS, "")
    except psutil.Error:
        return 0
    return int(faults.removeprefix("after-commit:") or 0)


async def until(sign: Callable[[], bool], every_s: float) -> None:
    """Wait until something is so that tells nobody of it."""
    while not sign():  # noqa: ASYNC110
        await asyncio.sleep(every_s)


@asynccontextmanager
async def open_world(root: Path) -> AsyncIterator[World]:
    """Make the project and its model; no host runs yet."""
    (root / "agentforge.toml").touch()
    async with ScriptedModel() as model:
        world = World(root, model)
        write_agent(root, world.log.path)
        try:
            yield world
        finally:
            await world.close()
