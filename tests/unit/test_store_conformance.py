"""The SQLite store keeps the contract of every store, on both levels of durability."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentforge.store import Durability, Store, open_store
from agentforge_conformance.store import StoreSuite


@pytest.mark.parametrize("durability", ["process", "full"])
class TestSqliteStore(StoreSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path, durability: Durability) -> AsyncIterator[Store]:
        async with open_store(tmp_path / "state.db", durability) as store:
            yield store

    @pytest.fixture
    async def second_store(self, tmp_path: Path, store: Store, durability: Durability) -> AsyncIterator[Store]:
        async with open_store(tmp_path / "state.db", durability) as second:
            yield second
