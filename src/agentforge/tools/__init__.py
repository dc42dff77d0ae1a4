"""Tools: what an agent may call, run outside of the framework.

A call is checked, run in a tool worker and given a result or one error of `errors.tools`. The engine journals it.
"""

from agentforge.tools.python import PythonTools, ToolWorker, ToolWorkers
from agentforge.tools.tool import Tool, ToolRequest

__all__ = ["PythonTools", "Tool", "ToolRequest", "ToolWorker", "ToolWorkers"]
