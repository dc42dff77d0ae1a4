"""Values against JSON Schemas, where either may come out of a worker: bounded in time, and beside the event loop."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from agentforge.engine import schema_check
from agentforge.engine.allowance import size_of

__all__ = ["Mismatch", "mismatch_of_output", "mismatch_of_untrusted"]

_PROGRAM = Path(schema_check.__file__)
_PATIENCE_S = 20.0
_AT_ONCE = 4
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
_SMALL = 64 * 1024
_COSTLY = (b'"pattern', b'"uniqueItems"')
"""Keywords that take more than a walk through the value: regular expressions, and every item with every other."""


class Mismatch(msgspec.Struct):
    """Why a value does not match: where and how, or what is wrong with the schema itself."""

    path: str = "$"
    message: str = ""
    wrong: str = ""


async def mismatch_of_untrusted(schema: Any, value: Any) -> Mismatch | None:
    """Return why a value does not match a schema that nobody vouches for; None if it matches."""
    async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE)):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(_PROGRAM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_PATIENCE_S):
                out, _ = await process.communicate(msgspec.json.encode([schema, value]))
        except TimeoutError:
            out = b""
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode != 0:
        return Mismatch(wrong="it takes too long to check")
    return msgspec.json.decode(out, type=Mismatch | None)


async def mismatch_of_output(schema: Mapping[str, Any], output: Any) -> Mismatch | None:
    """Return why a run's output does not match its agent's schema, which was checked when the agent was read."""
    text = msgspec.json.encode(schema)
    if size_of(output) > _SMALL or any(keyword in text for keyword in _COSTLY):
        return await mismatch_of_untrusted(schema, output)
    found = schema_check.mismatch(schema, output)
    return None if found is None else Mismatch(**found)
