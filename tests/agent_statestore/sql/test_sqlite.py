"""What only SQLite shows: the connections that are kept open, and what a step is made of."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent_statestore import AgentState, Checkpoint, StoreUnavailable, UnsupportedURL
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


@pytest.mark.parametrize("mode", ["DELETE", "truncate", "PERSIST"])
def test_a_file_without_wal_keeps_executions_of_several_processes(tmp_path: Path, mode: str) -> None:
    """For file systems on which processes share no memory: no -wal and no -shm file is ever made."""
    url = f"sqlite:///{tmp_path}/executions.db?journal_mode={mode}"
    with SQLStore(url) as store, SQLStore(url) as other:
        execution_id, lease = claimed(store)
        with ThreadPoolExecutor(4) as threads:
            reads = [threads.submit(store.get_summary, execution_id) for _ in range(50)]
            other.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
            assert all(read.result() is not None for read in reads)
        assert [step.step_number for step in store.get_steps(execution_id)] == [1]
        assert store._database.run("SELECT journal_mode FROM pragma_journal_mode", {}) == [(mode.lower(),)]
        assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(("-wal", "-shm"))]


def test_a_file_leaves_wal_and_returns_to_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/executions.db"
    for option, found in (("", "wal"), ("?journal_mode=DELETE", "delete"), ("", "wal")):
        with SQLStore(url + option) as store:
            store.create_context("agent", 1)
            assert store._database.run("SELECT journal_mode FROM pragma_journal_mode", {}) == [(found,)]


def test_two_stores_that_want_another_journal_on_one_file_are_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/executions.db"
    with SQLStore(url) as store:
        store.create_context("agent", 1)
        with (
            SQLStore(f"{url}?journal_mode=DELETE&busy_timeout_ms=50") as other,
            pytest.raises(StoreUnavailable, match="locked"),
        ):
            other.create_context("agent", 2)


def test_an_unknown_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedURL, match="journal_mode"):
        SQLStore(f"sqlite:///{tmp_path}/executions.db?journal_mode=MEMORY")


def test_what_is_purged_is_not_left_in_the_files(tmp_path: Path) -> None:
    secret = "hunter-rosebud-"
    with SQLStore(f"sqlite:///{tmp_path}/f.db") as store:
        kept = store.create_context("agent", "kept" * 2000)
        gone = store.create_context("agent", secret * 2000)
        assert secret.encode() in content_of(tmp_path)
        store.purge(gone.execution_id)
        assert store.get_context(kept.execution_id) is not None

    assert secret.encode() not in content_of(tmp_path)


def content_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())
