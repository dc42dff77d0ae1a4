"""An agent of three tool calls that can be held up, killed and watched: the world of the tests of durable runs."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentforge.api.connection import Connection
from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import PATIENCE_S, Project, gone

__all__ = ["FRAMEWORKS", "World", "finished_well"]

TOOLS = '''
import json, os, time


def _note(name, n, idempotency_key):
    with open({log!r}, "a") as log:
        log.write(json.dumps([name, n, idempotency_key]) + "\\n")
        log.flush()
        os.fsync(log.fileno())
    gate = {gate!r} + "." + name + str(n)
    while os.path.exists(gate):
        time.sleep(0.01)


def careful(n: int, *, idempotency_key: str) -> int:
    """Add one, once."""
    _note("careful", n, idempotency_key)
    return n + 1


def easy(n: int, *, idempotency_key: str) -> int:
    """Add ten, as often as you like."""
    _note("easy", n, idempotency_key)
    return n + 10
'''
CALLS = ("careful", "easy", "careful")
FRAMEWORKS = [
    "python",
    pytest.param("langchain", marks=pytest.mark.framework("langchain")),
    pytest.param("crewai", marks=pytest.mark.framework("crewai")),
    pytest.param("pydantic-ai", marks=pytest.mark.framework("pydantic-ai")),
]


class World:
    """A project with an agent that calls `careful(0)`, `easy(1)`, `careful(2)` and answers then."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.log = project.marks / "calls.log"
        self.gate = project.marks / "gate"
        project.write("agent/tools.py", TOOLS.format(log=str(self.log), gate=str(self.gate)))
        tools = [
            {"python": "tools.py:careful"},
            {"python": "tools.py:easy", "idempotent": True},
        ]
        self.agent = project.agent("agent", tools=tools, permissions={"write": [str(project.marks)]})
        steps = [Step(calls=[CalledTool(name, {"n": n})]) for n, name in enumerate(CALLS)]
        self.model = project.model.script("three", *steps, Step(text="done: {tool}"), per="conversation")

    def calls(self) -> list[tuple[str, int]]:
        """Return the calls that the tools have seen."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(name, n) for name, n, _ in map(json.loads, lines)]

    def keys(self) -> list[str]:
        """Return the idempotency keys that the tools have seen."""
        return [json.loads(line)[2] for line in self.log.read_text().splitlines()]

    def close_gate(self, call: str) -> Path:
        """Have a call (`easy1`) hang until its gate is removed."""
        gate = Path(f"{self.gate}.{call}")
        gate.touch()
        return gate

    async def until_called(self, count: int) -> None:
        """Wait until so many calls have begun."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.calls()) < count:
                await asyncio.sleep(0.02)

    async def start(self, framework: str = "python", *options: str) -> str:
        """Start a run and return its id."""
        model = ("--model", f"openai:{self.model}")
        return await self.project.detached(self.agent, "go", "--on", framework, *model, *options)

    async def kill_host(self) -> None:
        """Kill the host as a crash would."""
        pid = (await self.project.host())["pid"]
        os.kill(pid, signal.SIGKILL)
        await gone(pid)

    async def kill_worker(self, kind: str = "agent") -> None:
        """Kill the one worker of a kind as a crash would, and wait until the host has lost it.

        The process in the sandbox outlives the one around it by some milliseconds, in which it can go on.
        """
        (worker,) = await self.project.workers(kind)
        os.kill(worker["pid"], signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            while worker["id"] in [each["id"] for each in await self.project.workers(kind)]:
                await asyncio.sleep(0.02)

    def requests(self) -> list[int]:
        """Return how many messages each request of the model held: each is asked for once."""
        return [len(request.json["messages"]) for request in self.project.model.requests]

    @asynccontextmanager
    async def project_host(self) -> AsyncIterator[Connection]:
        """Talk to the project's host, which is started if there is none."""
        await self.project.command("runs", "list", "--json")
        async with self.project.connection() as connection:
            yield connection

    async def answer(self, run: str, **body: Any) -> dict[str, Any]:
        """Answer what a run waits for."""
        async with self.project.connection() as connection:
            given = {**body, "variables": self.project.variables}
            return dict(await connection.post(f"/v1/runs/{run}/answer", given))

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        """Ask something of the host's API, with this project's variables."""
        async with self.project.connection() as connection:
            return dict(await connection.post(path, {**body, "variables": self.project.variables}))


def finished_well(result: dict[str, Any], replayed: int) -> None:
    """Assert a result as an undisturbed run has it, with so many effects answered from the journal."""
    assert (result["status"], result["output"]) == ("succeeded", "done: 3"), result
    assert [(call["name"], call["result"]) for call in result["tool_calls"]] == [
        ("careful", 1), ("easy", 11), ("careful", 3),
    ]  # fmt: skip
    assert result["replayed_effects"] == replayed
