"""`Forge`: the Python client of a project's host."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agentforge.api.connection import Connection
from agentforge.api.inline import InlineHost
from agentforge.api.place import HostPlace, host_place
from agentforge.api.result import RunEvent, RunResult
from agentforge.api.starting import answers, ensure_host
from agentforge.api.sync import SyncForge
from agentforge.config import find_project, names_to_send
from agentforge.errors.host import HostAlreadyRuns

__all__ = ["Forge", "RunHandle"]

_ENDED = ("succeeded", "failed", "cancelled", "waiting")
_WAIT_S = 30


class Forge:
    """Runs agents: `async with Forge() as forge: result = await forge.run("agent.yaml", "...", on="langchain")`.

    A client of the project's running host; where there is none, the host lives in this process for as long as the
    client does (`background=True` starts one that stays). `url` names a server in place of a project. With
    `AGENTFORGE_HOST=inline` that host is for this client alone, and others wait for its end.
    """

    def __init__(self, project: Path | str = ".", *, url: str | None = None, background: bool = False) -> None:
        self.root = find_project(Path(project))
        self._url = url
        self._alone = os.environ.get("AGENTFORGE_HOST") == "inline"
        self._background = background and not self._alone
        self._inline: InlineHost | None = None
        self.connection: Connection

    @staticmethod
    def sync(project: Path | str = ".", *, url: str | None = None, background: bool = False) -> SyncForge:
        """Return the same client with blocking methods: `with Forge.sync() as forge: forge.run(...)`."""
        return SyncForge(Forge(project, url=url, background=background))

    async def __aenter__(self) -> Self:
        if self._url is not None:
            self.connection = Connection(url=self._url)
            return self
        place = host_place(self.root)
        if not answers(place):
            if self._background:
                ensure_host(place)
            else:
                place = await self._own_host(place)
        self.connection = Connection(socket=place.socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.connection.close()
        if self._inline is not None:
            await asyncio.to_thread(self._inline.stop)

    async def _own_host(self, place: HostPlace) -> HostPlace:
        """Start a host in this process and return where it is; one that has just been started elsewhere will do."""
        own = place.private() if self._alone else place
        inline = InlineHost(own)
        try:
            await inline.start()
        except HostAlreadyRuns:
            return place
        self._inline = inline
        return own

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
        headers = {"Idempotency-Key": submit_key} if submit_key else None
        run: dict[str, Any] = await self.connection.post("/v1/runs", body, headers, wait_s=wait_s)
        return run

    def attach(self, run_id: str) -> "RunHandle":
        """Return a handle to a run that was started elsewhere."""
        return RunHandle(self.connection, run_id)

    def variables(self) -> dict[str, str]:
        """Return what of this process's environment goes along with a run: see `config.names_to_send`."""
        return {name: os.environ[name] for name in names_to_send(self.root, os.environ)}


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
