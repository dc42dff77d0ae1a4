"""The worker's own parts, as code inside of it finds them: the wire, the run, the door, the token."""

import asyncio
import gc
import os
import re
from typing import Any, Dict, List, Optional, Tuple

from .registry import Blocked

__all__ = ["ask", "door", "own_run", "own_token", "peer", "tell", "token", "wire", "workspace"]


_found: List[Any] = []


def peer() -> Any:
    """Return the worker's end of the wire."""
    from agentforge_worker.wire import Peer

    if not _found:
        _found.extend(each for each in gc.get_objects() if isinstance(each, Peer) and not each.closed.done())
    return _found[0]


def wire(data: bytes) -> None:
    """Write bytes to the host past the protocol."""
    end = peer()
    end._loop.call_soon_threadsafe(end._transport.write, data)


def tell(method: str, **params: Any) -> None:
    """Send a notification to the host."""
    end = peer()
    end._loop.call_soon_threadsafe(end.notify, method, params)


def ask(method: str, timeout_s: float = 5.0, **params: Any) -> Any:
    """Send a request to the host and return its result. Raises Blocked for an error, TimeoutError."""
    from agentforge_worker.wire import RpcError

    end = peer()
    try:
        return asyncio.run_coroutine_threadsafe(end.call(method, params, timeout_s), end._loop).result(timeout_s + 1)
    except RpcError as error:
        raise Blocked("%s: %s" % (error.code, (error.data or {}).get("message", error.message))) from None


def own_run() -> Dict[str, Any]:
    """Return what names the run that this is, in messages."""
    from agentforge_worker.adapter import current_run

    run = current_run()
    return {"run_id": run.run_id, "attempt": run.attempt}


def workspace() -> str:
    """Return the run's workspace."""
    from agentforge_worker.adapter import current_run

    return str(current_run().workspace)


def door() -> Tuple[str, int]:
    """Return the address of the worker's model door."""
    found = re.search(r"//([\d.]+):(\d+)/", os.environ["OPENAI_BASE_URL"])
    assert found is not None
    return found[1], int(found[2])


def token(given: Optional[str] = None) -> bytes:
    """Return a header with the run's token, or another one."""
    return b"Authorization: Bearer %s\r\n" % (given if given is not None else own_token()).encode()


def own_token() -> str:
    """Return the run's token."""
    from agentforge_worker.adapter import current_run

    return str(current_run().token)
