"""What every store does, as tests to inherit.

    class TestMyStore(StoreSuite):
        @pytest.fixture
        async def store(self, tmp_path):
            async with open_store(tmp_path / "state.db") as store:
                yield store

        @pytest.fixture
        async def second_store(self, tmp_path, store):      # the same records, as another host opens them
            async with open_store(tmp_path / "state.db") as store:
                yield store

Needs pytest-asyncio in auto mode. The store is empty when a test begins.
"""

import pytest

from agentforge.store import Lease, Store
from agentforge_conformance._store_journal import JournalTests
from agentforge_conformance._store_keeping import KeepingTests
from agentforge_conformance._store_leases import LeaseTests
from agentforge_conformance._store_records import NOW, PROJECT, VERSION, effect, events, new_run, run_of
from agentforge_conformance._store_recovery import RecoveryTests
from agentforge_conformance._store_runs import RunTests

__all__ = ["NOW", "PROJECT", "VERSION", "StoreSuite", "effect", "events", "new_run", "run_of"]


class StoreSuite(LeaseTests, RunTests, JournalTests, RecoveryTests, KeepingTests):
    """The behaviour of `Store`. Inherit it and give the fixtures `store` and `second_store`."""

    @pytest.fixture
    async def lease(self, store: Store) -> Lease:
        """The first host's lease."""
        return await store.acquire_lease(PROJECT, "first host")
