"""What only the SQL store promises: how it writes, waits, forks, and says that something is wrong."""

import multiprocessing
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agent_statestore import (
    Action,
    AgentState,
    Checkpoint,
    InvalidRecord,
    MissingDriver,
    SchemaMismatch,
    SignalKind,
    StoreConfigurationError,
    StoreUnavailable,
    Wait,
    WaitKind,
    open_store,
)
from agent_statestore.errors import UnsupportedURL
from agent_statestore.sql import SQLStore
from agent_statestore.sql.postgresql.repeating import ROUNDS
from agent_statestore.testing.kit.builders import (
    TTL,
    answer,
    cancel,
    claimed,
    done,
    event,
    intent,
    message,
    pause,
    signal,
    wait,
)
from tests.conftest import fresh_database
from tests.services.postgresql import PostgresServer, driver_url


@pytest.fixture(scope="module")
def migrated_url(postgresql_url: str) -> Iterator[str]:
    """A database with the schema, for all tests of this module."""
    with fresh_database(postgresql_url) as url:
        with SQLStore(url) as store:
            store.migrate()
        yield url


@pytest.fixture
def postgresql(migrated_url: str) -> Iterator[SQLStore]:
    with SQLStore(migrated_url) as store:
        store.clear()
        yield store


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[SQLStore]:
    if request.param == "postgresql":
        yield request.getfixturevalue("postgresql")
    else:
        with SQLStore(request.getfixturevalue("sqlite_url")) as sqlite:
            yield sqlite


# -- opening -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:x?mode=memory"])
def test_sqlite_in_memory_is_refused(url: str) -> None:
    with pytest.raises(UnsupportedURL, match="memory://") as refused:
        open_store(url)
    assert isinstance(refused.value, StoreConfigurationError)


@pytest.mark.parametrize(
    "url", ["sqlite:///f.db?synchronous=MAYBE", "sqlite:///f.db?table_prefix=a-b", "postgresql+asyncpg://h/d"]
)
def test_a_bad_option_is_refused(url: str) -> None:
    with pytest.raises(UnsupportedURL):
        open_store(url)


def test_the_password_is_not_shown() -> None:
    with open_store("postgresql://me:secret@localhost:1/db") as store:
        assert "secret" not in store.url
        with pytest.raises(StoreUnavailable) as unavailable:
            store.check()
        assert "secret" not in str(unavailable.value)
        assert unavailable.value.__cause__ is not None


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in [name for name in sys.modules if name.startswith(("psycopg.", "agent_statestore.sql.postgresql."))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDriver, match=r"celery-agents\[postgresql\]"):
        open_store("postgresql://localhost/db")
    open_store("sqlite:///unused.db").close()


# -- SQLite ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "level"), [("", 2), ("?synchronous=NORMAL", 1), ("?synchronous=full", 2)])
def test_sqlite_writes_ahead_and_syncs_as_told(sqlite_url: str, option: str, level: int) -> None:
    with SQLStore(sqlite_url + option) as store:
        store.check()
        assert store._database.run("SELECT journal_mode FROM pragma_journal_mode", {}) == [("wal",)]
        assert store._database.run("SELECT synchronous FROM pragma_synchronous", {}) == [(level,)]
        assert store._database.run("SELECT foreign_keys FROM pragma_foreign_keys", {}) == [(1,)]
        assert store.durability_warning() is None
    with SQLStore(f"{sqlite_url}?synchronous=OFF") as store:
        assert "synchronous=OFF" in (store.durability_warning() or "")


def _create_in(url: str, start: Any, results: Any) -> None:
    start.wait()
    try:
        with SQLStore(url) as store:
            results.put(store.create_context("agent").execution_id)
    except BaseException as error:  # noqa: BLE001 - the parent looks at it
        results.put(error)


def test_several_processes_may_use_a_new_file_at_once(sqlite_url: str) -> None:
    server = multiprocessing.get_context("forkserver")
    start, results = server.Barrier(6), server.Queue()
    processes = [server.Process(target=_create_in, args=(sqlite_url, start, results)) for _ in range(6)]
    for process in processes:
        process.start()
    made = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert all(isinstance(item, str) for item in made), made
    with SQLStore(sqlite_url) as store:
        assert {summary.execution_id for summary in store.find().items} == set(made)


def test_a_locked_file_is_unavailable_and_comes_back(sqlite_url: str, tmp_path: Path) -> None:
    with SQLStore(f"{sqlite_url}?busy_timeout_ms=20") as store:
        execution_id = store.create_context("agent").execution_id
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),)))
        other.execute("ROLLBACK")
        other.close()
        assert store.checkpoint(execution_id, Checkpoint(steps=(done(1),))).version == 1


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database" * 100)
    with SQLStore(f"sqlite:///{tmp_path / 'text.db'}") as store, pytest.raises(StoreUnavailable):
        store.check()
    with SQLStore(f"sqlite:///{tmp_path / 'absent' / 'x.db'}") as store, pytest.raises(StoreUnavailable):
        store.get_context("any")


def test_a_dropped_table_is_a_schema_mismatch(store: SQLStore) -> None:
    with SQLStore(_url_of(store) + "?table_prefix=dropped_") as other:
        other.migrate()
        other.check()
        other._database.run("DROP TABLE dropped_contexts" + ("" if "sqlite" in store.url else " CASCADE"), {})
        with pytest.raises(SchemaMismatch):
            other.create_context("agent")


# -- forks -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_makes_connections_of_its_own(store: SQLStore) -> None:
    execution_id, lease = claimed(store)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
            os.write(write, b"ok")
        except BaseException as error:  # noqa: BLE001 - the parent looks at it
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1000) == b"ok"
    os.close(read)
    os.close(write)
    store.checkpoint(execution_id, Checkpoint(steps=(done(2),)), lease)
    assert len(store.get_steps(execution_id)) == 2


# -- one statement -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that psycopg has sent."""
    statements: list[str] = []
    execute = psycopg.Connection.execute

    def record(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        statements.append(query.decode() if isinstance(query, bytes) else str(query))
        return execute(self, query, *args, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", record)
    return statements


def test_a_primitive_is_one_statement_on_postgresql(postgresql: SQLStore, sent: list[str]) -> None:
    store = postgresql
    store.check()
    execution_id = store.create_context("agent", idempotency_key="key").execution_id
    claim = store.claim(execution_id, "host:1", TTL)
    assert claim is not None
    lease = claim.lease

    def count(primitive: Any) -> int:
        sent.clear()
        primitive()
        return len(sent)

    full = Checkpoint(
        steps=(done(1), intent(2)),
        messages=(message("m"),),
        working_memory={"a": 1},
        forget=("b",),
        facts=(1,),
        entities={"e": 1},
        consumed=("none",),
    )
    assert count(lambda: store.create_context("agent")) == 1
    assert count(lambda: store.checkpoint(execution_id, full, lease)) == 1
    tool = replace(done(2), action=Action(kind="tool", tool="search"))
    assert count(lambda: store.checkpoint(execution_id, Checkpoint(steps=(tool,)), lease)) == 1
    assert count(lambda: store.checkpoint(execution_id, Checkpoint(steps=(done(3),)), lease)) == 1
    assert count(lambda: store.renew([lease], TTL)) == 1
    assert count(lambda: store.send(execution_id, event())) == 1
    assert count(lambda: store.checkpoint(execution_id, pause(), lease)) == 1
    assert count(lambda: store.send(execution_id, answer())) == 1
    assert count(lambda: store.take_due(10, TTL)) == 1
    assert count(lambda: store.mark_rung([(execution_id, 1)], TTL, TTL)) == 1
    assert count(lambda: store.claim(execution_id, "host:1", TTL)) == 1
    assert count(lambda: store.get_context(execution_id)) == 1
    assert count(lambda: store.get_by_idempotency_key("agent", "key")) == 1
    assert count(lambda: store.get_audit(execution_id)) == 1


def test_removing_and_moving_is_one_statement_on_postgresql(
    postgresql: SQLStore, migrated_url: str, sent: list[str]
) -> None:
    store = postgresql
    store.check()

    def count(primitive: Callable[[], object]) -> int:
        sent.clear()
        assert primitive() is not False
        return len(sent)

    def in_session() -> str:
        return store.create_context("agent", session_id="s").execution_id

    assert count(in_session) == 1
    execution_id = in_session()
    older = store.export(execution_id)
    assert older is not None
    store.update_state(execution_id, AgentState.COMPLETED)
    newer = store.export(execution_id)
    assert newer is not None
    assert count(lambda: store.export(execution_id)) == 1
    assert count(lambda: store.drop_archived(execution_id, newer.place)) == 1
    assert count(lambda: store.restore(older)) == 1
    assert count(lambda: store.restore(newer)) == 1
    assert count(lambda: store.delete_context(execution_id, by="me", reason="test")) == 1
    assert count(lambda: store.purge(execution_id)) == 1
    assert count(store.clear) == 1
    with SQLStore(f"{migrated_url}?soft_delete=off") as forgetful:
        execution_id = forgetful.create_context("agent", session_id="s").execution_id
        assert count(lambda: forgetful.delete_context(execution_id)) == 1
        assert forgetful.get_audit(execution_id) == ()


def test_an_ordinary_step_is_updated_in_place(postgresql: SQLStore, migrated_url: str) -> None:
    def updates(connection: psycopg.Connection[Any]) -> tuple[int, int]:
        row = connection.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'agent_contexts'"
        ).fetchone()
        assert row is not None
        return row

    execution_id, lease = claimed(postgresql)
    steps = 200
    with psycopg.connect(driver_url(migrated_url), autocommit=True) as connection:
        postgresql._database.run("SELECT pg_stat_force_next_flush()", {})
        before = updates(connection)
        for number in range(1, steps + 1):
            change = Checkpoint(steps=(done(number),), state=AgentState.THINKING)
            postgresql.checkpoint(execution_id, change, lease)
        postgresql._database.run("SELECT pg_stat_force_next_flush()", {})
        postgresql._database.run("SELECT 1", {})
        after = updates(connection)
    assert after[0] - before[0] == steps
    assert after[1] - before[1] == steps


def wait_for_event() -> Wait:
    return wait(WaitKind.EVENT)


# -- races -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SignalKind.EVENT, SignalKind.CANCEL])
def test_a_signal_that_meets_a_pause_is_never_lost(store: SQLStore, kind: SignalKind) -> None:
    """Either the signal wakes the paused execution, or the pause finds the signal: never neither."""
    wakes = set()
    with ThreadPoolExecutor(2) as pool:
        for _ in range(60):
            execution_id, lease = claimed(store)
            start = threading.Barrier(2)

            def stop(execution_id: str = execution_id, lease: Any = lease, start: Any = start) -> bool:
                start.wait()
                change = Checkpoint(state=AgentState.WAITING, waits=(wait_for_event(),))
                return store.checkpoint(execution_id, change, lease).due_now

            def wake(execution_id: str = execution_id, start: Any = start) -> bool:
                start.wait()
                return store.send(execution_id, event() if kind is SignalKind.EVENT else cancel()).woke

            due_now, woke = (future.result() for future in (pool.submit(stop), pool.submit(wake)))
            assert due_now != woke
            wakes.add(woke)
            summary = store.get_summary(execution_id)
            assert summary is not None
            assert summary.due_at is not None
            assert store.claim(execution_id, "host:2", TTL) is not None


def test_of_many_claims_at_once_one_wins(store: SQLStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            execution_id = store.create_context("agent").execution_id
            start = threading.Barrier(8)

            def claim(number: int, execution_id: str = execution_id, start: Any = start) -> bool:
                start.wait()
                return store.claim(execution_id, f"host:{number}", TTL) is not None

            assert sum(pool.map(claim, range(8))) == 1


# -- faults ------------------------------------------------------------------------------------------------------------


def test_what_the_database_cannot_hold_is_an_invalid_record(postgresql: SQLStore) -> None:
    execution_id = postgresql.create_context("agent").execution_id
    with pytest.raises(InvalidRecord):
        postgresql.checkpoint(execution_id, Checkpoint(steps=(done(1, name="nul\x00"),)))
    with pytest.raises(InvalidRecord):
        postgresql.send(execution_id, signal(SignalKind.EVENT, key="nul\x00"))


NO_ROW = "SELECT 1 WHERE false"


@pytest.mark.parametrize(
    "primitive", ["create", "claim", "checkpoint", "send", "delete_context", "purge", "drop_archived", "restore"]
)
def test_a_refusal_without_a_reason_is_not_repeated_without_end(
    postgresql: SQLStore, sent: list[str], monkeypatch: pytest.MonkeyPatch, primitive: str
) -> None:
    """As after an edit by hand, which the condition in SQL and the diagnosis in Python judge differently."""
    execution_id = postgresql.create_context("agent").execution_id
    over = postgresql.create_context("agent").execution_id
    postgresql.update_state(over, AgentState.COMPLETED)
    exported = postgresql.export(over)
    assert exported is not None
    elsewhere = replace(exported, header=exported.header | {"execution_id": "elsewhere"})
    for name in ("_claim", "_delete", "_purge", "_drop_archived", "_restore"):
        monkeypatch.setattr(postgresql._primitives, name, NO_ROW)
    for name in ("create_statement", "checkpoint_statement", "send_statement"):
        monkeypatch.setattr(f"agent_statestore.sql.postgresql.primitives.{name}", lambda *_, **__: NO_ROW)
    calls = {
        "create": lambda: postgresql.create_context("agent"),
        "claim": lambda: postgresql.claim(execution_id, "host:1", TTL),
        "checkpoint": lambda: postgresql.checkpoint(execution_id, Checkpoint()),
        "send": lambda: postgresql.send(execution_id, event()),
        "delete_context": lambda: postgresql.delete_context(execution_id),
        "purge": lambda: postgresql.purge(execution_id),
        "drop_archived": lambda: postgresql.drop_archived(over, exported.place),
        "restore": lambda: postgresql.restore(elsewhere),
    }
    sent.clear()
    with pytest.raises(StoreUnavailable, match=f"`{primitive}` of execution .* without a reason"):
        calls[primitive]()
    assert sent.count(NO_ROW) == ROUNDS


def test_a_restarted_server_is_found_again(postgresql_server: PostgresServer) -> None:
    with SQLStore(postgresql_server.url) as store:
        store.migrate()
        execution_id, lease = claimed(store)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: store.get_summary(execution_id), range(16)))  # several pooled connections
        postgresql_server.stop()
        with pytest.raises(StoreUnavailable):
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        postgresql_server.start()
        store.renew([lease], timedelta(minutes=1))
        for number in range(1, 5):
            store.checkpoint(execution_id, Checkpoint(steps=(done(number),)), lease)
        assert len(store.get_steps(execution_id)) == 4


def test_durability_is_told_from_the_servers_settings(postgresql: SQLStore, migrated_url: str) -> None:
    warning = postgresql.durability_warning()
    with psycopg.connect(driver_url(migrated_url)) as connection:
        row = connection.execute("SHOW fsync").fetchone()
    assert row is not None
    assert (warning is None) == (row[0] == "on")


# -- removing ----------------------------------------------------------------------------------------------------------


def test_purging_leaves_no_rows_behind(store: SQLStore) -> None:
    execution_id, lease = claimed(store, session_id="s")
    store.send(execution_id, event())
    store.checkpoint(
        execution_id, Checkpoint(steps=(done(1),), messages=(message("m"),), working_memory={"a": 1}), lease
    )
    tables = [f"agent_{name}" for name in ("steps", "notes", "memory", "signals", "sessions", "audit", "contexts")]

    def rows() -> list[int]:
        return [len(store._database.run(f"SELECT 1 FROM {table}", {})) for table in tables]

    assert rows() == [1, 1, 1, 1, 1, 3, 1]
    assert store.delete_context(execution_id)
    assert rows() == [1, 1, 1, 1, 1, 4, 1]
    assert store.purge(execution_id)
    assert rows() == [0] * len(tables)


def test_a_session_goes_with_the_last_of_its_executions(store: SQLStore) -> None:
    def sessions() -> list[tuple[Any, ...]]:
        return store._database.run("SELECT session_id, user_id FROM agent_sessions ORDER BY session_id", {})

    first, second = (store.create_context("agent", session_id="s", user_id=user) for user in (None, "u"))
    other = store.create_context("agent", session_id="t")
    assert sessions() == [("s", "u"), ("t", None)]
    store.delete_context(first.execution_id)
    store.delete_context(second.execution_id)
    store.purge(second.execution_id)
    assert sessions() == [("s", "u"), ("t", None)]
    store.purge(first.execution_id)
    assert sessions() == [("t", None)]
    store.update_state(other.execution_id, AgentState.COMPLETED)
    exported = store.export(other.execution_id)
    assert exported is not None
    assert store.drop_archived(other.execution_id, exported.place)
    assert sessions() == []
    assert store.restore(exported)
    assert sessions() == [("t", None)]
    assert store.clear() == 1
    assert sessions() == []


def _url_of(store: SQLStore) -> str:
    return str(store._settings.url.render_as_string(hide_password=False))
