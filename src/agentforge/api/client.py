"""`Forge`: the Python client of a project's host."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from agentforge.api.connection import Connection
from agentforge.api.link import Link
from agentforge.api.paths import framework_path
from agentforge.api.result import RunEvent, RunResult
from agentforge.api.sync import SyncForge
from agentforge.config import find_project
from agentforge.errors import ErrorInfo
from agentforge.errors.host import HostGone, RemoteError

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
        latest: bool = False,
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

        `agent` is the path of an agent file or folder, or an agent as a mapping; `on` names the framework, and with
        `latest` the newest release of it (or of the series) on the package index. `submit_key` makes a repeated call
        return the same run. Of runs that wait for a place those with the higher `priority` (-100 to 100) go first.
        `cache` says whether recorded answers of the model may be used, `on_divergence` what to do when a run that
        goes on asks for something else than before; without them the agent and the project decide.
        """
        run = await self._post(
            agent,
            input,
            on=on,
            latest=latest,
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

    async def frameworks(self) -> list[dict[str, Any]]:
        """Return the catalogue: each framework with its tested releases, what is built, and where it comes from."""
        return list((await self.link.ask(lambda host: host.get("/v1/frameworks")))["frameworks"])

    async def framework(self, reference: str) -> dict[str, Any]:
        """Return a framework, or what holds for one release of it. Raises AF202 if there is none."""
        return dict(await self.link.ask(lambda host: host.get(framework_path(reference))))

    async def search_frameworks(
        self, text: str = "", *, capabilities: Sequence[str] = (), level: Literal["full", "partial"] = "partial"
    ) -> list[dict[str, Any]]:
        """Return the frameworks that have all capabilities, at least at a level, and all words."""
        query = {"text": text, "capability": list(capabilities), "level": level}
        return list((await self.link.ask(lambda host: host.get("/v1/catalogue/search", **query)))["frameworks"])

    async def compare_frameworks(self, *references: str) -> dict[str, Any]:
        """Return releases side by side: capabilities, and what was measured of them on this machine."""
        return dict(await self.link.ask(lambda host: host.get("/v1/catalogue/compare", on=list(references))))

    async def register_framework(self, path: str | Path) -> list[str]:
        """Register a folder in the project's agentforge.toml, and return the names of the frameworks in it."""
        body = {"path": str(path), "base_dir": str(Path.cwd())}
        return list((await self.link.ask(lambda host: host.post("/v1/catalogue/folders", body)))["registered"])

    async def unregister_framework(self, name: str) -> None:
        """Take a registered folder out, by its path or by the name of a framework in it. Raises AF209."""
        query = {"name": name, "base_dir": str(Path.cwd())}
        await self.link.ask(lambda host: host.delete("/v1/catalogue/folders", **query), repeatable=False)

    async def compat(
        self, *references: str, capabilities: Sequence[str] = (), only_missing: bool = False
    ) -> list[dict[str, Any]]:
        """Try releases with the conformance suite and return their reports, in the catalogue's order.

        A name or a series means all its tested releases, none of them the whole catalogue: that takes a while, and
        builds environments. With `capabilities` only their tests run; with `only_missing` what passed as it is now
        is not tried again.
        """
        body = {"on": list(references), "capabilities": list(capabilities), "only_missing": only_missing}
        found: list[dict[str, Any]] = []
        await self._streamed("/v1/compat", body, found.append, "report")
        return found

    async def remove_environment(self, environment: str) -> dict[str, Any]:
        """Delete a built environment and return what came free. Raises AF330 if somebody needs it, AF312."""
        return dict(await self.link.ask(lambda host: host.delete(f"/v1/environments/{environment}"), repeatable=False))

    async def collect_environments(
        self, *, dry_run: bool = False, older_than_s: float = 0.0, forget: Sequence[str | Path] = ()
    ) -> dict[str, Any]:
        """Delete the environments, locks and wheels that no project needs, and return what went and what stayed.

        What was built or used within `older_than_s` stays; `forget` are projects that count no more.
        """
        forgotten = [str(Path.cwd() / each) for each in forget]
        body = {"dry_run": dry_run, "older_than_s": older_than_s, "forget": forgotten}
        return dict(await self.link.ask(lambda host: host.post("/v1/environments/collect", body)))

    async def export_environments(self, *references: str, file: str | Path) -> dict[str, Any]:
        """Write a bundle of what references mean in this project, for machines without an index.

        The file is written by the host, on its machine. `tools` is the project's tool environment.
        """
        where = {"file": str(file), "base_dir": str(Path.cwd())}
        body = {**where, "references": list(references), "variables": self.variables()}
        return await self._streamed("/v1/environments/export", body)

    async def import_environments(self, file: str | Path, *, build: bool = True) -> dict[str, Any]:
        """Take a bundle that `export_environments` wrote; return its environments, and which of them are pinned."""
        body = {"file": str(file), "build": build, "base_dir": str(Path.cwd())}
        return await self._streamed("/v1/environments/import", body)

    async def environments(self) -> dict[str, list[dict[str, Any]]]:
        """Return `environments`, those that are built, and `generations`, those of the project's requests."""
        return dict(await self.link.ask(lambda host: host.get("/v1/environments")))

    async def update_environments(
        self,
        *requests: str,
        to: str | None = None,
        latest: bool = False,
        refresh: bool = False,
        runs: int | None = None,
        dry_run: bool = False,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Update what the project's requests mean (none named: all of them), and return a report of each.

        A report's `status` is `current`, `promoted`, `passed` (`dry_run`) or `refused`; what was refused says why in
        `refused`, and the old generation stays. `runs` is how many recorded runs of each agent have to go as before.
        Raises AF320 for a request that the project does not have.
        """
        body = {"requests": list(requests), "to": to, "latest": latest, "refresh": refresh, "dry_run": dry_run}
        more = {**_given(runs=runs), "variables": self.variables()}
        return list((await self._streamed("/v1/environments/updates", {**body, **more}, progress))["updates"])

    async def rollback_environment(
        self,
        request: str,
        to: int | None = None,
        *,
        packages: Sequence[str] | None = None,
        build: bool = False,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Make an earlier generation of a request (default: the one before) the active one; runs go on where they are.

        Raises AF322 if there is none, AF323 if its environment is not built any more and `build` does not ask for it.
        """
        body = {"request": request, "build": build, **_given(to=to, packages=packages and list(packages))}
        return await self._streamed("/v1/environments/rollbacks", body, progress)

    async def diff_environments(self, before: str, after: str) -> dict[str, Any]:
        """Return how two environments differ: ids, references, or `REQUEST#GENERATION`."""
        query = {"before": before, "after": after}
        return dict(await self.link.ask(lambda host: host.get("/v1/environments/diff", **query)))

    async def health(self, *wanted: str, everything: bool = False) -> list[dict[str, Any]]:
        """Return how environments are: those of this project, or those that are wanted (ids, references), or all.

        Raises AF313 if something that is wanted is not built.
        """
        query = {"on": list(wanted), "all": everything}
        return list((await self.link.ask(lambda host: host.get("/v1/health", **query)))["environments"])

    async def probe(self, *wanted: str, everything: bool = False) -> list[dict[str, Any]]:
        """Look at all files of environments, start them, have each make a scripted run; return how they are then.

        Raises AF351 where an only one can't be probed; of several those that were are returned.
        """
        found: list[dict[str, Any]] = []
        await self._streamed("/v1/health/probes", {"on": list(wanted), "all": everything}, found.append, "probed")
        return found

    async def health_history(self, *wanted: str, limit: int = 100) -> list[dict[str, Any]]:
        """Return what probes found, the newest first."""
        query = {"on": list(wanted), "limit": limit}
        return list((await self.link.ask(lambda host: host.get("/v1/health/history", **query)))["records"])

    async def health_changes(self, after: int | None = None) -> AsyncGenerator[dict[str, Any], None]:
        """Yield changes of environments' states as they come, with `after` those since that `seq` too; it never ends.

        Raises HostGone when the host ends; ask again with the last `seq`.
        """
        async with aclosing(self.link.connection.stream("GET", "/v1/health/events", after=after)) as events:
            async for _, data in events:
                yield data

    async def _streamed(
        self,
        path: str,
        body: dict[str, Any],
        progress: Callable[[dict[str, Any]], None] | None = None,
        kind: str = "progress",
    ) -> dict[str, Any]:
        """Return what a stream of progress ends with; `progress` gets the events of one kind."""
        async with aclosing(self.connection.stream("POST", path, body)) as events:
            async for found, data in events:
                if found == "error":
                    raise RemoteError(ErrorInfo.from_dict(data), int(data.get("exit_code", 1)))
                if found == "ready":
                    return dict(data)
                if found == kind and progress is not None:
                    progress(dict(data))
        raise HostGone("the host ended before the work did")

    def variables(self) -> dict[str, str]:
        """Return what of this process's environment goes along with a run: see `config.names_to_send`."""
        return self.link.variables()


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


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
