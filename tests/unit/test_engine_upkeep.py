"""What a host deletes from its store, and what it must not."""

from pathlib import Path

import pytest

from agentforge.engine.responses import ResponseCache
from agentforge.engine.upkeep import Upkeep
from agentforge.errors.store import RunNotFound
from agentforge.store import AgentVersion, AgentVersionId, ProjectId, Run, RunId, RunStatus, open_store

DAY_S = 86400.0
PROJECT = ProjectId("/p")


def run(name: str, finished_at: float | None, status: RunStatus, epoch: int) -> Run:
    return Run(
        run_id=RunId(name), project=PROJECT, agent_name="a", agent_version=AgentVersionId("v"), framework="python",
        lease_epoch=epoch, created_at=0.0, finished_at=finished_at, status=status,
    )  # fmt: skip


@pytest.mark.parametrize("retain_days", [None, 2.0])
async def test_finished_runs_go_when_their_time_is_over_and_others_stay(
    tmp_path: Path, retain_days: float | None
) -> None:
    async with open_store(tmp_path / "state.db", "process") as store:
        lease = await store.acquire_lease(PROJECT, "test")
        await store.put_agent_version(AgentVersion(id=AgentVersionId("v"), name="a", spec={}, created_at=0.0))
        for each in (
            run("old", 1 * DAY_S, "succeeded", lease.epoch),
            run("new", 9 * DAY_S, "failed", lease.epoch),
            run("waits", None, "waiting", lease.epoch),
        ):
            await store.create_run(each)
        clock = lambda: 10 * DAY_S  # noqa: E731
        upkeep = Upkeep(store, ResponseCache(store, PROJECT, clock), PROJECT, lease.epoch, retain_days, clock)
        for key, expires_at in (("over", 9 * DAY_S), ("good", 11 * DAY_S)):
            await store.cache_response(PROJECT, key, b"{}", 0.0, expires_at)
        assert await upkeep.tidy() == (0 if retain_days is None else 1)
        assert await store.prune_responses(PROJECT, 12 * DAY_S) == 1
        assert (await store.get_run(RunId("new"))).status == "failed"
        assert (await store.get_run(RunId("waits"))).status == "waiting"
        if retain_days is None:
            await store.get_run(RunId("old"))
        else:
            with pytest.raises(RunNotFound):
                await store.get_run(RunId("old"))
