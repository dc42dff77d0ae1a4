"""Tools: what an agent may call, run outside of the framework.

A call is checked, run in a tool worker, or in a process of its own where it is code that the model wrote, and given a
result or one error of `errors.tools`. The engine journals it.
"""

from agentforge.tools.code import MOST_REPORT, CodeRunner, CodeTools
from agentforge.tools.python import PythonTools, ToolWorker, ToolWorkers
from agentforge.tools.tool import Tool, ToolRequest
from agentforge.tools.toolbox import Toolbox

__all__ = [
    "MOST_REPORT",
    "CodeRunner",
    "CodeTools",
    "PythonTools",
    "Tool",
    "ToolRequest",
    "ToolWorker",
    "ToolWorkers",
    "Toolbox",
]
