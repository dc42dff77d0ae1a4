"""Where adapters are tried: one worker in a real environment, one scripted model, the sample agent.

Used by the adapter suites and by benchmarks. Needs the host (`agentforge`) beside this package.
"""

import ast
import asyncio
import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import platformdirs

from agentforge.engine.adapters import AdapterStore
from agentforge.environments import CheckReport, Environment, EnvironmentRequest, Environments
from agentforge.frameworks import Release
from agentforge.sandbox import Fence, sandbox_for
from agentforge.workers import Trial, TrialRun, WorkerSpec, Workspaces
from agentforge_conformance.scripted_model import RecordedRequest, ScriptedModel
from agentforge_worker.tools import describe
from agentforge_worker.wire import ErrorCode, RpcError

__all__ = [
    "ADD",
    "EXPLODE",
    "HANG",
    "INTERRUPT",
    "NO_AGENTS",
    "SAMPLE",
    "SAMPLE_OUTPUT",
    "SAMPLE_SETTINGS",
    "TOTAL_FOR",
    "Lab",
    "Own",
    "built_python",
    "open_lab",
    "own_agent",
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

SAMPLE_OUTPUT: dict[str, Json] = {
    "type": "object",
    "properties": {"total": {"type": "number", "description": "The sum in euros."}},
    "required": ["total"],
}
"""The output schema that the native samples use when told `--json-output`."""


def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


def total_for(category: Literal["travel", "meals", "hotel"]) -> float:
    """Return the sum of the expenses of one category."""
    return _TOTALS[category]


def explode(why: str) -> str:
    """Fail in every case."""
    raise ZeroDivisionError(f"the report is empty: {why}")


def hang(why: str) -> str:
    """Never return."""
    raise AssertionError("the lab waits in its place")


def interrupt(why: str) -> str:
    """Ask somebody first."""
    raise RpcError(ErrorCode.CANCELLED, "the run waits")


ADD, TOTAL_FOR, EXPLODE, HANG, INTERRUPT = (describe(tool) for tool in (add, total_for, explode, hang, interrupt))

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


def _body(function: Callable[..., Json]) -> Callable[[dict[str, Json]], Awaitable[Json]]:
    async def call(arguments: dict[str, Json]) -> Json:
        return function(**arguments)

    return call


@dataclass
class Lab:
    """A worker of one adapter and the model it talks to."""

    model: ScriptedModel
    trial: Trial
    observations: Path
    """JSON lines of what the worker's process opened for writing and connected to."""
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the tool `hang` has been called."""
    tools: bool = True
    """Whether the framework has tools; the sample agent has none where it has not."""
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """What was warned of while an agent was built, by agent id."""
    first: TrialRun = field(init=False)
    """The worker's first run, once it is started: the sample agent, its settings set."""
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def answer(self) -> str:
        """What the scripted model makes the sample agent answer: what its tool said, or what it was asked."""
        return "FINAL: tool said 4" if self.tools else "FINAL: How much was it?"

    @property
    def calls(self) -> list[tuple[str, dict[str, Json]]]:
        """The calls that the scripted model has the sample agent make."""
        return [("add", {"a": 2, "b": 2})] if self.tools else []

    @property
    def tool_names(self) -> list[str]:
        """The names of the sample agent's tools."""
        return [tool["name"] for tool in SAMPLE["tools"]] if self.tools else []

    async def start(self) -> TrialRun:
        """Make the first run."""
        self.first = await self.run(await self.open(settings=SAMPLE_SETTINGS))
        return self.first

    async def open(self, **changes: Json) -> str:
        """Open the sample agent with changes; returns its id."""
        agent_id = f"agent-{next(self._numbers)}"
        self.warnings[agent_id] = (await self.opened(agent_id, **changes))["warnings"]
        return agent_id

    async def opened(self, agent_id: str, **changes: Json) -> dict[str, Json]:
        """Open the sample agent with changes under a name of one's own; returns its card and warnings."""
        spec = sample_agent(**changes) if self.tools else sample_agent(**{"tools": [], **changes})
        return await self.trial.open({"agent_id": agent_id, "spec": spec})

    def place(self) -> Path:
        """Return a folder of its own that the worker may read and write: for native agents and what they leave."""
        return self.trial.folder(f"place-{next(self._numbers)}")

    async def open_native(self, root: Path, entrypoint: str, run: TrialRun | None = None) -> str:
        """Open a native agent, `module:attribute` in a folder; returns its id.

        Clients that it makes at its import have the token of `run`, as those of a host's first run have.
        """
        agent_id = f"native-{next(self._numbers)}"
        module, _, attribute = entrypoint.partition(":")
        source = {"root": str(root), "module": module, "attribute": attribute}
        key = {} if run is None else {"token": run.token}
        await self.trial.open({"agent_id": agent_id, "source": source, **key})
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


NO_AGENTS = {
    "number": "a value of type `int`",
    "Thing": "the class `Thing`",
    "wants_more": "function",
    "makes_a_number": "a value of type `int`",
    "waits_for_a_number": "a value of type `int`",
}
"""Entry points that are no agent, nor make one, with what is to be told of each."""
_ADDED = """

async def waits_for_agent():
    import inspect

    return agent if inspect.signature(agent).parameters else agent()


number = 5


class Thing:
    pass


def wants_more(one, two, three):
    pass


def makes_a_number():
    return number


async def waits_for_a_number():
    return number
"""


@dataclass(frozen=True)
class Own:
    """The agent that a user of a framework has: the function `agent` of the native sample makes it."""

    file: Path
    input: Json = "How much was it?"
    """What it is asked: the sample's `INPUT`, where its agent does not take text."""

    async def open(self, lab: Lab, run: TrialRun, name: str = "agent") -> str:
        """Open it for its first run, or what else an entry point may name; returns its id."""
        place = lab.place()
        module = f"own_{place.name.replace('-', '_')}"
        (place / f"{module}.py").write_text(self.file.read_text("utf-8") + _ADDED, "utf-8")
        return await lab.open_native(place, f"{module}:{name}", run)


def own_agent(release: Release) -> Own:
    """Return the agent of a release's native sample. Raises AssertionError where the sample has none."""
    file = release.framework.folder / release.sample
    tree = ast.parse(file.read_text("utf-8"))
    assert any(_defines(node, "agent") for node in tree.body), f"{file} has no function `agent`"
    given = [node.value for node in tree.body if isinstance(node, ast.Assign) and _assigns(node, "INPUT")]
    return Own(file, ast.literal_eval(given[0])) if given else Own(file)


def _defines(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name


def _assigns(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


@contextlib.asynccontextmanager
async def open_lab(release: Release, python: Path, variables: Mapping[str, str] = {}) -> AsyncIterator[Lab]:
    """Start a scripted model and a worker of a release's adapter; `variables` are added to its environment."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        adapter = AdapterStore(folder / "adapters").code(release)
        model = await stack.enter_async_context(ScriptedModel())
        sandbox, seen = sandbox_for("standard"), Workspaces(folder)
        group, user = seen.group("seen", sandbox)
        observations = seen.open("seen", "worker", sandbox) / "seen.jsonl"
        observer = _HERE / "observer"
        watch = {"PYTHONPATH": str(observer), "AGENTFORGE_OBSERVATIONS": str(observations)}
        added = {**release.traits.variables, **watch, **variables}
        fence = Fence(reads=(observer,), writes=(group,))
        spec = WorkerSpec(
            "agent", str(python), python, "sample", adapter, added, fence=fence, user=user, label=release.reference
        )
        hanging = asyncio.Event()

        async def wait(arguments: dict[str, Json]) -> Json:
            hanging.set()
            await asyncio.Event().wait()

        tools = {"add": _body(add), "total_for": _body(total_for), "explode": _body(explode), "hang": wait}
        tools["interrupt"] = _body(interrupt)
        trial = await stack.enter_async_context(Trial(spec, model.base_url, tools))
        yield Lab(model, trial, observations, hanging, release.traits.capability("tools").level != "absent")


async def built_python(release: Release) -> Path:
    """Return the interpreter of a release's environment, built first if there is none yet.

    Environments for tests are below `$AGENTFORGE_HOME`, else in the user's cache folder.
    """
    home = os.environ.get("AGENTFORGE_HOME") or platformdirs.user_cache_dir("agentforge-conformance", appauthor=False)
    environments = Environments(Path(home))
    request = EnvironmentRequest.for_release(release, await environments.lock(release))

    async def first_run(candidate: Environment) -> CheckReport:
        # With bytecode: what is imported here is not compiled again by each worker.
        async with open_lab(release, candidate.python, {"PYTHONDONTWRITEBYTECODE": ""}) as lab:
            await lab.start()
            return CheckReport(version=lab.trial.worker.hello["probe"]["version"])

    return (await environments.ensure(request, check=first_run)).python


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
