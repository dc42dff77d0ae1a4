"""What makes the tool calls of a run: workers for functions, a sandbox for each piece of code, within permissions."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agentforge.config import Tool as DeclaredTool
from agentforge.engine.execution import Execution, Prepared
from agentforge.engine.fencing import Fencing
from agentforge.engine.permissions import Permitted
from agentforge.engine.staff import Staff, ToolStaff
from agentforge.engine.versions import AgentVersions
from agentforge.environments import Environment
from agentforge.errors.workers import WorkerStartFailed
from agentforge.tools import CodeTools, PythonTools, Tool, Toolbox
from agentforge.workers import CodeSpec

__all__ = ["Toolboxes"]


class Toolboxes:
    """Gives runs their tools."""

    def __init__(self, staff: Staff, versions: AgentVersions, fencing: Fencing) -> None:
        self._staff = staff
        self._versions = versions
        self._fencing = fencing

    async def equip(self, execution: Execution, environment: Environment) -> None:
        """Give a run its toolbox, in the tool environment, and what its tools say of themselves."""
        toolbox, described = await self.described(execution.prepared, execution.run.run_id, environment)
        execution.toolbox, execution.tools = toolbox, {tool.name: tool for tool in described}

    async def described(
        self, prepared: Prepared, run_id: str, environment: Environment
    ) -> tuple[Toolbox, Sequence[Tool]]:
        """Return the toolbox of a run, in the tool environment, and its tools with what they say of themselves."""
        toolbox = await self._toolbox(prepared, run_id, environment)
        declared = [_tool(each, prepared.permitted) for each in prepared.definition.tools]
        return toolbox, await self._versions.tools(prepared.version, toolbox, declared)

    async def _toolbox(self, prepared: Prepared, run_id: str, environment: Environment) -> Toolbox:
        level, project, version, file = prepared.level, prepared.project, prepared.version.id, prepared.definition.file
        root = await self._versions.folder(prepared.version)
        fence = self._fencing.tools(level, project, file, prepared.permitted)
        fence = replace(fence, reads=(*fence.reads, root))
        spec = self._staff.tool_spec(environment, version, fence, prepared.permitted)
        if level == "strict":
            spec = replace(spec, alone=run_id)
        code = CodeSpec(environment.python, *self._fencing.code(level, project, file, version))
        workspace = functools.partial(self._fencing.workspace, level, version)
        return Toolbox(
            PythonTools(ToolStaff(self._staff, spec, prepared.permitted), root),
            CodeTools(_CodeStaff(self._staff, environment.id, code, workspace)),
        )


class _CodeStaff:
    """Implements the tools layer's `CodeRunner` for the runs of one agent version."""

    def __init__(self, staff: Staff, environment: str, spec: CodeSpec, workspace: Callable[[str], Path]) -> None:
        """`workspace` returns a run's, made if it is not there."""
        self._staff = staff
        self._environment = environment
        self._spec = spec
        self._workspace = workspace

    async def run(self, code: str, run_id: str, timeout_s: float) -> tuple[bytes, str]:
        """Run code in a sandbox of its own; return what its process reported, and how that ended."""
        try:
            workspace = self._workspace(run_id)
        except OSError as error:
            raise WorkerStartFailed(f"the workspace of the run can't be used: {error}") from error
        end = await self._staff.run_code(self._environment, self._spec, code, workspace, timeout_s)
        return end.report, end.status


def _tool(declared: DeclaredTool, permitted: Permitted) -> Tool:
    asks = declared.code is not None and permitted.asks_for_code
    return Tool(
        file=declared.file,
        function=declared.function,
        code=declared.code or "",
        name=declared.known_as,
        idempotent=declared.idempotent,
        approval="always" if asks else declared.approval,
        timeout_s=declared.timeout_s,
        on_error=declared.on_error,
    )
