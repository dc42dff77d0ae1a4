"""`Forge`: the Python client of a project's host."""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpcore

from agentforge.api.connection import Connection
from agentforge.api.inline import InlineHost, has_inline_host
from agentforge.api.place import HostPlace, answers, host_place
from agentforge.api.result import RunEvent, RunResult
from agentforge.api.starting import started_host
from agentforge.api.sync import SyncForge
from agentforge.config import find_project, names_to_send
from agentforge.errors import AgentForgeError
from agentforge.errors.host import HostAlreadyRuns, HostGone
from agentforge.errors.runs import HostStopped

__all__ = ["Forge", "RunHandle"]

_ENDED = ("succeeded", "failed", "cancelled", "waiting")
_WAIT_S = 30
_LEAVE_TIMEOUT_S = 15


class Forge:
    """Runs agents: `async with Forge() as forge: result = await forge.run("agent.yaml", "...", on="langchain")`.

    A client of the project's running host; where there is none, the host lives in this process for as long as the
    client does (`background=True` starts one that stays). `url` names a server in place of a project. With
    `AGENTFORGE_HOST=inline` that host is for this process alone, and others wait for its end. Clients of one process
    share the host in it; should the host leave, the next run gets a new one.
    """

    def __init__(self, project: Path | str = ".", *, url: str | None = None, background: bool = False) -> None:
        self.root = find_project(Path(project))
        self._url = url
        self._alone = os.environ.get("AGENTFORGE_HOST") == "inline"
        self._background = background and not self._alone
        self._inline: InlineHost | None = None
        self._finding = asyncio.Lock()
        self._host: _Found
        self.connection: Connection

    @staticmethod
    def sync(project: Path | str = ".", *, url: str | None = None, background: bool = False) -> SyncForge:
        """Return the same client with blocking methods: `with Forge.sync() as forge: forge.run(...)`."""
        return SyncForge(Forge(project, url=url, background=background))

    async def __aenter__(self) -> Self:
        if self._url is not None:
            self.connection = Connection(url=self._url)
            return self
        place = await self._find_host()
        self._host = _Found.at(place)
        self.connection = Connection(socket=place.socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.connection.close()
        if self._inline is not None:
            await asyncio.to_thread(self._inline.leave)

    async def _find_host(self) -> HostPlace:
        """Return where the project's host is, and start one where there is none."""
        place = host_place(self.root)
        if self._background:
            return place if answers(place) else await started_host(self.root)
        if has_inline_host(self.root) or not answers(place):
            return await self._own_host(place)
        return place

    async def _own_host(self, place: HostPlace) -> HostPlace:
        """Have a host in this process and return where it is; one that has just been started elsewhere will do."""
        try:
            self._inline = await InlineHost.join(place.private() if self._alone else place)
        except HostAlreadyRuns:
            return host_place(self.root)
        return self._inline.place

    async def _find_host_again(self, known: "_Found") -> None:
        """Have a host once more after the one that was known has left, or is about to."""
        async with self._finding:
            if self._host != known or (self._inline is not None and self._inline.usable):
                return  # another call has been here
            if self._inline is not None:
                inline, self._inline = self._inline, None
                await asyncio.to_thread(inline.leave)
            place = await self._find_host()
            self._host = _Found.at(place)
            if place != known.place:
                await self.connection.close()
                self.connection = Connection(socket=place.socket)

    async def run(self, agent: str | Path | Mapping[str, Any], input: Any = "", **options: Any) -> RunResult:
        """Run an agent and return how it ended, also when it failed (`result.check()` raises then).

        Options are those of `submit`. Raises AgentForgeError when the run can't be started.
        """
        result = RunResult.from_dict(await self._post(agent, input, wait_s=_WAIT_S, **options))
        return result if result.status in _ENDED else await self.attach(result.run_id).result()

    async def submit(
        self,
        agent: str | Path | Mapping[str, Any],
        input: Any = "",
        *,
        on: str | None = None,
        model: str | None = None,
        thread: str | None = None,
        stream: bool = False,
        labels: Mapping[str, str] | None = None,
        submit_key: str | None = None,
    ) -> "RunHandle":
        """Start a run and return a handle to it.

        `agent` is the path of an agent file or folder, or an agent as a mapping; `submit_key` makes a repeated call
        return the same run.
        """
        run = await self._post(
            agent, input, on=on, model=model, thread=thread, stream=stream, labels=labels, submit_key=submit_key
        )
        return RunHandle(self.connection, run["run_id"])

    async def _post(
        self,
        agent: str | Path | Mapping[str, Any],
        input: Any,
        *,
        wait_s: float | None = None,
        submit_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        body = {
            "agent": dict(agent) if isinstance(agent, Mapping) else str(agent),
            "input": input,
            "base_dir": str(Path.cwd()),
            "labels": dict(labels or {}),
            "variables": self.variables(),
            **options,
        }
        headers = {"Idempotency-Key": submit_key or uuid.uuid4().hex}  # sent twice, it is one run all the same
        if self._url is not None:
            return dict(await self.connection.post("/v1/runs", body, headers, wait_s=wait_s))
        known = self._host
        try:
            return dict(await self.connection.post("/v1/runs", body, headers, wait_s=wait_s))
        except AgentForgeError as error:
            if error.code == HostStopped.code:
                await known.left()
            elif not (isinstance(error, HostGone) and isinstance(error.__cause__, httpcore.ConnectError)):
                raise  # it may have been taken
        await self._find_host_again(known)
        return dict(await self.connection.post("/v1/runs", body, headers, wait_s=wait_s))

    def attach(self, run_id: str) -> "RunHandle":
        """Return a handle to a run that was started elsewhere."""
        return RunHandle(self.connection, run_id)

    def variables(self) -> dict[str, str]:
        """Return what of this process's environment goes along with a run: see `config.names_to_send`."""
        return {name: os.environ[name] for name in names_to_send(self.root, os.environ)}


@dataclass(frozen=True, slots=True)
class _Found:
    """A host that was found: its place, and which one of those that come and go there."""

    place: HostPlace
    socket: tuple[int, int] | None

    @classmethod
    def at(cls, place: HostPlace) -> Self:
        try:
            found = place.socket.stat()
        except FileNotFoundError:
            return cls(place, None)
        return cls(place, (found.st_ino, found.st_ctime_ns))

    async def left(self) -> None:
        """Wait until it takes no connections any more; one that hangs is not waited for for ever."""
        deadline = time.monotonic() + _LEAVE_TIMEOUT_S
        while time.monotonic() < deadline:
            if self != _Found.at(self.place) or not answers(self.place):
                return
            await asyncio.sleep(0.05)


class RunHandle:
    """One run of a host."""

    def __init__(self, connection: Connection, run_id: str) -> None:
        self.run_id = run_id
        self._connection = connection
        self._path = f"/v1/runs/{run_id}"

    async def events(self, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        """Yield the run's events above `after` as they come, until its last one."""
        async with aclosing(self.watch(after)) as items:
            async for item in items:
                if isinstance(item, RunEvent):
                    yield item

    async def watch(self, after: int = 0) -> AsyncGenerator[RunEvent | RunResult, None]:
        """Yield the run's events above `after` as they come, and its result last."""
        async with aclosing(self._connection.stream("GET", f"{self._path}/events", after=after)) as items:
            async for kind, data in items:
                yield RunResult.from_dict(data) if kind == "result" else RunEvent.from_dict(data)

    async def result(self) -> RunResult:
        """Wait for the run's end and return how it ended."""
        while True:
            result = await self.status(wait_s=_WAIT_S)
            if result.status in _ENDED:
                return result

    async def status(self, wait_s: float = 0) -> RunResult:
        """Return how the run stands, waiting up to `wait_s` (at most 60) for its end."""
        return RunResult.from_dict(await self._connection.get(self._path, wait_s=wait_s))

    async def cancel(self) -> RunResult:
        """Cancel the run, wait for its end and return it; a finished run stays as it is."""
        return RunResult.from_dict(await self._connection.post(f"{self._path}/cancel"))
