"""Every backend against the conformance suite."""

import functools
from collections.abc import Iterator

import pytest

from statestore import ManualClock, MemoryStore, Store, open_store
from statestore.sql import SQLStore
from statestore.testing import NeighbourConformance, SharedStoreConformance, StoreConformance
from statestore.testing.processes import Reopen
from tests.conftest import fresh_database


class TestMemoryStore(NeighbourConformance, StoreConformance):
    @pytest.fixture
    def store(self, clock: ManualClock) -> Store:
        return MemoryStore(clock=clock)

    @pytest.fixture
    def neighbour(self, clock: ManualClock) -> Store:
        return MemoryStore(clock=clock)


class TestSQLite(NeighbourConformance, SharedStoreConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def database_url(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        """One file for all tests of the class: each begins by clearing the store."""
        return f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/agents.db"

    @pytest.fixture
    def reopen(self, database_url: str) -> Reopen:
        return functools.partial(open_store, database_url)

    @pytest.fixture
    def neighbour(self, database_url: str, clock: ManualClock) -> Iterator[Store]:
        with open_store(f"{database_url}?table_prefix=other_", clock=clock) as store:
            store.clear()
            yield store


class TestPostgreSQL(NeighbourConformance, SharedStoreConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def database_url(cls, postgresql_url: str) -> Iterator[str]:
        """One database for all tests of the class: each begins by clearing the store."""
        with fresh_database(postgresql_url) as url:
            for prefix in ("agent_", "other_"):
                with SQLStore(f"{url}?table_prefix={prefix}") as store:
                    store.migrate()
            yield url

    @pytest.fixture
    def reopen(self, database_url: str) -> Reopen:
        return functools.partial(open_store, database_url)

    @pytest.fixture
    def neighbour(self, database_url: str, clock: ManualClock) -> Iterator[Store]:
        with open_store(f"{database_url}?table_prefix=other_", clock=clock) as store:
            store.clear()
            yield store


class TestRedis(NeighbourConformance, SharedStoreConformance):
    @pytest.fixture
    def reopen(self, redis_url: str, redis_prefix: str) -> Reopen:
        return functools.partial(open_store, f"{redis_url}?key_prefix={redis_prefix}a:")

    @pytest.fixture
    def neighbour(self, redis_url: str, redis_prefix: str, clock: ManualClock) -> Iterator[Store]:
        with open_store(f"{redis_url}?key_prefix={redis_prefix}b:", clock=clock) as store:
            yield store
            store.clear()
