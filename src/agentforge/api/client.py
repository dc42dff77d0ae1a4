"""`Forge`: the Python client of a project's host."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from agentforge.api.connection import Connection
from agentforge.api.link import Link
from agentforge.api.result import RunEvent, RunResult
from agentforge.api.sync import SyncForge
from agentforge.config import find_project
from agentforge.errors.host import HostGone

__all__ = ["Forge", "RunHandle"]

_ENDED = ("succeeded", "failed", "cancelled", "waiting")
_WAIT_S = 30
_PAUSE_S = 0.1


class Forge:
    """Runs agents: `async with Forge() as forge: result = await forge.run("agent.yaml", "...", on="langchain")`.

    A client of the project's running host; where there is none, the host lives in this process for as long as the
    client does (`background=True` starts one that stays). `url` names a server in place of a project. With
    `AGENTFORGE_HOST=inline` that host is for this process alone, and others wait for its end. Clients of one process
    share the host in it; should the host leave, the next run gets a new one.

    Should the host be killed while a run is waited for or watched, there is a new one, the run goes on, and so does
    who waits; after five hosts that ended without one more effect of the run, `HostGone` (AF904) is raised. A host
    that stops in order is not started again by who waits: that raises AF706, and the run goes on with the next host.
    """

    def __init__(
        self,
        project: Path | str = ".",
        *,
        url: str | None = None,
        background: bool = False,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        """`notice` is called with a sentence when a host that ended was replaced; by default that is logged."""
        self.root = find_project(Path(project))
        self.link = Link(self.root, url=url, background=background, notice=notice)

    @staticmethod
    def sync(project: Path | str = ".", *, url: str | None = None, background: bool = False) -> SyncForge:
        """Return the same client with blocking methods: `with Forge.sync() as forge: forge.run(...)`."""
        return SyncForge(Forge(project, url=url, background=background))

    async def __aenter__(self) -> Self:
        await self.link.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.link.close()

    @property
    def connection(self) -> Connection:
        """The connection to the host of the moment."""
        return self.link.connection

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
        priority: int = 0,
        cache: bool | None = None,
        on_divergence: Literal["wait", "continue", "stop"] | None = None,
    ) -> "RunHandle":
        """Start a run and return a handle to it.

        `agent` is the path of an agent file or folder, or an agent as a mapping; `submit_key` makes a repeated call
        return the same run. Of runs that wait for a place those with the higher `priority` (-100 to 100) go first.
        `cache` says whether recorded answers of the model may be used, `on_divergence` what to do when a run that
        goes on asks for something else than before; without them the agent and the project decide.
        """
        run = await self._post(
            agent,
            input,
            on=on,
            model=model,
            thread=thread,
            stream=stream,
            labels=labels,
            submit_key=submit_key,
            priority=priority,
            cache=cache,
            on_divergence=on_divergence,
        )
        return RunHandle(self.link, run["run_id"])

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
            **options,
        }
        headers = {"Idempotency-Key": submit_key or uuid.uuid4().hex}  # sent twice, it is one run all the same
        waits = iter([wait_s])  # once: after a host's end `RunHandle.result` waits, which knows of progress

        async def post(host: Connection, variables: dict[str, str]) -> Any:
            return await host.post("/v1/runs", {**body, "variables": variables}, headers, wait_s=next(waits, None))

        return dict(await self.link.ask_with_variables(post))

    def attach(self, run_id: str) -> "RunHandle":
        """Return a handle to a run that was started elsewhere."""
        return RunHandle(self.link, run_id)

    async def resume_all(self) -> "list[RunHandle]":
        """Have the host go on with the runs that an earlier one left, and return handles to them.

        Some may have ended since the host started. Those that can't go on yet, because this process lacks a variable
        that their model needs, are handles too: `resume` says what is missing.
        """
        answer = await self.link.ask(lambda _: self.link.resume_left())
        return [self.attach(run["run_id"]) for run in (*answer["runs"], *answer["lacking"])]

    async def import_run(self, path: str | Path) -> "RunHandle":
        """Take a run from a file that `RunHandle.export` wrote, on this machine or another."""
        data = await asyncio.to_thread(Path(path).read_bytes)
        run = await self.link.ask(lambda host: host.post_bytes("/v1/runs/import", data), repeatable=False)
        return self.attach(run["run_id"])

    async def threads(self) -> list[dict[str, Any]]:
        """Return the project's threads, the one used last first.

        Each has `thread`, `messages` (how many), `updated_at`, `last_run` and `frameworks`.
        """
        return list((await self.link.ask(lambda host: host.get("/v1/threads")))["threads"])

    async def thread(self, name: str) -> list[dict[str, Any]]:
        """Return a thread's messages in the neutral form, each with its `seq`, `at` and `run_id`, oldest first.

        Raises AF721 if there is none.
        """
        return list((await self.link.ask(lambda host: host.get(f"/v1/threads/{name}")))["messages"])

    async def delete_thread(self, name: str) -> None:
        """Delete a thread; its runs stay. Raises AF721 if there is none, AF717 while a run of it is under way."""
        await self.link.ask(lambda host: host.delete(f"/v1/threads/{name}"), repeatable=False)

    def variables(self) -> dict[str, str]:
        """Return what of this process's environment goes along with a run: see `config.names_to_send`."""
        return self.link.variables()


class RunHandle:
    """One run of a host."""

    def __init__(self, link: Link, run_id: str) -> None:
        self.run_id = run_id
        self._link = link
        self._path = f"/v1/runs/{run_id}"

    async def events(self, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        """Yield the run's events above `after` as they come, until its last one."""
        async with aclosing(self.watch(after)) as items:
            async for item in items:
                if isinstance(item, RunEvent):
                    yield item

    async def watch(self, after: int = 0) -> AsyncGenerator[RunEvent | RunResult, None]:
        """Yield the run's events above `after` as they come, and its result last."""
        async with aclosing(self._link.events(f"{self._path}/events", after)) as items:
            async for kind, data in items:
                yield RunResult.from_dict(data) if kind == "result" else RunEvent.from_dict(data)

    async def result(self) -> RunResult:
        """Wait until the run has ended or waits for an answer, and return how it stands then."""
        while True:
            try:
                result = RunResult.from_dict(await self._link.connection.get(self._path, wait_s=_WAIT_S))
            except HostGone:  # events tell whether there is any progress from host to host
                *_, result = [item async for item in self.watch() if isinstance(item, RunResult)]
            if result.status in _ENDED:
                return result
            await asyncio.sleep(_PAUSE_S)  # a host that does not go on with the run answers at once

    async def status(self, wait_s: float = 0) -> RunResult:
        """Return how the run stands, waiting up to `wait_s` (at most 60) for its end."""
        return RunResult.from_dict(await self._link.ask(lambda host: host.get(self._path, wait_s=wait_s)))

    async def cancel(self) -> RunResult:
        """Cancel the run, wait for its end and return it; a finished run stays as it is."""
        return RunResult.from_dict(await self._link.ask(lambda host: host.post(f"{self._path}/cancel")))

    async def resume(self) -> RunResult:
        """Have the run go on: one that a host left, that failed, that was rolled back or imported. Returns at once."""
        return RunResult.from_dict(await self._post_with_variables("resume"))

    async def answer(self, decision: str, value: Any = None, interrupt: str | None = None) -> RunResult:
        """Answer what the run waits for, and have it go on. Returns at once.

        A question is answered with `("answer", value)`, an approval with `"approve"` or `("reject", reason)`, a tool
        call that was in flight with `"retry"`, `("result", value)` or `"fail"`; the interrupt's `answers` has them.
        `interrupt` is needed if several are open. Raises AF712 if the answer is none that fits.
        """
        sent = {"decision": decision, "value": value, "interrupt": interrupt}
        return RunResult.from_dict(await self._post_with_variables("answer", **sent))

    async def checkpoints(self, voided: bool = False) -> list[dict[str, Any]]:
        """Return the run's checkpoints, one an effect; with `voided` also those of ways that it has left."""
        query = {"voided": "true" if voided else None}
        answer = await self._link.ask(lambda host: host.get(f"{self._path}/checkpoints", **query))
        return list(answer["checkpoints"])

    async def checkpoint(self, effect: int) -> dict[str, Any]:
        """Return one effect with its `request` and `response`. Raises AF714 if there is none."""
        return dict(await self._link.ask(lambda host: host.get(f"{self._path}/checkpoints/{effect}")))

    async def rollback(self, at: int) -> RunResult:
        """Take the run back to a checkpoint (-1: its beginning); it waits there for `resume`."""
        return RunResult.from_dict(await self._post("rollback", at=at))

    async def fork(
        self, at: int | None = None, edit: Any = ..., input: Any = None, on: str | None = None
    ) -> "RunHandle":
        """Start a new run that shares this one's effects up to `at` (default: all), and return a handle to it.

        `edit` takes the place of what effect `at` answered (a tool's result, the body of a model's answer); `input`
        is what the user says instead; `on` names a framework that goes on from the messages at `at`. This run stays
        as it is.
        """
        sent = {key: value for key, value in (("at", at), ("input", input), ("on", on)) if value is not None}
        if edit is not ...:
            sent["edit"] = edit
        run = await self._post_with_variables("fork", **sent)
        return RunHandle(self._link, run["run_id"])

    async def replay(self, agent: str | Path | None = None) -> dict[str, Any]:
        """Run once more from the journal alone, without model and tools; `same` says whether all was as before.

        With `agent` an edited agent takes the place of the recorded one. The run stays as it is.
        """
        sent = {"agent": None if agent is None else str(agent), "base_dir": str(Path.cwd())}
        return await self._post_with_variables("replay", **sent)

    async def diff(self, other: "str | RunHandle") -> dict[str, Any]:
        """Return where this run and another one differ, effect by effect."""
        query = {"with": other.run_id if isinstance(other, RunHandle) else other}
        return dict(await self._link.ask(lambda host: host.get(f"{self._path}/diff", **query)))

    async def export(self, path: str | Path) -> None:
        """Write the run with its journal and agent into one file, for `Forge.import_run` on any machine."""
        data = await self._link.ask(lambda host: host.get_bytes(f"{self._path}/export"))
        await asyncio.to_thread(Path(path).write_bytes, data)

    async def _post_with_variables(self, verb: str, **body: Any) -> dict[str, Any]:
        async def post(host: Connection, variables: dict[str, str]) -> Any:
            return await host.post(f"{self._path}/{verb}", {**body, "variables": variables})

        return dict(await self._link.ask_with_variables(post, repeatable=False))

    async def _post(self, verb: str, **body: Any) -> dict[str, Any]:
        return dict(await self._link.ask(lambda host: host.post(f"{self._path}/{verb}", body), repeatable=False))
