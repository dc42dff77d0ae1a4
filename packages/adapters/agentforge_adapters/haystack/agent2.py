"""Haystack 2: its `Agent` calls tools in threads and keeps what it was doing when a model request fails."""

from haystack.tools import Tool

from agentforge_worker.adapter import BuildContext, ToolSpec

from .adapter import HaystackAdapter
from .tools import make_blocking_tool

__all__ = ["Haystack2Adapter"]


class Haystack2Adapter(HaystackAdapter):
    """Builds and runs agents of Haystack 2."""

    options = {"snapshot_callback": lambda snapshot: None}  # in place of a file in the home folder

    def tool(self, spec: ToolSpec, ctx: BuildContext) -> Tool:
        """Return a native tool."""
        return make_blocking_tool(spec, ctx)
