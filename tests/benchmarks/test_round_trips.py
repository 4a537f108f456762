"""One round trip per step, counted between client and server; on SQLite one transaction."""

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from agent_statestore import Checkpoint, MemoryStore
from agent_statestore.documents import DocumentQuery, Put, Remove
from agent_statestore.sql import SQLStore
from agent_statestore.streams.records import StreamAppend
from agent_statestore.testing.contract.streams import part_of
from agent_statestore.testing.kit.builders import claimed, done
from benchmarks.executing import Engine
from benchmarks.proxy import CountingProxy
from benchmarks.round_trips import counted, round_trips_per_step
from tests.services.postgresql import driver_url


def test_redis(redis_url: str, redis_prefix: str) -> None:
    assert round_trips_per_step(f"{redis_url}?key_prefix={redis_prefix}") == 1


def test_postgresql(postgresql_migrated_url: str) -> None:
    assert round_trips_per_step(postgresql_migrated_url) == 1


def test_mariadb(mariadb_database_url: str) -> None:
    """One to read under a lock, one to write and commit: MariaDB has no statement that does both."""
    with SQLStore(mariadb_database_url) as store:
        store.migrate()
    assert round_trips_per_step(mariadb_database_url) == 2


def test_streams_on_postgresql_and_mariadb(postgresql_migrated_url: str, mariadb_database_url: str) -> None:
    """A checkpoint that brings events takes no more than one that brings none."""
    with SQLStore(mariadb_database_url) as store:
        store.migrate()
    for url, to_write in ((postgresql_migrated_url, 1), (mariadb_database_url, 2)):
        with ExitStack() as stack:
            there, count = counted(stack, url)
            for name, call in stream_calls(stack.enter_context(SQLStore(there))).items():
                for _ in range(6):
                    call()  # prepares the statement
                before = count()
                call()
                # MariaDB tells nobody.
                expected = {"read": 1, "tell": 2 - to_write}.get(name, to_write)
                assert count() - before == expected, f"{name} on {url.partition(':')[0]}"


def stream_calls(store: SQLStore) -> dict[str, Callable[[], object]]:
    leases = [claimed(store)[1] for _ in range(3)]
    ids, one, numbers = [lease.execution_id for lease in leases], leases[0], itertools.count(1)

    def step() -> None:
        number = next(numbers)
        part = part_of(one, 2 * number, "a", "b")
        store.checkpoint(one.execution_id, Checkpoint(steps=(done(number),), stream=part), one)

    return {
        "step": step,
        "append": lambda: store.append_events(
            [StreamAppend(lease=each, part=part_of(each, 1, "a")) for each in leases]
        ),
        "read": lambda: store.read_streams(dict.fromkeys(ids, 0), 9),
        "tell": lambda: store.tell_readers(ids),
    }


def test_documents_on_postgresql(postgresql_migrated_url: str) -> None:
    with ExitStack() as stack:
        url, count = counted(stack, postgresql_migrated_url)
        documents = stack.enter_context(SQLStore(url)).documents
        namespace = ("session", "s")
        puts = [Put(namespace=namespace, key=str(number), value={"n": number}) for number in range(50)]
        with_metadata = Put(namespace=namespace, key="m", value=b"m", metadata={"a": 1})
        removes = [Remove(namespace=namespace, key=str(number)) for number in range(25)]
        page = DocumentQuery(namespace=namespace, where={"a": 1}, limit=10)
        calls: dict[str, Callable[[], object]] = {
            "write of one": lambda: documents.write([with_metadata]),
            "write of many": lambda: documents.write([*removes, *puts[25:]], write_id="w"),
            "write that was applied": lambda: documents.write(puts[25:], write_id="w"),
            "get": lambda: documents.get_many([(namespace, "30"), (("other",), "x")]),
            "list": lambda: documents.list(page),
            "remove_under": lambda: documents.remove_under(namespace),
        }
        for name, call in calls.items():
            for _ in range(6):
                call()  # prepares the statement
            before = count()
            call()
            assert count() - before == 1, name


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_sqlite(tmp_path: Path, synchronous: str) -> None:
    assert round_trips_per_step(f"sqlite:///{tmp_path}/agents.db?synchronous={synchronous}") == 1


def test_the_engine_makes_one_call_per_step() -> None:
    store = NotingStore()
    Engine(store, "output").take_steps(7)
    assert store.calls == ["create", "claim", *["checkpoint"] * 7, "checkpoint"]


class NotingStore(MemoryStore):
    """Notes what is called on it from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self._inside = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found) or self._inside:
            return found

        def noted(*arguments: Any, **options: Any) -> Any:
            self.calls.append(name)
            self._inside = True
            try:
                return found(*arguments, **options)
            finally:
                self._inside = False

        return noted


class TestTheProxyItself:
    """What counts must see a second round trip, or the tests above prove nothing."""

    def test_each_redis_command_is_one_and_a_pipeline_is_one(self, redis_url: str, redis_prefix: str) -> None:
        with redis.Redis.from_url(redis_url) as direct:
            settings = direct.connection_pool.connection_kwargs
            host, port = settings.get("host", "localhost"), settings.get("port", 6379)
        with CountingProxy(host, port) as proxy, redis.Redis(port=proxy.port) as client:
            client.ping()
            before = proxy.turns
            for _ in range(10):
                client.get(redis_prefix)
            assert proxy.turns - before == 10
            pipeline = client.pipeline(transaction=False)
            for _ in range(10):
                pipeline.get(redis_prefix)
            pipeline.execute()
            assert proxy.turns - before == 11

    def test_a_postgresql_transaction_of_four_statements_is_four(self, postgresql_database_url: str) -> None:
        with psycopg.connect(driver_url(postgresql_database_url)) as direct:
            host, port = direct.info.host, direct.info.port
            user, database = direct.info.user, direct.info.dbname
        with (
            CountingProxy(host, port) as proxy,
            psycopg.connect(
                host="127.0.0.1", port=proxy.port, user=user, dbname=database, autocommit=True
            ) as connection,
        ):
            before = proxy.turns
            for statement in ("BEGIN", "SELECT 1", "SELECT 2", "COMMIT"):
                connection.execute(statement)
            assert proxy.turns - before == 4
            connection.execute("SELECT 1 WHERE %s", (True,))
            assert proxy.turns - before == 5
