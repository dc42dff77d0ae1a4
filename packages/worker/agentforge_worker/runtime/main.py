"""Start of a worker: tie its life to the host's, capture its output, hand over the door, serve until the end."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from typing import List, Optional

from agentforge_worker.runtime.output import Output
from agentforge_worker.runtime.server import AgentServer, Server, ToolServer
from agentforge_worker.wire import Peer, open_door, send_preamble

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(arguments: List[str]) -> int:
    """Run a worker on the connection that is descriptor `--fd`; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="worker.pyz")
    parser.add_argument("--fd", type=int, required=True, help="descriptor of the connection to the host")
    parser.add_argument("--kind", choices=("agent", "tools"), default="agent")
    parser.add_argument("--parent", type=int, default=0, help="process id of the host")
    parser.add_argument("--gate", action="store_true", help="have a way to the network that the host allows")
    parser.add_argument("--lock", type=int, default=None, help="descriptor to keep open for as long as this lives")
    options = parser.parse_args(arguments)
    _die_with_parent(options.parent)
    if options.lock is not None:
        os.set_inheritable(options.lock, False)
    _leave_the_path()
    connection = socket.socket(fileno=options.fd)
    connection.set_inheritable(False)
    door = open_door() if options.kind == "agent" else None
    gate = open_door() if options.gate else None
    send_preamble(connection, door, gate)
    base_url = "http://127.0.0.1:%d/v1" % door.getsockname()[1] if door is not None else ""
    if gate is not None:
        _use_gate("http://127.0.0.1:%d" % gate.getsockname()[1])
    for listener in (door, gate):
        if listener is not None:
            listener.close()  # the host holds it now
    connection.setblocking(False)
    output = Output()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server: Server = AgentServer(loop, output, base_url) if options.kind == "agent" else ToolServer(loop, output)
    loop.run_until_complete(_serve(connection, server, output))
    output.flush()
    # Threads that a framework left running must not keep a finished worker alive.
    os._exit(0)


async def _serve(connection: socket.socket, server: Server, output: Output) -> None:
    loop = asyncio.get_running_loop()
    peer = Peer(server.handlers(), server.listeners())
    server.peer = peer
    await loop.create_unix_connection(lambda: peer, sock=connection)
    output.start(loop, server.write_log)
    peer.closed.add_done_callback(lambda _: server.stopped.set())
    await server.stopped.wait()
    server.close()
    if not peer.closed.done():
        output.flush()
        await asyncio.sleep(0)  # lets the flushed lines be sent
        peer.close()
        await asyncio.wait([peer.closed], timeout=1)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its host ends, whatever the framework is doing then."""
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass  # the end of the socket still ends the worker
    if parent and os.getppid() != parent:  # it ended before the call above
        os._exit(0)


def _use_gate(url: str) -> None:
    """Tell HTTP clients the way to the network, by the names that they look for."""
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        os.environ[name] = url


def _leave_the_path() -> None:
    """Take the worker's own zip off `sys.path`: the framework must see its environment and nothing else."""
    own: Optional[str] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != own]
