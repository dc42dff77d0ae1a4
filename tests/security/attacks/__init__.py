"""What a worker's code tries against the machine, the host and the other workers: the list and the tries themselves.

This folder is copied into the agent that makes them, so it is guest code: Python 3.8 and the standard library only.
Everything is aimed at canaries that the test has made (see `machine.py` and `world.py` beside it).
"""

from .registry import ATTACKS, Attack, World

from . import files, gateway, kernel, listener, namespaces, network, processes, resources, wire, workspace, writes  # isort: skip  the registry first

__all__ = ["ATTACKS", "Attack", "World", "files", "gateway", "kernel", "listener", "namespaces", "network"]
__all__ += ["processes", "resources", "wire", "workspace", "writes"]
