"""Own tools of native agents may be made of effects: answered from the journal, those need not be asked for."""

import asyncio

import msgspec

from agentforge.engine.replay import Replay
from agentforge.store import Effect, EffectKind

PATIENT_S = 60.0
"""Longer than a test may take: nothing here waits for what does not come."""


def effect(position: int, kind: EffectKind = "model", since: int | None = None) -> Effect:
    response = {"value": position} if since is None else {"value": position, "since": since}
    return Effect(
        run_id="r1",
        position=position,
        attempt=1,
        kind=kind,
        request_hash=f"hash-{position}",
        occurrence=0,
        request=b"{}",
        response=msgspec.json.encode(response),
        status=200,
        started_at=0.0,
        duration_ms=0.0,
    )


async def ask(replay: Replay, wanted: Effect) -> None:
    found = replay.find(wanted.kind, wanted.request_hash, wanted.occurrence)
    assert found == wanted
    await replay.give(wanted)


async def test_what_a_tool_was_made_of_is_not_waited_for() -> None:
    effects = [effect(0), effect(1), effect(2, "tool", since=1), effect(3)]
    replay = Replay(effects, PATIENT_S)
    async with asyncio.timeout(5):
        for each in (effects[0], effects[2], effects[3]):
            await ask(replay, each)
    assert replay.over
    assert replay.rest == []


async def test_it_is_there_for_who_asks_all_the_same() -> None:
    """Two tools at once: what lies between one's beginning and its end may be the other's."""
    effects = [effect(0), effect(1, "tool", since=1), effect(2, "tool", since=1)]
    replay = Replay(effects, PATIENT_S)
    async with asyncio.timeout(5):
        for each in (effects[0], effects[2], effects[1]):
            await ask(replay, each)
    assert replay.over


async def test_a_tool_waits_for_what_came_before_it() -> None:
    effects = [effect(0), effect(1, "tool", since=1)]
    replay = Replay(effects, PATIENT_S)
    waiting = asyncio.ensure_future(ask(replay, effects[1]))
    await asyncio.sleep(0)
    assert not waiting.done()
    await ask(replay, effects[0])
    async with asyncio.timeout(5):
        await waiting
