"""The check of a freshly built environment: a real worker runs a real tool loop against the scripted model."""

import contextlib
import time
from pathlib import Path
from typing import Any

import psutil

from agentforge.engine.adapters import AdapterStore
from agentforge.environments import CheckReport, Environment
from agentforge.errors import AgentForgeError
from agentforge.frameworks import Release
from agentforge.sandbox import Fence, Level
from agentforge.workers import Trial, WorkerSpec
from agentforge_conformance.scripted_model import ScriptedModel
from agentforge_worker.wire import RpcError

__all__ = ["EnvironmentCheck"]

_TOOL = {
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}
_AGENT: dict[str, Any] = {
    "agent_id": "check",
    "spec": {"name": "check", "instructions": "You are a calculator.", "model": "fake", "tools": [_TOOL]},
}


class EnvironmentCheck:
    """Implements the environments' `Check` for one release."""

    def __init__(self, release: Release, adapters: AdapterStore, level: Level, *, keep_bytecode: bool = True) -> None:
        """`keep_bytecode`: what it imports gets compiled, in the environment."""
        self._keep_bytecode = keep_bytecode
        self._release = release
        self._adapters = adapters
        self._level = level

    async def __call__(self, candidate: Environment) -> CheckReport:
        """Import the framework, ask its adapter for the version, let it call a tool and answer."""
        started = time.monotonic()
        self._start_s = self._cpu_s = 0.0
        self._memory_bytes = 0
        try:
            version = await self._loop(candidate)
        except RpcError as error:
            info = error.data if isinstance(error.data, dict) else {}
            details = str((info.get("details") or {}).get("traceback", ""))
            return CheckReport(
                error.message, details=details, duration_s=time.monotonic() - started, start_s=self._start_s
            )
        except AgentForgeError as error:
            details = str(error.details.get("traceback", ""))
            return CheckReport(error.message, "", details, time.monotonic() - started, self._start_s, code=error.code)
        problem = None
        if not self._release.is_version(version):
            problem = f"the adapter found version `{version}` where `{self._release.version}` was installed"
        took_s = time.monotonic() - started
        return CheckReport(problem, version, "", took_s, self._start_s, self._cpu_s, self._memory_bytes)

    async def _loop(self, candidate: Environment) -> str:
        calls: list[dict[str, Any]] = []

        async def add(arguments: dict[str, Any]) -> Any:
            calls.append(arguments)
            return int(arguments["a"]) + int(arguments["b"])

        started = time.monotonic()
        async with (
            ScriptedModel() as model,
            Trial(self._spec(candidate), model.base_url, {"add": add}, keep_bytecode=self._keep_bytecode) as trial,
        ):
            self._start_s = time.monotonic() - started
            tools = self._release.traits.capability("tools").level != "absent"
            await trial.open(_AGENT if tools else {**_AGENT, "spec": {**_AGENT["spec"], "tools": []}})
            run = await trial.run("check", "What is 2 + 2?")
            self._cpu_s, self._memory_bytes = _used(trial.worker.pid)
            output = str((run.result or {}).get("output"))
            if not tools and "What is 2 + 2?" not in output:  # the scripted model says what it was asked
                raise RpcError(0, f"the model was not asked: the agent answered `{output[:200]}`")
            if tools and (not calls or str(int(calls[0]["a"]) + int(calls[0]["b"])) not in output):
                raise RpcError(0, f"the tool loop went wrong: the agent answered `{output[:200]}`")
            return str((trial.worker.hello.get("probe") or {}).get("version", ""))

    def _spec(self, candidate: Environment) -> WorkerSpec:
        return WorkerSpec(
            kind="agent",
            environment=candidate.id,
            python=Path(candidate.python),
            agent_version="check",
            adapter=self._adapters.code(self._release),
            variables=self._release.traits.variables,
            fence=Fence(self._level),
            label=f"check of {self._release.reference}",
        )


def _used(pid: int) -> tuple[float, int]:
    """Return the processor time and the memory of a process and all below it."""
    seconds, memory = 0.0, 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            used = each.cpu_times()
            seconds += used.user + used.system
            memory += each.memory_info().rss
    return seconds, memory
