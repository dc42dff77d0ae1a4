"""What a worker answers: `Server` is common to both kinds, `AgentServer` runs agents, `ToolServer` calls tools."""

import asyncio
import collections
import contextvars
import dataclasses
import functools
import importlib
import inspect
import json
import os
import platform
import sys
import traceback
import types
from typing import Any, Awaitable, Callable, Deque, Dict, List, Mapping, Optional, Tuple

from agentforge_worker import __version__
from agentforge_worker.adapter import (
    Adapter,
    AgentSpec,
    BuildContext,
    Gateway,
    Message,
    Result,
    Source,
    ToolSpec,
    _current_run,
    _only_run,
)
from agentforge_worker.runtime.accounting import CpuShare, peak_rss_mib, rss_mib
from agentforge_worker.runtime.bounds import MAX_LINE, check_messages, cut
from agentforge_worker.runtime.chat import ChatClient
from agentforge_worker.runtime.failures import NotJsonError, translate
from agentforge_worker.runtime.later import known
from agentforge_worker.runtime.output import Output, Owner
from agentforge_worker.runtime.pending import answers_of, as_text, unanswered
from agentforge_worker.runtime.run import Run
from agentforge_worker.runtime.threads import run_in_thread
from agentforge_worker.runtime.toolbox import Toolbox
from agentforge_worker.wire import PROTOCOL_VERSION, ErrorCode, Method, Peer, RpcError, compatible

__all__ = ["AgentServer", "Server", "ToolServer"]

Params = Dict[str, Any]

_CANCELLED_EARLY = 1024
"""Attempts remembered whose cancellation came when they were not under way: it may overtake their start."""
_WARNINGS = 100
"""Warnings of one agent's building that are told."""
_CANCEL_AGAIN_S = 0.5
"""Seconds that a cancelled run has for its cleaning up before it is cancelled again."""


class Server:
    """The part that every worker has: handshake, heartbeat, log, orderly end."""

    peer: Peer

    def __init__(self, loop: asyncio.AbstractEventLoop, output: Output) -> None:
        self.loop = loop
        self.output = output
        self.stopped = asyncio.Event()
        self._tasks: List["asyncio.Task[None]"] = []

    def handlers(self) -> Dict[str, Callable[[Params], Awaitable[Any]]]:
        """Requests that the host may send."""
        return {Method.INITIALIZE: self._initialize, Method.PING: self._ping, Method.SHUTDOWN: self._shutdown}

    def listeners(self) -> Dict[str, Callable[[Params], None]]:
        """Notifications that the host may send."""
        return {}

    def write_log(self, owner: Owner, stream: str, text: str) -> None:
        """Pass one captured line to the host."""
        run_id, attempt = owner or (None, None)
        params = {"run_id": run_id, "attempt": attempt, "stream": stream, "text": text}
        self.peer.notify(Method.LOG_WRITE, params)

    async def _initialize(self, params: Params) -> Params:
        if not compatible(params["protocol_version"]):
            text = "protocol %s is not spoken here, but %s" % (params["protocol_version"], PROTOCOL_VERSION)
            raise RpcError(ErrorCode.INVALID_REQUEST, text)
        answer = {
            "protocol_version": PROTOCOL_VERSION,
            "worker": {"version": __version__, "python": platform.python_version(), "pid": os.getpid()},
        }
        answer.update(self._ready(params))
        self._tasks.append(self.loop.create_task(self._beat(float(params["heartbeat_s"]))))
        return answer

    def close(self) -> None:
        """Release what is held; called once, when the worker ends in order."""

    def _ready(self, params: Params) -> Params:
        raise NotImplementedError

    async def _beat(self, period_s: float) -> None:
        while True:
            await asyncio.sleep(period_s)
            self.peer.notify(Method.HEARTBEAT, {"rss_mib": round(rss_mib(), 1)})

    async def _ping(self, params: Params) -> Params:
        return {}

    async def _shutdown(self, params: Params) -> Params:
        self.loop.call_soon(self.stopped.set)
        return {}


class AgentServer(Server):
    """Runs agents of one framework: opens an agent once, runs it many times."""

    def __init__(self, loop: asyncio.AbstractEventLoop, output: Output, base_url: str) -> None:
        super().__init__(loop, output)
        self._gateway = Gateway(base_url)
        os.environ["OPENAI_BASE_URL"] = base_url
        self._chat = ChatClient(base_url)
        self._cpu = CpuShare()
        self._adapter_folder = ""
        self._opening: Optional[asyncio.Lock] = None
        self._agents: Dict[str, "_OpenAgent"] = {}
        self._runs: Dict[Tuple[str, int], "_RunUnderWay"] = {}
        self._cancelled_early: Deque[Tuple[str, int]] = collections.deque(maxlen=_CANCELLED_EARLY)

    def handlers(self) -> Dict[str, Callable[[Params], Awaitable[Any]]]:
        """Requests that the host may send."""
        return {
            **super().handlers(),
            Method.AGENT_OPEN: self._open_agent,
            Method.RUN_START: self._start_run,
        }

    def listeners(self) -> Dict[str, Callable[[Params], None]]:
        """Notifications that the host may send."""
        return {Method.RUN_CANCEL: self._cancel_run}

    def _ready(self, params: Params) -> Params:
        adapter = params["adapter"]
        self._adapter_folder = adapter["folder"]
        try:
            module = _import_adapter(adapter["folder"], adapter["module"])
            self._adapter: Adapter[Any] = getattr(module, adapter["class"])()
            probe = self._adapter.probe()
        except (Exception, SystemExit) as error:
            raise translate(error, self._adapter_folder) from error
        return {
            "capabilities": {
                "concurrent": bool(self._adapter.concurrent),
                "native_concurrent": bool(self._adapter.native_concurrent),
                "fork": False,
            },
            "probe": {"version": probe.version, "details": probe.details},
        }

    async def _open_agent(self, params: Params) -> Params:
        async with self._opening_lock():
            return await self._open_alone(params)

    def _opening_lock(self) -> asyncio.Lock:
        """Return what keeps an agent from being made twice; made late, as before Python 3.10 it has to be."""
        if self._opening is None:
            self._opening = asyncio.Lock()
        return self._opening

    async def _open_alone(self, params: Params) -> Params:
        agent_id = params["agent_id"]
        if agent_id not in self._agents:
            warnings: List[str] = []
            ctx = BuildContext(self._gateway, self.loop, lambda text: warnings.append(cut(str(text), MAX_LINE)))
            spec = _spec(params["spec"]) if params.get("spec") else None
            source = Source(**known(Source, params["source"])) if params.get("source") else None
            root = source.root if source else ""
            try:
                if params.get("token"):
                    os.environ["OPENAI_API_KEY"] = params["token"]  # for clients that a native agent makes at import
                agent = await self._make(spec, source, ctx)
                card = self._adapter.describe(agent)
            except (Exception, SystemExit) as error:
                raise translate(error, self._adapter_folder, root) from error
            self._agents[agent_id] = _OpenAgent(agent, spec, root, vars(card), warnings[:_WARNINGS])
        opened = self._agents[agent_id]
        return {"card": opened.card, "warnings": opened.warnings}

    async def _make(self, spec: Optional[AgentSpec], source: Optional[Source], ctx: BuildContext) -> Any:
        if spec is not None:
            return self._adapter.build(spec, ctx)
        assert source is not None
        # The user's own program stays importable: it may import lazily, and this worker serves nothing else.
        if source.root not in sys.path:
            sys.path.insert(0, source.root)
        return await self._adapter.load(source, ctx)

    async def _start_run(self, params: Params) -> Params:
        opened = self._agents[params["agent_id"]]
        run = Run(params, self.peer, self.loop, self._gateway, self._chat, opened.spec)
        if run.key in self._cancelled_early:
            self._cancelled_early.remove(run.key)
            raise RpcError(ErrorCode.CANCELLED, "cancelled")
        if run.key in self._runs or (self._runs and not self._concurrent(opened)):
            raise RpcError(ErrorCode.INVALID_REQUEST, "this worker is busy")
        cpu = self._cpu.enter()
        under_way = _RunUnderWay(run, opened)
        run.leave = functools.partial(self._leave, under_way)
        self._runs[run.key] = under_way
        try:
            result = await self._execute(under_way)
            run.check()  # what a framework makes of a run that it was told to leave is no result
            check_messages(result.messages)
            if opened.spec is None:
                _check_output(result.output)
        except BaseException as error:  # whatever a framework raises ends its run alone
            if run.cancelled:
                raise RpcError(ErrorCode.CANCELLED, "cancelled") from error
            raise translate(error, self._adapter_folder, opened.root) from error
        finally:
            run.mark_cancelled()  # a thread that it left behind can do nothing more in its name
            del self._runs[run.key]
            cpu_ms = round(self._cpu.leave(cpu) * 1000, 3)
        return {
            "output": result.output,
            "messages": [vars(message) for message in result.messages],
            "state": result.state,
            "metrics": {"cpu_ms": cpu_ms, "peak_rss_mib": round(peak_rss_mib(), 1)},
        }

    async def _execute(self, under_way: "_RunUnderWay") -> Result:
        run, opened = under_way.run, under_way.opened
        context = contextvars.copy_context()
        context.run(_current_run.set, run)
        alone = not self._concurrent(opened)
        if alone:
            _only_run[0] = run
            os.chdir(run.workspace)
            os.environ["OPENAI_API_KEY"] = run.token  # the key of whatever client the process makes by itself
        try:
            return await self._answer_and_run(under_way, context)
        finally:
            await self.output.finish_run(run.key, alone)
            if alone:
                _only_run[0] = None

    async def _answer_and_run(self, under_way: "_RunUnderWay", context: contextvars.Context) -> Result:
        """Run the adapter; the calls that a conversation which is taken over ends with are made before."""
        run, opened = under_way.run, under_way.opened
        calls = unanswered(run.request.messages) if run.request.continues and opened.spec is not None else []
        if not calls:
            return await self._run_adapter(under_way, context)
        answers = await self._as_task(under_way, context, functools.partial(answers_of, calls, run))
        run.request = dataclasses.replace(run.request, messages=[*run.request.messages, *answers])
        result = await self._run_adapter(under_way, context)
        added = result.messages or [Message("assistant", as_text(result.output))]
        return dataclasses.replace(result, messages=[*answers, *added])

    async def _run_adapter(self, under_way: "_RunUnderWay", context: contextvars.Context) -> Result:
        run = under_way.run
        call: Callable[[], Any] = functools.partial(self._adapter.run, under_way.opened.agent, run.request, run)
        if inspect.iscoroutinefunction(self._adapter.run):
            return await self._as_task(under_way, context, call)  # type: ignore[no-any-return]
        run.check()
        # A blocking run ends by itself at its next effect; the host replaces the worker if it does not.
        return await run_in_thread(context, call, "run-" + run.run_id)  # type: ignore[no-any-return]

    async def _as_task(
        self, under_way: "_RunUnderWay", context: contextvars.Context, call: Callable[[], Awaitable[Any]]
    ) -> Any:
        under_way.run.check()  # from here to the task nothing else gets a turn, so no cancellation falls in between
        under_way.task = context.run(self.loop.create_task, _contained(call))
        return await under_way.task

    def _concurrent(self, opened: "_OpenAgent") -> bool:
        return self._adapter.concurrent if opened.spec is not None else self._adapter.native_concurrent

    def _cancel_run(self, params: Params) -> None:
        key = str(params["run_id"]), int(params.get("attempt", 1))
        under_way = self._runs.get(key)
        if under_way is None:  # not begun yet, or over
            self._cancelled_early.append(key)
            return
        self._leave(under_way)

    def _leave(self, under_way: "_RunUnderWay") -> None:
        """Have the framework leave a run: the host asked for it, or answered so to an effect."""
        if under_way.run.cancelled:
            return
        under_way.run.mark_cancelled()
        try:
            self._adapter.cancel(under_way.opened.agent, under_way.run)
        except Exception:
            traceback.print_exc()  # the run ends all the same, and the others go on
        self._cancel_task(under_way)

    def _cancel_task(self, under_way: "_RunUnderWay") -> None:
        if under_way.task is None or under_way.task.done():
            return
        under_way.task.cancel()
        # One cancellation can get lost: before Python 3.12 `wait_for` drops one that meets a result.
        self.loop.call_later(_CANCEL_AGAIN_S, self._cancel_task, under_way)

    def close(self) -> None:
        """Let the adapter release its agents."""
        for opened in self._agents.values():
            try:
                self._adapter.close(opened.agent)
            except Exception:
                traceback.print_exc()


class ToolServer(Server):
    """Calls a project's python tools, each folder of an agent version opened once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, output: Output) -> None:
        super().__init__(loop, output)
        self._toolbox = Toolbox()

    def handlers(self) -> Dict[str, Callable[[Params], Awaitable[Any]]]:
        """Requests that the host may send."""
        return {
            **super().handlers(),
            Method.TOOLS_OPEN: self._toolbox.open,
            Method.TOOL_INVOKE: self._toolbox.invoke,
        }

    def _ready(self, params: Params) -> Params:
        return {"capabilities": {"concurrent": True, "fork": False}}


class _OpenAgent:
    def __init__(
        self, agent: Any, spec: Optional[AgentSpec], root: str, card: Mapping[str, Any], warnings: List[str]
    ) -> None:
        self.agent = agent
        self.spec = spec
        self.root = root
        self.card = dict(card)
        self.warnings = warnings


class _RunUnderWay:
    def __init__(self, run: Run, opened: _OpenAgent) -> None:
        self.run = run
        self.opened = opened
        self.task: Optional["asyncio.Task[Any]"] = None


async def _contained(call: Callable[[], Awaitable[Any]]) -> Any:
    """Keep `sys.exit()` in an agent from ending the loop, and with it everybody's runs."""
    try:
        return await call()
    except SystemExit as error:
        raise RuntimeError("sys.exit(%r) was called" % (error.code,)).with_traceback(error.__traceback__) from error
    except KeyboardInterrupt as error:
        raise RuntimeError("KeyboardInterrupt was raised").with_traceback(error.__traceback__) from error


def _spec(data: Mapping[str, Any]) -> AgentSpec:
    tools = [ToolSpec(**known(ToolSpec, tool)) for tool in data.get("tools", [])]
    return AgentSpec(**{**known(AgentSpec, data), "tools": tools})


def _check_output(output: Any) -> None:
    """Raise NotJsonError for what the user's own agent must not return."""
    try:
        json.dumps(output, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJsonError("the agent returned what JSON can't hold: %s" % error) from None


def _import_adapter(folder: str, module: str) -> types.ModuleType:
    """Import an adapter's module from its folder, as part of a package of its own: no path is added."""
    name = "agentforge_adapter"
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package
    return importlib.import_module("%s.%s" % (name, module))
