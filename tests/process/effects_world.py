"""Workers that run scripts against a host that answers by the test: the world of the tests of effects."""

import asyncio
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agentforge_worker.wire import ErrorCode, Method, RpcError

from .worker_world import Host, portable

__all__ = ["answering", "head", "never", "opened", "refusal", "script", "scripted_host", "waits"]

ADAPTER = '''
import asyncio, json, textwrap, threading, time
from agentforge_worker.adapter import Adapter, AgentCard, Cancelled, EffectFailed, Probe, Result, ToolFailed

CALLED = []


def scope(request, ctx):
    return dict(globals(), ctx=ctx, request=request)


class Loop(Adapter):
    """Runs its input as the body of a coroutine function."""

    def probe(self):
        return Probe("1")

    def build(self, spec, ctx):
        return spec

    def describe(self, agent):
        return AgentCard(agent.name)

    async def run(self, agent, request, ctx):
        names = scope(request, ctx)
        exec("async def script():\\n" + textwrap.indent(request.text, "    "), names)
        return Result(await names["script"]())


class Blocking(Loop):
    """Runs its input as the body of a function."""

    def run(self, agent, request, ctx):
        names = scope(request, ctx)
        exec("def script():\\n" + textwrap.indent(request.text, "    "), names)
        return Result(names["script"]())
'''


def scripted_host(tmp_path: Path) -> Host:
    """Return a host whose workers run scripts."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter.py").write_text(ADAPTER)
    return Host(tmp_path)


def answering(*answers: Any) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    """Answer one request after the other; exceptions are raised."""
    left = list(answers)

    async def answer(params: dict[str, Any]) -> Any:
        this = left.pop(0)
        if isinstance(this, BaseException):
            raise this
        return this

    return answer


async def never(params: dict[str, Any]) -> Any:
    await asyncio.Event().wait()


def waits() -> RpcError:
    """What a host answers to an effect of a run that has to wait."""
    return RpcError(ErrorCode.CANCELLED, "the run waits")


def refusal(code: str, text: str, origin: str = "user") -> RpcError:
    data = {"code": code, "message": text, "hint": "Do this.", "origin": origin, "details": {}}
    return RpcError(ErrorCode.FAILED, text, data)


def opened(**more: Any) -> dict[str, Any]:
    return {"effect": "e1", "value": None, "error": None, "idempotency_key": "k-1", **more}


def head(attempt: int = 1) -> dict[str, Any]:
    return {"run_id": "r1", "attempt": attempt}


async def script(host: Host, body: str, adapter: str = "Loop", python: Path | None = None, **more: Any) -> Any:
    """Run a script in a worker of its own and return its output."""
    async with host.worker(adapter=adapter, **({"python": python} if python else {})) as worker:
        await worker.call(Method.AGENT_OPEN, portable())
        answer = await worker.call(Method.RUN_START, host.order(textwrap.dedent(body), **more))
    return answer["output"]
