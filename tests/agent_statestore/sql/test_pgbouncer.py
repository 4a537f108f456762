"""PgBouncer in transaction mode: each transaction of a connection may be another session on the server."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import text

from agent_statestore import Checkpoint, Store
from agent_statestore.sql import SQLStore
from agent_statestore.testing.kit.builders import claim, create, done
from tests.conftest import fresh_database
from tests.services.pgbouncer import PgBouncer
from tests.services.postgresql import driver_url, with_database

THREADS = 8
STEPS = 6


def work(store: Store) -> None:
    """Eight executions at once, each with plain and transactional steps, and reads in between."""
    together = threading.Barrier(THREADS)

    def one(_: int) -> int:
        execution_id = create(store)
        lease = claim(store, execution_id, ttl=timedelta(hours=1)).lease
        together.wait()
        for number in range(1, STEPS + 1):
            store.checkpoint(execution_id, Checkpoint(steps=(done(2 * number - 1),)), lease)
            with store.transaction(execution_id, lease) as transaction:
                transaction.connection.execute(text("SELECT count(*) FROM agent_steps"))
                transaction.checkpoint(Checkpoint(steps=(done(2 * number),)))
            assert store.get_summary(execution_id) is not None
            store.documents.put(("thread", "all"), str(number), number)
        return len(store.get_steps(execution_id))

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(one, range(THREADS))) == [2 * STEPS] * THREADS


def prepared(store: SQLStore) -> int:
    """How many statements the session has prepared that a connection of the store's pool is on now."""
    rows = store._database.run("SELECT count(*) FROM pg_prepared_statements", {})
    return int(rows[0][0])


def test_a_store_behind_it_works_as_on_the_server(pgbouncer: PgBouncer) -> None:
    with SQLStore(pgbouncer.url) as store:
        store.check()
        work(store)
        assert prepared(store) == 0


def test_a_schema_is_made_through_it(pgbouncer: PgBouncer, postgresql_url: str) -> None:
    with fresh_database(postgresql_url) as url, SQLStore(with_database(pgbouncer.url, url.rpartition("/")[2])) as store:
        store.migrate()
        store.check()
        create(store)
        store.migrate("base")
        assert store.revision() is None
    with psycopg.connect(driver_url(pgbouncer.url), autocommit=True) as pooled:
        pooled.execute("SELECT 1")


def test_statements_are_prepared_on_the_server_itself_or_where_the_url_says_so(
    pgbouncer: PgBouncer, postgresql_migrated_url: str
) -> None:
    cases = {
        "direct": (postgresql_migrated_url, True),
        "direct, none": (f"{postgresql_migrated_url}?prepare_threshold=none", False),
        "pooled": (pgbouncer.url, False),
        "pooled, 3": (f"{pgbouncer.url}?prepare_threshold=3", True),
    }
    wrong = []
    for name, (url, expected) in cases.items():
        with SQLStore(url) as store:
            execution_id = create(store)
            for _ in range(10):
                store.get_summary(execution_id)
            if bool(prepared(store)) is not expected:
                wrong.append(name)
            with store._database._pool.take() as connection:  # type: ignore[attr-defined]
                connection.execute("DEALLOCATE ALL")
    assert not wrong


@pytest.mark.parametrize("value", ["-1", "five", "1.5", "None "])
def test_a_threshold_that_is_none_is_refused_by_name(value: str) -> None:
    from agent_statestore import UnsupportedURL

    with pytest.raises(UnsupportedURL, match="prepare_threshold"):
        SQLStore(f"postgresql://h/db?prepare_threshold={value}")
