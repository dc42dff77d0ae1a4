"""The embedded model's process: `python -m agentforge.gateway.embedded --socket PATH`.

Started by `EmbeddedModel`. It writes one line to its standard output once it answers on the socket; everything that
llama.cpp prints goes to standard error, which the host points to a log file. It ends with its host.
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from aiohttp import web

from agentforge.errors import AgentForgeError
from agentforge.gateway.embedded.engine import Engine, load
from agentforge.gateway.embedded.lifetime import end_with_parent
from agentforge.gateway.embedded.server import make_app
from agentforge.gateway.embedded.settings import EmbeddedSettings
from agentforge.gateway.embedded.weights import find_weights

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def main() -> int:
    """Serve until the parent ends or SIGTERM comes."""
    options = _arguments()
    if options.parent:
        end_with_parent(options.parent, _STDIN)
    ready = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)  # whatever the engine prints is no answer to the host
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    settings = EmbeddedSettings(options.threads, options.slots, options.context, options.answer_tokens)
    try:
        weights = find_weights()
    except AgentForgeError as error:
        print(f"error[{error.code}]: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 1
    engine = load(weights, options.socket.with_suffix(".engine.sock"), settings)
    asyncio.run(_serve(engine, options.socket, settings, ready))
    return 0


async def _serve(engine: Engine, path: Path, settings: EmbeddedSettings, ready: int) -> None:
    async with engine:
        runner = web.AppRunner(make_app(engine), handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.SockSite(runner, _listen(path), backlog=512).start()
        os.write(ready, b"ready\n")
        await asyncio.Event().wait()


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    return listener


def _arguments() -> argparse.Namespace:
    defaults = EmbeddedSettings()
    parser = argparse.ArgumentParser("python -m agentforge.gateway.embedded", description="Serve the embedded model.")
    parser.add_argument("--socket", type=Path, required=True, help="where to serve OpenAI's API (owner only)")
    parser.add_argument("--parent", type=int, default=0, help="end with this process, and at the end of stdin")
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--slots", type=int, default=defaults.slots, help="requests computed at once")
    parser.add_argument("--context", type=int, default=defaults.context, help="tokens per request, answer included")
    parser.add_argument("--answer-tokens", type=int, default=defaults.answer_tokens)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
