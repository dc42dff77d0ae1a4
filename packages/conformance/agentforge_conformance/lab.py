"""Where adapters are tried: one worker in a real environment, one scripted model, the sample agent.

Used by the adapter suites and by benchmarks. Needs the host (`agentforge`) beside this package.
"""

import asyncio
import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from agentforge.environments import EnvironmentRequest, Environments
from agentforge.frameworks import Release
from agentforge.workers import AdapterCode, Trial, TrialRun, WorkerSpec
from agentforge_conformance.scripted_model import RecordedRequest, ScriptedModel
from agentforge_worker.wire import RpcError

__all__ = [
    "ADD",
    "EXPLODE",
    "HANG",
    "SAMPLE",
    "SAMPLE_SETTINGS",
    "TOTAL_FOR",
    "Lab",
    "built_python",
    "open_lab",
    "run_native",
    "sample_agent",
]

Json = Any

_TOTALS = {"travel": 412.5, "meals": 96.0, "hotel": 730.0}
_HERE = Path(__file__).parent

SAMPLE_SETTINGS: dict[str, Json] = {
    "temperature": 0.2,
    "max_tokens": 300,
    "top_p": 0.9,
    "stop": ["END"],
    "seed": 7,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.3,
}
"""Every portable model setting, with a value that no framework sends by itself."""


def _tool(name: str, description: str, **properties: Json) -> dict[str, Json]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": description, "parameters": parameters}


ADD = _tool("add", "Add two whole numbers.", a={"type": "integer"}, b={"type": "integer"})
TOTAL_FOR = _tool(
    "total_for",
    "Return the sum of the expenses of one category.",
    category={"type": "string", "enum": list(_TOTALS)},
)
EXPLODE = _tool("explode", "Fail in every case.", why={"type": "string"})
HANG = _tool("hang", "Never return.", why={"type": "string"})

SAMPLE: dict[str, Json] = {
    "name": "expenses",
    "description": "Answers questions about an expense report.",
    "instructions": "You answer questions about the expense report. Use the tools.",
    "model": "scripted",
    "role": None,
    "goal": None,
    "backstory": None,
    "settings": {},
    "tools": [ADD, TOTAL_FOR],
    "output": None,
    "max_steps": None,
    "framework_settings": {},
}
"""The sample agent as `AgentSpec`'s fields. Each adapter's samples/native.py is the same agent, settings set."""


def sample_agent(**changes: Json) -> dict[str, Json]:
    """Return the sample agent with some fields changed."""
    return {**SAMPLE, **changes}


async def _add(arguments: dict[str, Json]) -> Json:
    return arguments["a"] + arguments["b"]


async def _total_for(arguments: dict[str, Json]) -> Json:
    return _TOTALS[arguments["category"]]


async def _explode(arguments: dict[str, Json]) -> Json:
    raise ZeroDivisionError("the report is empty")


@dataclass
class Lab:
    """A worker of one adapter and the model it talks to."""

    model: ScriptedModel
    trial: Trial
    observations: Path
    """JSON lines of what the worker's process opened for writing and connected to."""
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the tool `hang` has been called."""
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """What was warned of while an agent was built, by agent id."""
    first: TrialRun = field(init=False)
    """The worker's first run, once it is started: the sample agent, its settings set."""
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def start(self) -> TrialRun:
        """Make the first run."""
        self.first = await self.run(await self.open(settings=SAMPLE_SETTINGS))
        return self.first

    async def open(self, **changes: Json) -> str:
        """Open the sample agent with changes; returns its id."""
        agent_id = f"agent-{next(self._numbers)}"
        opened = await self.trial.open({"agent_id": agent_id, "spec": sample_agent(**changes)})
        self.warnings[agent_id] = opened["warnings"]
        return agent_id

    async def run(self, agent_id: str, text: Json = "How much was it?", **options: Json) -> TrialRun:
        """Run an agent to its end, at most a minute. Raises RpcError when it fails."""
        async with asyncio.timeout(60):
            return await self.trial.run(agent_id, text, **options)

    async def fail(self, agent_id: str, **options: Json) -> RpcError:
        """Run an agent that is to fail; returns the error."""
        try:
            run = await self.run(agent_id, **options)
        except RpcError as error:
            return error
        raise AssertionError(f"the run ended well: {run.result}")

    def requests(self, run: TrialRun) -> list[RecordedRequest]:
        """Return the model requests that carried a run's token, oldest first."""
        return [r for r in self.model.requests if r.header("authorization") == f"Bearer {run.token}"]

    def observed(self, kind: str) -> list[str]:
        """Return what the worker's process did so far: kind `write` (paths) or `connect` (addresses)."""
        if not self.observations.exists():
            return []
        lines = map(json.loads, self.observations.read_text().splitlines())
        return [what for seen, what in lines if seen == kind]


@contextlib.asynccontextmanager
async def open_lab(python: Path, adapter: AdapterCode, variables: Mapping[str, str]) -> AsyncIterator[Lab]:
    """Start a scripted model and a worker."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        model = await stack.enter_async_context(ScriptedModel())
        watch = {"PYTHONPATH": str(_HERE / "observer"), "AGENTFORGE_OBSERVATIONS": str(folder / "seen.jsonl")}
        spec = WorkerSpec("agent", str(python), python, "sample", adapter, {**variables, **watch}, label="lab")
        hanging = asyncio.Event()

        async def hang(arguments: dict[str, Json]) -> Json:
            hanging.set()
            await asyncio.Event().wait()

        tools = {"add": _add, "total_for": _total_for, "explode": _explode, "hang": hang}
        trial = await stack.enter_async_context(Trial(spec, model.base_url, tools))
        yield Lab(model, trial, folder / "seen.jsonl", hanging)


async def built_python(release: Release) -> Path:
    """Return the interpreter of a release's environment, built first if there is none yet.

    Environments for tests are below `$AGENTFORGE_HOME`, else in the user's cache folder: they skip the check that
    a user's environments have to pass.
    """
    home = os.environ.get("AGENTFORGE_HOME") or platformdirs.user_cache_dir("agentforge-conformance", appauthor=False)
    environments = Environments(Path(home))
    lock = await environments.lock(release)
    return (await environments.ensure(EnvironmentRequest.for_release(release, lock))).python


async def run_native(python: Path, program: Path, model: ScriptedModel, arguments: Sequence[str]) -> str:
    """Run a native sample against a model, in the environment variables of a worker; returns what it printed.

    Its requests are the last ones that the model has recorded.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        variables = {
            "PATH": f"{python.parent}:/usr/bin:/bin",
            "HOME": home,
            "TMPDIR": home,
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNOUSERSITE": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "OPENAI_BASE_URL": model.base_url,
            "OPENAI_API_KEY": "af-native",
        }
        process = await asyncio.create_subprocess_exec(
            str(python), str(program), *arguments,
            env=variables, cwd=home, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
    if process.returncode:
        raise AssertionError(f"{program} ended with {process.returncode}:\n{err.decode(errors='replace')[-4000:]}")
    return out.decode()
