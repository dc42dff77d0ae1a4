"""A user's project on this machine: real commands, a real host, real workers. Only the model is a double."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from agentforge.api.connection import Connection
from agentforge.api.place import answers, host_place
from agentforge.errors.host import HostGone
from agentforge_conformance.scripted_model import RecordedRequest, ScriptedModel

__all__ = ["KEY", "Command", "Done", "Project", "gone", "open_project", "processes_of"]

KEY = "sk-real-key-7d1f03c5b28e4a96"
"""The real key of the model endpoint: it must never get into a worker."""
PATIENCE_S = 60.0
_SCRIPT = Path(sys.executable).with_name("agentforge")

EXAMPLE = Path(__file__).parents[2] / "examples" / "expenses"


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """What it printed as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def result(self) -> dict[str, Any]:
        """The one object that it printed."""
        (only,) = self.objects
        return only

    @property
    def error(self) -> dict[str, Any]:
        """The error of the one result that it printed."""
        error = self.result["error"]
        assert error is not None, self
        return dict(error)


class Command:
    """A command under way, in a process group of its own as a shell would give it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self._process.pid, signal.SIGINT)

    async def line(self) -> str:
        """Return the next line of its stdout."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            return (await self._process.stdout.readline()).decode()

    async def said(self, words: str) -> str:
        """Return the next line of its stderr with these words."""
        assert self._process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self._process.stderr.readline()).decode():
                if words in line:
                    return line
        raise AssertionError(f"the command ended without saying `{words}`")

    @property
    def pid(self) -> int:
        """The command's process."""
        return self._process.pid

    async def done(self, stdin: str | bytes | None = None, *, patience_s: float = PATIENCE_S) -> Done:
        """Wait for its end. No command ever shows a traceback."""
        try:
            async with asyncio.timeout(patience_s):
                out, err = await self._process.communicate(stdin.encode() if isinstance(stdin, str) else stdin)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            raise
        assert self._process.returncode is not None
        done = Done(self._process.returncode, out.decode(), err.decode())
        assert "Traceback" not in done.err, done.err
        return done


@dataclass
class Project:
    """A project folder, the model that it asks, and the environment variables of its commands."""

    root: Path
    model: ScriptedModel
    variables: dict[str, str] = field(default_factory=dict)

    # ---- files

    def write(self, path: str, text: str) -> Path:
        """Write a file of the project."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def agent(self, folder: str = "agent", **keys: Any) -> str:
        """Write an agent into a folder of its own and return the folder."""
        name = folder.replace("/", "-").replace(".", "-")
        file: dict[str, Any] = {"name": name, "instructions": "Answer.", "framework": "python", **keys}
        if "native" in keys:
            del file["instructions"], file["framework"]
        self.write(f"{folder}/agent.yaml", json.dumps(file))  # JSON is YAML
        return folder

    def with_tools(self, folder: str, code: str, *functions: str, **options: Any) -> str:
        """Write an agent with these functions of `code` as its tools; `options` go for each tool."""
        self.write(f"{folder}/tools.py", code)
        tools = [{"python": f"tools.py:{name}", **options} for name in functions]
        return self.agent(folder, tools=tools, permissions={"write": [str(self.marks)]})

    @property
    def marks(self) -> Path:
        """A folder that agents and tools may write: what they leave there tells that they were called."""
        folder = self.root.parent / "marks"
        folder.mkdir(exist_ok=True)
        return folder

    def native(self, folder: str, code: str, framework: str = "python") -> str:
        """Write an agent that is the function `agent` of its own code."""
        self.write(f"{folder}/code.py", code)
        native = {"framework": framework, "entrypoint": "code:agent"}
        return self.agent(folder, native=native, permissions={"write": [str(self.marks)]})

    # ---- commands

    async def start(
        self, *arguments: str, variables: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Command:
        """Start a command."""
        return Command(
            await asyncio.create_subprocess_exec(
                str(_SCRIPT), *arguments,
                cwd=cwd or self.root,
                env={**os.environ, **self.variables, **(variables or {})},
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=2**24,
            )
        )  # fmt: skip

    async def command(
        self,
        *arguments: str,
        stdin: str | None = None,
        variables: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Done:
        """Run a command to its end."""
        return await (await self.start(*arguments, variables=variables, cwd=cwd)).done(stdin, patience_s=patience_s)

    async def run(self, agent: str, text: str = "hello", *options: str, **given: Any) -> dict[str, Any]:
        """Run an agent and return its result, however it ended."""
        done = await self.command("run", agent, text, "--json", *options, **given)
        result = done.result
        assert done.code == (0 if result["status"] == "succeeded" else 1), done
        return result

    async def detached(self, agent: str, text: str = "hello", *options: str) -> str:
        """Start a run and return its id while it goes on."""
        return str((await self.command("run", agent, text, "--detach", "--json", *options)).result["run_id"])

    # ---- the host

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Talk to the host that runs."""
        connection = Connection(socket=host_place(self.root).socket)
        try:
            yield connection
        finally:
            await connection.close()

    async def host(self) -> dict[str, Any]:
        """Return what the host says of itself."""
        async with self.connection() as connection:
            return dict(await connection.get("/v1/host"))

    async def workers(self, kind: str = "agent") -> list[dict[str, Any]]:
        """Return the host's live workers of a kind."""
        return [worker for worker in (await self.host())["workers"] if worker["kind"] == kind]

    async def events(self, run_id: str, after: int = 0) -> list[dict[str, Any]]:
        """Return a run's events so far."""
        async with self.connection() as connection:
            return list((await connection.get(f"/v1/runs/{run_id}/events", after=after))["events"])

    async def until(self, run_id: str, kind: str) -> dict[str, Any]:
        """Wait for a run's first event of a kind."""
        async with self.connection() as connection, asyncio.timeout(PATIENCE_S):
            async for found, event in connection.stream("GET", f"/v1/runs/{run_id}/events"):
                if found == kind:
                    return dict(event)
        raise AssertionError(f"the run ended without `{kind}`")

    async def ended(self, run_id: str) -> dict[str, Any]:
        """Wait for a run's end and return its result."""
        async with self.connection() as connection:
            result = dict(await connection.get(f"/v1/runs/{run_id}", wait_s=60))
        assert result["status"] not in ("queued", "running"), result
        return result

    async def stop(self, *, at_once: bool = False) -> None:
        """Stop the host, if one runs, and see that nothing is left behind; `at_once`: runs are not waited for."""
        if answers(host_place(self.root)):
            pid = (await self.host())["pid"]
            async with self.connection() as connection:
                with contextlib.suppress(HostGone):
                    for _ in range(2 if at_once else 1):  # told twice it leaves at once
                        await connection.post("/v1/host/stop")
            await gone(pid)
        await asyncio.gather(*(gone(process.pid) for process in self.processes()))

    def processes(self) -> list[psutil.Process]:
        """Return the live processes of this project: its host and their workers."""
        mark = str(self.root)
        return [each for each in psutil.process_iter() if mark in _said_of(each)]

    # ---- the model

    def keys_seen(self, requests: list[RecordedRequest] | None = None) -> set[str | None]:
        """Return what the model's requests carried as their authorization."""
        return {request.header("authorization") for request in requests or self.model.requests}


def processes_of(worker: int) -> list[int]:
    """Return the processes of a worker, the sandbox around it among them; the last is the worker itself."""
    process = psutil.Process(worker)
    return [worker, *(child.pid for child in process.children(recursive=True))]


async def gone(pid: int, *, patience_s: float = 20.0) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(patience_s):
            await ended.wait()
    except TimeoutError:
        raise AssertionError(f"still there after {patience_s:g} s: {psutil.Process(pid)}") from None
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


@asynccontextmanager
async def open_project(root: Path) -> AsyncIterator[Project]:
    """Make a project that asks a scripted model; at the end its host is stopped and nothing of it may be left."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "agentforge.toml").touch()
    async with ScriptedModel() as model:
        variables = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": KEY}
        project = Project(root, model, variables)
        try:
            yield project
        finally:
            await project.stop(at_once=True)


def _said_of(process: psutil.Process) -> str:
    """Return a process's command line and the HOME that it was given: a worker's is in its project."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        return " ".join(process.cmdline()) + process.environ().get("HOME", "")
    except psutil.Error:
        return ""
