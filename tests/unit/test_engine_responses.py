import asyncio
import logging

import pytest

from agentforge.config.checking import check
from agentforge.config.project_file import ProjectConfig
from agentforge.config.source import Source
from agentforge.engine.responses import ResponseCache, cache_ttl_s, response_key
from agentforge.gateway import ModelResponse, Secret, Upstream, Usage, request_hash
from agentforge.store import ProjectId

pytestmark = [pytest.mark.feature("AF-098"), pytest.mark.feature("AF-060")]
PROJECT = ProjectId("/project")
UPSTREAM = Upstream("default", "openai", "https://models.example.com/v1", "big", Secret("sk-12345678"))
BODY = {"model": "big", "messages": [{"role": "user", "content": "Hello"}]}
KEY = response_key(UPSTREAM, request_hash("/v1/chat/completions", BODY))
ANSWER = ModelResponse(
    b'{"choices": [{"message": {"content": "Hi"}}]}',
    b'data: {"choices": []}\n\ndata: [DONE]\n\n',
    {"x-request-id": "req-1"},
    Usage(7, 3),
    812.0,
)


class MemoryStore:
    """The store's four methods, in memory."""

    def __init__(self):
        self.kept = {}

    async def cached_response(self, project, key, now):
        response, expires_at = self.kept.get((project, key), (None, 0.0))
        return response if expires_at > now else None

    async def cache_response(self, project, key, response, created_at, expires_at):
        self.kept[project, key] = (response, expires_at)

    async def prune_responses(self, project, now):
        self.kept = {key: value for key, value in self.kept.items() if key[0] != project or value[1] > now}

    async def clear_responses(self, project):
        self.kept = {key: value for key, value in self.kept.items() if key[0] != project}


class BrokenStore(MemoryStore):
    async def cached_response(self, project, key, now):
        raise OSError("the disk is gone")

    async def cache_response(self, project, key, response, created_at, expires_at):
        raise OSError("the disk is gone")


class World:
    def __init__(self, store=None, project=PROJECT):
        self.now = 1000.0
        self.store = store or MemoryStore()
        self.cache = ResponseCache(self.store, project, lambda: self.now)

    async def kept(self, ttl_s=60.0, key=KEY):
        self.cache.keep(key, ANSWER, ttl_s)
        await self.cache.close()


async def test_an_answer_comes_back_as_it_was_and_costs_nothing():
    world = World()
    assert await world.cache.find(KEY, 60) is None
    await world.kept()
    found = await world.cache.find(KEY, 60)
    assert found is not None
    assert (found.body, found.stream, found.headers) == (ANSWER.body, ANSWER.stream, ANSWER.headers)
    assert (found.usage, found.duration_ms) == (Usage(0, 0), 0)


async def test_an_answer_is_given_for_as_long_as_the_project_says_now():
    world = World()
    await world.kept(ttl_s=60)
    world.now += 59
    assert await world.cache.find(KEY, 60) is not None
    assert await world.cache.find(KEY, 30) is None, "the limit was lowered since"
    world.now += 1
    assert await world.cache.find(KEY, 60) is None
    assert await world.cache.find(KEY, 1000) is None, "it was kept for 60 s"


async def test_an_answer_of_the_future_is_not_given():
    world = World()
    await world.kept()
    world.now -= 10
    assert await world.cache.find(KEY, 60) is None, "the clock went back: who knows how old it is"


async def test_without_a_time_to_live_nothing_is_kept_nor_given():
    world = World()
    await world.kept(ttl_s=0)
    assert world.store.kept == {}
    await world.kept(ttl_s=60)
    assert await world.cache.find(KEY, 0) is None


async def test_projects_do_not_share_answers():
    store = MemoryStore()
    mine, other = World(store), World(store, ProjectId("/other"))
    await mine.kept()
    assert await other.cache.find(KEY, 60) is None
    await other.kept()
    await other.cache.clear()
    assert await mine.cache.find(KEY, 60) is not None


@pytest.mark.parametrize(
    "upstream",
    [
        Upstream("default", "openai", "https://models.example.com/v1", "bigger"),
        Upstream("default", "openai", "https://other.example.com/v1", "big"),
        Upstream("default", "embedded", "https://models.example.com/v1", "big"),
    ],
)
def test_another_model_is_another_key(upstream):
    assert response_key(upstream, "0" * 64) != response_key(UPSTREAM, "0" * 64)


def test_the_name_of_the_alias_and_the_key_of_the_account_are_no_part_of_it():
    other = Upstream("other", "openai", "https://models.example.com/v1", "big", Secret("sk-87654321"))
    assert response_key(other, "0" * 64) == response_key(UPSTREAM, "0" * 64)


@pytest.mark.parametrize(
    "change", [{"stream": True}, {"stream_options": {"include_usage": True}}, {"temperature": 0}, {"messages": []}]
)
def test_another_request_is_another_key(change):
    assert response_key(UPSTREAM, request_hash("/v1/chat/completions", BODY | change)) != KEY


async def test_a_store_that_fails_costs_the_answer_but_no_call(caplog):
    world = World(BrokenStore())
    with caplog.at_level(logging.WARNING):
        assert await world.cache.find(KEY, 60) is None
        await world.kept()
    assert [record.message.count("the disk is gone") for record in caplog.records] == [1, 1]


@pytest.mark.parametrize("record", [b"", b"{}", b"\xff", b'{"created_at": 1000.0, "response": {"body": 7}}'])
async def test_a_damaged_answer_is_not_given(record):
    world = World()
    world.store.kept[PROJECT, KEY] = (record, 2000.0)
    assert await world.cache.find(KEY, 60) is None


async def test_pruning_deletes_what_has_expired_and_clearing_everything():
    world = World()
    await world.kept(ttl_s=10, key="short")
    await world.kept(ttl_s=100, key="long")
    world.now += 50
    await world.cache.prune()
    assert [key for _, key in world.store.kept] == ["long"]
    world.cache.keep(KEY, ANSWER, 60)
    await world.cache.clear()
    await world.cache.close()
    assert world.store.kept == {}


async def test_the_call_does_not_wait_until_its_answer_is_kept():
    world = World()
    held = asyncio.Event()

    class SlowStore(MemoryStore):
        async def cache_response(self, *args):
            await held.wait()
            await super().cache_response(*args)

    world.cache = ResponseCache(SlowStore(), PROJECT, lambda: world.now)
    world.cache.keep(KEY, ANSWER, 60)
    await asyncio.sleep(0)
    assert await world.cache.find(KEY, 60) is None
    held.set()
    await world.cache.close()
    assert await world.cache.find(KEY, 60) is not None


@pytest.mark.parametrize(
    ("alias", "agent", "run", "ttl_s"),
    [
        ("kept", None, None, 90),
        ("kept", True, None, 90),
        ("kept", False, None, 0),
        ("kept", False, True, 90),
        ("kept", None, False, 0),
        ("kept", True, False, 0),
        ("plain", None, None, 0),
        ("plain", True, None, 3600),
        ("plain", None, True, 3600),
        ("local", None, None, 0),
        ("local", True, None, 3600),
    ],
)
def test_alias_agent_and_run_decide_whether_answers_are_kept(alias, agent, run, ttl_s):
    models = {"kept": {"model": "m", "cache_ttl_s": 90}, "plain": {"model": "m"}}
    config = check(ProjectConfig, Source("agentforge.toml", {"models": models}))
    assert cache_ttl_s(config, alias, agent, run) == ttl_s
