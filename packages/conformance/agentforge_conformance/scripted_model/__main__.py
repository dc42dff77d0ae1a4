"""`python -m agentforge_conformance.scripted_model`: the scripted model in a process of its own."""

import argparse
import asyncio
import json
import signal
from pathlib import Path

from agentforge_conformance.scripted_model.server import ScriptedModel
from agentforge_conformance.scripted_model.steps import Script


def main() -> None:
    """Serve until SIGTERM or SIGINT. The first line on stdout is the base URL."""
    parser = argparse.ArgumentParser(prog="python -m agentforge_conformance.scripted_model", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--unix", type=Path, help="serve on this Unix socket instead")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--api-key", help="answer 401 to requests without it")
    parser.add_argument("--no-record", action="store_true", help="keep no requests (long measurements)")
    parser.add_argument("--scripts", type=Path, help='JSON file: {"name": {"steps": [...]}, ...}')
    options = parser.parse_args()
    scripts = json.loads(options.scripts.read_text()) if options.scripts else {}
    model = ScriptedModel(
        {name: Script.parse(script) for name, script in scripts.items()},
        host=options.host,
        port=options.port,
        unix_path=options.unix,
        latency_s=options.latency,
        api_key=options.api_key,
        record=not options.no_record,
    )
    asyncio.run(_serve(model))


async def _serve(model: ScriptedModel) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with model:
        print(model.base_url, flush=True)
        await stop.wait()


if __name__ == "__main__":
    main()
