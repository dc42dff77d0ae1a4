"""Which fence the workers of a run get: how strong, what it lets them see, whose it is."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from agentforge.config import AgentFile, Policy, Project
from agentforge.engine.limiting import limits_of
from agentforge.engine.permissions import Permitted
from agentforge.errors.sandbox import SandboxTooWeak
from agentforge.sandbox import LEVELS, Fence, Level, sandbox_for
from agentforge.store import AgentVersionId
from agentforge.workers import Workspaces

__all__ = ["Fencing"]


class Fencing:
    """Makes the fences of one project's workers."""

    def __init__(self, workspaces: Path, policies: Mapping[str, Policy]) -> None:
        self._workspaces = Workspaces(workspaces)
        self._policies = policies
        self._able: set[Level] = set()

    async def level(self, project: Project, file: AgentFile) -> Level:
        """Return the level that an agent's runs get here.

        Raises SandboxTooWeak if that is weaker than what is demanded, SandboxUnavailable if there is none.
        """
        level = file.sandbox or project.config.sandbox.level
        asks = f"the agent `{file.name}`" if file.sandbox else f"`{project.root}`"
        demands = {f"the project `{project.root}`": project.config.sandbox.minimum} if file.sandbox else {}
        demands |= {f"`{name}`": policy.sandbox.minimum for name, policy in self._policies.items()}
        for who, minimum in demands.items():
            if LEVELS.index(level) < LEVELS.index(minimum):
                raise SandboxTooWeak(f"{asks} asks for the sandbox level `{level}`, and {who} demands `{minimum}`")
        await self.require(level)
        return level

    async def require(self, level: Level) -> None:
        """Raise SandboxUnavailable if this machine has no sandbox of a level."""
        if level not in self._able:
            await asyncio.to_thread(sandbox_for, level)
            self._able.add(level)

    def agent(
        self,
        level: Level,
        project: Project,
        file: AgentFile,
        framework: str,
        version: AgentVersionId,
        permitted: Permitted,
        *,
        alone: str = "",
    ) -> tuple[Fence, int | None]:
        """Return the fence of a run's worker, and the user id of its processes where they have one of their own.

        `alone`: the one run that the worker is for; its workspace is the only one that it sees then.
        The tools of a native agent run in there with it: it may do what they may.
        """
        own = _own(file, permitted)
        group, user = self._workspaces.group(version[:32], sandbox_for(level))
        return Fence(
            level=level,
            reads=(*_shared(project), *own.reads),
            writes=own.writes,
            workspaces=group / alone if alone else group,
            hides=own.hides,
            network=tuple(dict.fromkeys((*file.network, *own.network))),
            limits=limits_of(project.config, framework, file),
        ), user

    def tools(self, level: Level, project: Project, file: AgentFile, permitted: Permitted) -> Fence:
        """Return the fence of the worker of a run's tools."""
        return Fence(
            level=level,
            reads=(*_shared(project), *permitted.reads),
            writes=permitted.writes,
            hides=permitted.hides,
            network=permitted.network,
            limits=limits_of(project.config, "tools", file),
        )

    def code(
        self, level: Level, project: Project, file: AgentFile, version: AgentVersionId
    ) -> tuple[Fence, int | None]:
        """Return the fence of code that a model writes, which sees its run's workspace alone, and whose that is."""
        _, user = self._workspaces.group(version[:32], sandbox_for(level))
        return Fence(level=level, limits=limits_of(project.config, "tools", file)), user

    def workspace(self, level: Level, version: AgentVersionId, run_id: str) -> Path:
        """Return the workspace of a run, made if it is not there."""
        return self._workspaces.open(version[:32], run_id, sandbox_for(level))


def _own(file: AgentFile, permitted: Permitted) -> Permitted:
    """Return what an agent's worker may do besides: what its tools may, where they run within it."""
    return permitted if file.native is not None else Permitted()


def _shared(project: Project) -> tuple[Path, ...]:
    return tuple((project.root / each).resolve() for each in project.config.sandbox.reads)
