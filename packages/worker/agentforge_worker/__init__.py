"""The guest half of AgentForge: runs inside a framework's own environment, standard library only, Python >= 3.8.

`wire` is shared with the host; `adapter` is what a framework's folder implements; `runtime` is the worker process;
`tools` serves a project's python tools. Nothing here imports the host.
"""

__version__ = "0.1.0"
