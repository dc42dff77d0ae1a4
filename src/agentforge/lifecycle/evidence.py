"""The recorded runs of a project that an update is tried on, and what is needed to play them."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from agentforge.engine import Engine
from agentforge.engine.difference import recorded_request
from agentforge.engine.execution import Prepared
from agentforge.environments import LockEntry
from agentforge.gateway import ModelResponse
from agentforge.store import AgentVersionId, Effect, JsonObject, Run

__all__ = ["Evidence", "evidence_of", "recorded_runs", "unhooked_tools"]

_PAGE = 100
_MOST_LOOKED_AT = 5000


@dataclass(frozen=True, slots=True)
class Evidence:
    """One recorded run with all that it was made of."""

    run: Run
    prepared: Prepared
    effects: Sequence[Effect]
    messages: Sequence[JsonObject]
    """The conversation that it went on from."""


async def recorded_runs(engine: Engine, generations: Collection[LockEntry], count: int) -> list[Run]:
    """Return the runs that succeeded on any generation of a request: the newest `count` of each agent, newest first."""
    entry = next(iter(generations))
    locks = {each.lock for each in generations}
    versions: dict[AgentVersionId, bool] = {}
    taken: Counter[str] = Counter()
    found: list[Run] = []
    before: str | None = None
    for _ in range(0, _MOST_LOOKED_AT if count else 0, _PAGE):
        runs, before = await engine.runs(status="succeeded", framework=entry.framework, before=before, limit=_PAGE)
        for run in runs:
            if run.options.get("on") != entry.request or taken[run.agent_name] >= count:
                continue
            if run.agent_version not in versions:
                version = await engine.store.get_agent_version(run.agent_version)
                versions[run.agent_version] = version.spec.get("lock") in locks
            if versions[run.agent_version]:
                taken[run.agent_name] += 1
                found.append(run)
        if before is None:
            break
    return found


async def evidence_of(engine: Engine, run: Run, variables: Mapping[str, str]) -> Evidence:
    """Return a run with what it was made of. Raises VersionUnusable, and what is wrong with the project."""
    prepared = await engine.preparing.recorded(run, variables, offline=True)
    effects = await engine.store.list_effects(run.run_id, limit=None)
    return Evidence(run, prepared, effects, await _conversation(engine, run))


async def _conversation(engine: Engine, run: Run) -> list[JsonObject]:
    if run.options.get("messages") is not None:
        return list(run.options["messages"])
    if run.thread is None:
        return []
    kept = await engine.store.list_messages(run.project, run.thread, limit=None)
    return [message.message for message in kept if message.seq <= run.options.get("thread_seq", 0)]


def unhooked_tools(evidence: Evidence, levels: Sequence[str]) -> str:
    """Return why a run can't be played without running tools for real; empty if it can.

    `levels` are those of `tool-replay` on the releases that it would be played on.
    """
    if not evidence.prepared.definition.is_native or all(level == "full" for level in levels):
        return ""
    journalled = {recorded_request(effect).path for effect in evidence.effects if effect.kind == "tool"}
    asked = [effect for effect in evidence.effects if effect.kind == "model"]
    # Without tools in its requests a model may still be asked for them in words.
    if any(b'"tools"' not in effect.request or _called(effect) - journalled for effect in asked):
        return "the agent's own tools would run: its framework has no hook for all of them (`tool-replay`)"
    return ""


def _called(effect: Effect) -> set[str]:
    """Return the names of the tools that a model asked for."""
    choices = ModelResponse.from_record(effect.response).data.get("choices") or ()
    calls = [call for choice in choices for call in (choice.get("message") or {}).get("tool_calls") or ()]
    return {str((call.get("function") or {}).get("name")) for call in calls}
