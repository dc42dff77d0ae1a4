"""Recorded runs played in an environment: its framework runs, and whatever it asks for comes from the journal.

Who calls it: updates. No model is asked, no tool is called, nothing is kept; the workers see neither network nor the
files that the agents' tools may.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agentforge.engine import Engine
from agentforge.engine.answers import read_answer
from agentforge.engine.output import checked_output
from agentforge.engine.permissions import Permitted
from agentforge.engine.portable_spec import portable_spec
from agentforge.engine.provision import Provisioned
from agentforge.engine.toolboxes import Toolboxes
from agentforge.environments import Environment
from agentforge.errors import AgentForgeError
from agentforge.gateway import DoorLimits, Gateway, Grant, ModelCall, ModelFailure, ModelResponse, Refused
from agentforge.lifecycle.evidence import Evidence
from agentforge.lifecycle.journalled import Journalled
from agentforge.workers import Trial, TrialRun, WorkerSpec
from agentforge_worker.wire import ErrorCode, Method, RpcError

__all__ = ["Player", "open_player"]

Params = dict[str, Any]
_WORKER = "player"
_DOOR = DoorLimits(requests_per_s=10_000.0, connections_per_s=10_000.0)
_OPEN_S = 180.0
_RUN_S = 120.0
"""A run whose model and tools answer at once takes no longer, or hangs."""
_LEAVE_S = 3.0


@dataclass
class _Play:
    """A run while it is played."""

    journalled: Journalled
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self) -> None:
        if self.journalled.fatal is not None:
            self.stopped.set()


@dataclass
class _Cast:
    """A worker, the agents that are open in it, and the key by which other runs may use it."""

    key: object
    stack: contextlib.AsyncExitStack
    trial: Trial
    opened: set[str] = field(default_factory=set)
    token: str = ""
    """Of native agents, whose clients may be made when they are imported."""


class Player:
    """Plays runs in one environment, one after the other; agents of one version share a worker."""

    def __init__(
        self, engine: Engine, provisioned: Provisioned, environment: Environment, variables: Mapping[str, str]
    ) -> None:
        self._engine = engine
        self._provisioned = provisioned
        self._environment = environment
        self._variables = variables
        self._toolboxes = Toolboxes(engine.staff, engine.versions, engine.fencing)
        self._plays: dict[str, _Play] = {}
        self._gateway = Gateway(self)
        self._address = ""
        self._cast: _Cast | None = None

    async def begin(self) -> None:
        """Open the place that the workers' model traffic goes to."""
        listening = socket.create_server(("127.0.0.1", 0))
        self._address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        await self._gateway.open_door(listening, _WORKER, _DOOR)

    async def end(self) -> None:
        """Let the worker go."""
        await self._dismiss()
        await self._gateway.close()

    async def play(self, evidence: Evidence) -> Journalled:
        """Play a run; its differences are in what is returned.

        Raises AgentForgeError where it can't be said how the run would go: its agent's tools can't be described, or
        there is no fence for it.
        """
        journalled = Journalled(evidence.effects, self._provisioned.release.traits.varies)
        tools = await self._described(evidence)
        try:
            async with asyncio.timeout(_OPEN_S):
                cast = await self._worker(evidence)
                agent_id = await self._open(cast, evidence, tools)
        except (RpcError, AgentForgeError) as error:
            journalled.fail(f"the agent can't be opened: {error.message}")
        except TimeoutError:
            journalled.fail(f"the agent was not open after {_OPEN_S:g} s", timed_out=True)
        if journalled.fatal is not None:
            await self._dismiss()
            return journalled
        await self._run(cast, agent_id, evidence, journalled)
        return journalled

    # ---- the worker

    async def _described(self, evidence: Evidence) -> list[Any]:
        """Return the agent's tools with what they say of themselves; none is called."""
        prepared = evidence.prepared
        if not prepared.definition.tools:
            return []
        request = await self._engine.provision.tools(prepared.project)
        environment = await self._engine.builds.ensure(request, None)
        _, tools = await self._toolboxes.described(prepared, evidence.run.run_id, environment)
        return list(tools)

    async def _worker(self, evidence: Evidence) -> _Cast:
        spec = await self._spec(evidence)
        key = (spec.agent_version, spec.fence, tuple(sorted(spec.variables.items())))
        if self._cast is None or self._cast.key != key or self._cast.trial.worker.ended.done():
            await self._dismiss()
            stack = contextlib.AsyncExitStack()
            trial = await stack.enter_async_context(Trial(spec, self._address, serve=self._serve))
            self._cast = _Cast(key, stack, trial)
        return self._cast

    async def _dismiss(self) -> None:
        cast, self._cast = self._cast, None
        if cast is not None:
            await cast.stack.aclose()

    async def _spec(self, evidence: Evidence) -> WorkerSpec:
        """Return what a worker is made of: as for the run itself, but with nothing that its tools were permitted."""
        prepared, release = evidence.prepared, self._provisioned.release
        definition, version = prepared.definition, prepared.version
        name = release.framework.name
        fence, _ = self._engine.fencing.agent(
            prepared.level, prepared.project, definition.file, name, version.id, Permitted()
        )
        fence = replace(fence, network=())
        if definition.is_native:
            fence = replace(fence, reads=(*fence.reads, await self._engine.versions.folder(version)))
        return WorkerSpec(
            kind="agent",
            environment=self._environment.id,
            python=self._environment.python,
            agent_version=version.id,
            adapter=self._engine.builds.adapters.code(release),
            variables={**release.traits.variables, **prepared.tuning.variables},
            native=definition.is_native,
            fence=fence,
            label=f"{release.reference}, recorded runs",
        )

    async def _open(self, cast: _Cast, evidence: Evidence, tools: list[Any]) -> str:
        prepared = evidence.prepared
        settings = (sorted(prepared.settings.items()), sorted(prepared.tuning.settings.items()))
        agent_id = f"{prepared.version.id}:{prepared.upstream.model}:{settings}"
        if agent_id in cast.opened:
            return agent_id
        params: Params = {"agent_id": agent_id}
        native = prepared.definition.file.native
        if native is None:
            params["spec"] = portable_spec(prepared, tools)
        else:
            module, _, attribute = native.entrypoint.partition(":")
            root = await self._engine.versions.folder(prepared.version)
            cast.token = params["token"] = cast.token or self._gateway.new_token()
            params["source"] = {"root": str(root), "module": module, "attribute": attribute}
        await cast.trial.open(params)
        cast.opened.add(agent_id)
        return agent_id

    # ---- the run

    async def _run(self, cast: _Cast, agent_id: str, evidence: Evidence, journalled: Journalled) -> None:
        run = cast.trial.prepare(evidence.run.run_id)
        run.token = cast.token or run.token
        play = self._plays[run.run_id] = _Play(journalled)
        upstream = evidence.prepared.upstream
        self._gateway.grant(Grant(run.run_id, run.attempt, _WORKER, {upstream.alias: upstream}), run.token)
        work = asyncio.ensure_future(self._to_its_end(cast.trial, agent_id, run, evidence, journalled))
        stopped = asyncio.ensure_future(play.stopped.wait())
        try:
            await asyncio.wait([work, stopped], timeout=_RUN_S, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                if not play.stopped.is_set():
                    journalled.fail(f"it had not ended after {_RUN_S:g} s", timed_out=True)
                cast.trial.cancel(run)
                await asyncio.wait([work], timeout=_LEAVE_S)
        finally:
            stopped.cancel()
            left = not work.done()
            work.cancel()
            await asyncio.wait([work])
            await self._gateway.revoke(run.token)
            del self._plays[run.run_id]
            if left:
                await self._dismiss()

    async def _to_its_end(
        self, trial: Trial, agent_id: str, run: TrialRun, evidence: Evidence, journalled: Journalled
    ) -> None:
        recorded = evidence.run
        try:
            await trial.run(
                agent_id,
                recorded.input,
                run=run,
                stream=bool(recorded.options.get("stream")),
                messages=[dict(each) for each in evidence.messages],
                continues=bool(recorded.options.get("continues")),
            )
            answer = read_answer(run.result)
            output = await checked_output(answer.output, evidence.prepared.definition.file.output)
        except (RpcError, AgentForgeError) as error:
            if journalled.fatal is None:  # else that is why
                journalled.fail(error.message)
            return
        journalled.finish(recorded.output, output)

    # ---- what the worker asks for

    async def _serve(self, run: TrialRun, method: str, params: Params) -> Any:
        play = self._plays.get(run.run_id)
        if play is None:
            raise RpcError(ErrorCode.CANCELLED, "the run is over")
        answer = _ANSWERS[method](play.journalled, params)
        play.check()
        if answer is None:
            raise RpcError(ErrorCode.CANCELLED, "the recorded run did not ask for this")
        return answer

    # ---- the models' answers: the gateway's `CallObserver`

    async def requested(self, call: ModelCall) -> ModelResponse | None:
        """Answer a model call from the journal. Raises Refused."""
        play = self._plays.get(call.run_id)
        answer = play.journalled.model(call.path, call.data) if play is not None else None
        if play is not None:
            play.check()
        if answer is None:
            raise Refused(400, "AF325", "the recorded run made no such model call")
        return answer

    def delta(self, call: ModelCall, text: str) -> None:
        """Answers from a journal come whole."""

    async def completed(self, call: ModelCall, response: ModelResponse) -> None:
        """No endpoint is ever asked."""

    async def failed(self, call: ModelCall, failure: ModelFailure) -> None:
        """Take note of a request that no model would have got, such as one for a model that the run does not have."""
        play = self._plays.get(call.run_id)
        if play is not None and failure.kind not in ("refused", "aborted"):
            play.journalled.refuse(f"a model call was refused: {failure.message}", None)
            play.check()


def _tool(journalled: Journalled, params: Params) -> Any:
    outcome = journalled.tool(params["name"], params["arguments"])
    return None if outcome is None else {"value": outcome.answer()}


def _own_tool(journalled: Journalled, params: Params) -> Any:
    outcome = journalled.tool(params["name"], params["arguments"])
    return None if outcome is None else {"effect": None, "value": outcome.value, "error": outcome.error}


def _value(journalled: Journalled, params: Params) -> Any:
    found = journalled.other("value", {"kind": params["kind"]})
    if found is None:
        journalled.refuse(f"it asked for `{params['kind']}` once more", {"kind": params["kind"]})
    return found


def _checkpoint(journalled: Journalled, params: Params) -> Any:
    journalled.other("checkpoint", {"name": params["name"]})
    return {}


def _question(journalled: Journalled, params: Params) -> Any:
    found = journalled.other("answer", {"question": params["question"]})
    if found is None:
        journalled.refuse(f"it asked `{params['question'][:200]}`", {"question": params["question"]})
    return None if found is None else {"value": found["value"]}


def _child(journalled: Journalled, params: Params) -> Any:
    request = {key: params.get(key) for key in ("agent", "input", "on", "model")}
    found = journalled.other("run", request)
    if found is None:
        journalled.refuse(f"it ran the agent `{str(params.get('agent'))[:200]}`", request)
    return found


_ANSWERS = {
    Method.TOOL_CALL: _tool,
    Method.EFFECT_OPEN: _own_tool,
    Method.EFFECT_CLOSE: lambda journalled, params: {},
    Method.VALUE_TAKE: _value,
    Method.CHECKPOINT_SAVE: _checkpoint,
    Method.QUESTION_ASK: _question,
    Method.RUN_CALL: _child,
}


@contextlib.asynccontextmanager
async def open_player(
    engine: Engine, provisioned: Provisioned, environment: Environment, variables: Mapping[str, str]
) -> AsyncIterator[Player]:
    """Give a player for an environment, which is not removed meanwhile."""
    player = Player(engine, provisioned, environment, variables)
    with engine.environments.hold(environment.id):
        await player.begin()
        try:
            yield player
        finally:
            await player.end()
