"""Every backend against the conformance suite.

Five stores have the whole suite on every commit. The others are versions and topologies of these, and pairs: on every
commit they have the parts that depend on a server or a topology (`on_every_commit`), and the rest in `make test-all`.
"""

import functools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from agent_statestore import ManualClock, MemoryStore, Store, open_store
from agent_statestore.hybrid import HybridStore
from agent_statestore.sql import SQLStore
from agent_statestore.sql.postgresql.vectors import PostgreSQLVectors
from agent_statestore.testing import (
    DamageConformance,
    KeepsDeletedConformance,
    NeighbourConformance,
    SharedStoreConformance,
    StoreConformance,
)
from agent_statestore.testing.contract.archiving import ArchivingConformance
from agent_statestore.testing.contract.arriving import ArrivingConformance
from agent_statestore.testing.contract.damage import Damage
from agent_statestore.testing.contract.ending import EndingConformance
from agent_statestore.testing.contract.finding import FindingConformance
from agent_statestore.testing.contract.leases import LeaseConformance
from agent_statestore.testing.contract.moving import MovingConformance
from agent_statestore.testing.contract.purging import MANNERS, PurgingConformance
from agent_statestore.testing.contract.races import RaceConformance
from agent_statestore.testing.contract.removal_races import RemovalRaceConformance
from agent_statestore.testing.contract.removing import RemovingConformance
from agent_statestore.testing.contract.ringing import RingingConformance
from agent_statestore.testing.contract.shared import SharedConformance
from agent_statestore.testing.contract.streams import StreamConformance
from agent_statestore.testing.contract.vectors import VectorConformance
from agent_statestore.testing.contract.watching import WatchingConformance
from agent_statestore.testing.kit.processes import Reopen
from tests.agent_statestore.damaging import damage_of
from tests.conftest import fresh_database
from tests.services.mariadb import fresh_mariadb_database
from tests.services.postgresql import make_pgvector

# What another version of a server may do in another way: run calls at the same moment, and tell who waits.
SERVER = (
    *(SharedConformance, NeighbourConformance, RaceConformance, RemovalRaceConformance, WatchingConformance),
    StreamConformance,
)
# What several servers in one store may break besides: looking through all executions, and taking them away.
SEVERAL_SERVERS = (*SERVER, LeaseConformance, FindingConformance, RingingConformance, RemovingConformance)
# What two stores in one may break: where an execution is, and which copy of it counts.
TWO_STORES = (
    *(NeighbourConformance, RaceConformance, RemovalRaceConformance, WatchingConformance),
    *(ArchivingConformance, ArrivingConformance, MovingConformance, EndingConformance, FindingConformance),
    *(RemovingConformance, PurgingConformance, KeepsDeletedConformance, StreamConformance),
)


class Damaged(DamageConformance):
    """How the stores of this package are damaged."""

    @pytest.fixture
    def damage(self, store: Store) -> Damage:
        return damage_of(store)


class TestMemoryStore(Damaged, KeepsDeletedConformance, NeighbourConformance, StoreConformance):
    @pytest.fixture
    def store(self, clock: ManualClock) -> Store:
        return MemoryStore(clock=clock)

    @pytest.fixture
    def neighbour(self, clock: ManualClock) -> Store:
        return MemoryStore(clock=clock)


class SQLStoreConformance(Damaged, KeepsDeletedConformance, NeighbourConformance, SharedStoreConformance):
    """The suite on a database of the class's own. Override `database_url`."""

    @pytest.fixture(scope="class")
    @classmethod
    def database_url(cls) -> str:
        """One database for all tests of the class, with `migrated` schemas: each begins by clearing the store."""
        raise NotImplementedError("override the fixture `database_url`")

    @pytest.fixture
    def reopen(self, database_url: str) -> Reopen:
        return functools.partial(open_store, database_url)

    @pytest.fixture
    def neighbour(self, database_url: str, clock: ManualClock) -> Iterator[Store]:
        with open_store(f"{database_url}?table_prefix=other_", clock=clock) as store:
            store.clear()
            yield store


def migrated(url: str) -> str:
    """The URL of a database that now has the schemas of the store and of its neighbour."""
    for prefix in ("agent_", "other_"):
        with SQLStore(f"{url}?table_prefix={prefix}") as store:
            store.migrate()
    return url


class TestSQLite(SQLStoreConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def database_url(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        return f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/agents.db"


class TestPostgreSQL(SQLStoreConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def database_url(cls, postgresql_url: str) -> Iterator[str]:
        with fresh_database(postgresql_url) as url:
            yield migrated(url)


class TestPostgreSQL18(SQLStoreConformance):
    on_every_commit = (RaceConformance,)

    @pytest.fixture(scope="class")
    @classmethod
    def database_url(cls, postgresql18_url: str) -> Iterator[str]:
        with fresh_database(postgresql18_url) as url:
            yield migrated(url)


class TestPostgreSQLWithPgvector(SQLStoreConformance):
    """With the server's own vectors; all else is as without them."""

    on_every_commit = (VectorConformance,)

    @pytest.fixture(scope="class")
    @classmethod
    def database_url(cls, postgresql_url: str) -> Iterator[str]:
        with fresh_database(postgresql_url) as url:
            make_pgvector(url)
            yield migrated(url)

    def test_the_server_compares_the_vectors(self, store: Store) -> None:
        assert isinstance(store.vectors, PostgreSQLVectors)


class TestMariaDB(SQLStoreConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def database_url(cls, mariadb_url: str) -> Iterator[str]:
        with fresh_mariadb_database(mariadb_url) as url:
            yield migrated(url)


class RedisConformance(Damaged, NeighbourConformance, SharedStoreConformance):
    """The suite on a server of `server_url`, in which each test has its own keys."""

    @pytest.fixture
    def server_url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def reopen(self, server_url: str, redis_prefix: str) -> Reopen:
        return functools.partial(open_store, f"{server_url}?key_prefix={redis_prefix}a:")

    @pytest.fixture
    def neighbour(self, server_url: str, redis_prefix: str, clock: ManualClock) -> Iterator[Store]:
        with open_store(f"{server_url}?key_prefix={redis_prefix}b:", clock=clock) as store:
            yield store
            store.clear()


class TestRedis(RedisConformance):
    @pytest.fixture
    def server_url(self, redis_url: str) -> str:
        return redis_url


class TestRedisCluster(RedisConformance):
    on_every_commit = SEVERAL_SERVERS

    @pytest.fixture
    def server_url(self, redis_cluster_url: str) -> str:
        return redis_cluster_url


class TestValkey(RedisConformance):
    on_every_commit = SERVER

    @pytest.fixture
    def server_url(self, valkey_url: str) -> str:
        return valkey_url


class HybridConformance(Damaged, KeepsDeletedConformance, NeighbourConformance, StoreConformance):
    """The suite on a hot store over a cold one that keeps deleted executions."""

    # A lease on the hot store's execution is not taken along to the cold store, where its deletion is noted.
    @pytest.mark.parametrize("manner", [manner for manner in MANNERS if manner != "leased"])
    def test_the_trail_of_a_deleted_execution_stays_readable_and_says_who_deleted_it(
        self, store: Store, clock: ManualClock, manner: str
    ) -> None:
        super().test_the_trail_of_a_deleted_execution_stays_readable_and_says_who_deleted_it(store, clock, manner)


class TestHybridOfMemory(HybridConformance):
    on_every_commit = TWO_STORES

    @pytest.fixture
    def store(self, clock: ManualClock) -> Store:
        return HybridStore(MemoryStore(clock=clock), MemoryStore(clock=clock))

    @pytest.fixture
    def neighbour(self, clock: ManualClock) -> Store:
        return HybridStore(MemoryStore(clock=clock), MemoryStore(clock=clock))


class TestHybridThatArchivesLater(HybridConformance):
    on_every_commit = TWO_STORES

    @pytest.fixture
    def store(self, clock: ManualClock) -> Store:
        later = timedelta(hours=1)
        return HybridStore(MemoryStore(clock=clock), MemoryStore(clock=clock), archive_after=later)

    @pytest.fixture
    def neighbour(self, clock: ManualClock) -> Store:
        return HybridStore(MemoryStore(clock=clock), MemoryStore(clock=clock))


class TestHybrid(HybridConformance, SharedStoreConformance):
    """Redis over PostgreSQL, each of which has the whole suite by itself."""

    on_every_commit = (*TWO_STORES, SharedConformance)

    @pytest.fixture(scope="class")
    @classmethod
    def cold_url(cls, postgresql_url: str) -> Iterator[str]:
        with fresh_database(postgresql_url) as url:
            yield migrated(url)

    @pytest.fixture
    def reopen(self, redis_url: str, redis_prefix: str, cold_url: str) -> Reopen:
        return functools.partial(open_store, hybrid_url(f"{redis_url}?key_prefix={redis_prefix}a:", cold_url))

    @pytest.fixture
    def neighbour(self, redis_url: str, redis_prefix: str, cold_url: str, clock: ManualClock) -> Iterator[Store]:
        url = hybrid_url(f"{redis_url}?key_prefix={redis_prefix}b:", f"{cold_url}?table_prefix=other_")
        with open_store(url, clock=clock) as store:
            store.clear()
            yield store
            store.clear()


class TestHybridOfSQLite(HybridConformance, SharedStoreConformance):
    """SQLite over SQLite."""

    on_every_commit = (NeighbourConformance,)

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("hybrid")

    @pytest.fixture
    def reopen(self, folder: Path) -> Reopen:
        return functools.partial(open_store, hybrid_url(f"sqlite:///{folder}/hot.db", f"sqlite:///{folder}/cold.db"))

    @pytest.fixture
    def neighbour(self, folder: Path, clock: ManualClock) -> Iterator[Store]:
        urls = (f"sqlite:///{folder}/{name}.db?table_prefix=other_" for name in ("hot", "cold"))
        with open_store(hybrid_url(*urls), clock=clock) as store:
            store.clear()
            yield store


def hybrid_url(hot: str, cold: str) -> str:
    return f"hybrid:///?hot={quote(hot, safe='')}&cold={quote(cold, safe='')}"
