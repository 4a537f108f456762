"""What only SQLite shows: the connections that are kept open, and what a step is made of."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent_statestore import AgentState, Checkpoint, StoreUnavailable
from agent_statestore.sql import SQLStore
from agent_statestore.sql.settings import parse_url
from agent_statestore.sql.sqlite.database import SQLiteDatabase
from agent_statestore.sql.sqlite.pool import SQLitePool
from agent_statestore.testing.kit.builders import claimed, context_of, create, done


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}?pool_size=2"


@pytest.fixture
def pool(url: str) -> Iterator[SQLitePool]:
    pool = SQLitePool(parse_url(url))
    yield pool
    pool.dispose()


def is_open(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1").fetchall()
    except sqlite3.ProgrammingError:
        return False
    return True


def test_a_connection_that_was_given_back_is_taken_again(pool: SQLitePool) -> None:
    first = pool.take()
    second = pool.take()
    assert first is not second
    first.give_back()
    assert pool.take() is first


def test_as_many_are_made_as_are_needed_and_as_many_kept_as_was_said(pool: SQLitePool) -> None:
    taken = [pool.take() for _ in range(4)]
    for connection in taken:
        connection.give_back()
    assert [is_open(connection) for connection in taken] == [True, True, False, False]


def test_after_closing_none_stays_open(pool: SQLitePool) -> None:
    idle, busy = pool.take(), pool.take()
    idle.give_back()
    pool.dispose()
    assert not is_open(idle)
    assert is_open(busy)  # somebody works with it
    busy.give_back()
    assert not is_open(busy)
    pool.dispose()
    again = pool.take()
    assert again not in (idle, busy)
    again.give_back()


def test_a_connection_that_could_not_be_prepared_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database" * 100)
    pool = SQLitePool(parse_url(f"sqlite:///{tmp_path / 'text.db'}?busy_timeout_ms=1"))
    for _ in range(2):
        with pytest.raises(sqlite3.DatabaseError):
            pool.take()


def test_more_threads_than_connections_are_kept_for_do_not_wait_for_each_other(url: str) -> None:
    with SQLStore(url) as store:
        execution_id = create(store)
        start = threading.Barrier(8)
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: (start.wait(), context_of(store, execution_id))[1], range(8)))
        assert all(context == found[0] for context in found)


def test_an_ordinary_step_is_a_look_and_two_writes(url: str) -> None:
    """Whatever else is kept of an execution: its audit trail, its session."""
    with SQLStore(url) as store:
        execution_id, lease = claimed(store, session_id="s")
        store.checkpoint(execution_id, Checkpoint(state=AgentState.USING_TOOL), lease)
        statements: list[str] = []
        database = store._database
        assert isinstance(database, SQLiteDatabase)
        connection = database._pool.take()
        connection.set_trace_callback(statements.append)
        connection.give_back()
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),), state=AgentState.USING_TOOL), lease)
        words = [" ".join(statement.split()[:2]) for statement in statements if not statement.startswith("--")]
    assert words == ["BEGIN IMMEDIATE", "SELECT execution_id,", "UPDATE agent_contexts", "INSERT INTO", "COMMIT"]


def test_an_option_of_the_driver_in_the_url_counts(tmp_path: Path) -> None:
    """As SQLAlchemy understands it: here a file that is only ever read."""
    path = tmp_path / "store.db"
    with SQLStore(f"sqlite:///{path}") as store:
        create(store)
    with (
        SQLStore(f"sqlite:///file:{path}?immutable=1&uri=true") as frozen,
        pytest.raises(StoreUnavailable, match="readonly"),
    ):
        create(frozen)
