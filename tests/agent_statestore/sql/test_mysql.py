"""What only MySQL and MariaDB show: how the store waits, locks, compares and tells the time there."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pymysql
import pytest

from agent_statestore import Checkpoint, InvalidRecord, SchemaMismatch, SignalKind, StoreUnavailable
from agent_statestore.query import Query
from agent_statestore.sql import SQLStore
from agent_statestore.sql.mysql import session
from agent_statestore.testing.kit.builders import (
    TTL,
    answer,
    cancel,
    claimed,
    context_of,
    create,
    done,
    event,
    message,
    pause,
    signal,
    summary_of,
)
from tests.services.mariadb import connect, fresh_mariadb_database

Execute = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def migrated_url(mariadb_url: str) -> Iterator[str]:
    """A database with the schema, for all tests of this module."""
    with fresh_mariadb_database(mariadb_url) as url:
        with SQLStore(url) as store:
            store.migrate()
        yield url


@pytest.fixture
def store(migrated_url: str) -> Iterator[SQLStore]:
    with SQLStore(migrated_url) as store:
        store.clear()
        yield store


@contextmanager
def other_connection(url: str) -> Iterator[Execute]:
    """Somebody else's connection, as a function that runs one statement and returns its rows."""
    with connect(url) as connection, connection.cursor() as cursor:

        def execute(statement: str, *params: object) -> list[tuple[Any, ...]]:
            cursor.execute(statement, params)
            return list(cursor.fetchall())

        yield execute


@pytest.fixture
def other(migrated_url: str) -> Iterator[Execute]:
    with other_connection(migrated_url) as execute:
        yield execute


def lock_row(execute: Execute, execution_id: str) -> None:
    execute("BEGIN")
    execute("SELECT 1 FROM agent_contexts WHERE execution_id = %s FOR UPDATE", execution_id)


def wait_until_blocked(url: str, count: int = 1) -> None:
    deadline = time.monotonic() + 20
    with other_connection(url) as execute:
        while True:
            ((blocked,),) = execute(
                "SELECT count(*) FROM information_schema.innodb_trx AS t JOIN information_schema.processlist AS p "
                "ON p.id = t.trx_mysql_thread_id WHERE t.trx_state = 'LOCK WAIT' AND p.db = DATABASE()"
            )
            if blocked >= count:
                return
            assert time.monotonic() < deadline, f"{count} transactions should wait for a lock"
            time.sleep(0.15)  # the server answers what it answered before, unless it was left alone for 0.1 s


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What pymysql has sent: one text for each round trip."""
    texts: list[str] = []
    query = pymysql.connections.Connection.query

    def record(self: Any, sql: Any, *args: Any, **options: Any) -> Any:
        texts.append(sql.decode() if isinstance(sql, bytes) else sql)
        return query(self, sql, *args, **options)

    monkeypatch.setattr(pymysql.connections.Connection, "query", record)
    return texts


# -- the session -------------------------------------------------------------------------------------------------------


def test_the_session_is_strict_and_in_utc(store: SQLStore) -> None:
    ((mode, zone, charset, waits, table_waits),) = store._database.run(
        "SELECT @@sql_mode, @@time_zone, @@character_set_connection, @@innodb_lock_wait_timeout, @@lock_wait_timeout",
        {},
    )
    assert set(mode.split(",")) == {"STRICT_ALL_TABLES", "NO_ENGINE_SUBSTITUTION"}
    assert (zone, charset) == ("+00:00", "utf8mb4")
    assert waits == table_waits == session.LOCK_WAIT_SECONDS


@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql"])
def test_every_scheme_leads_to_the_server(migrated_url: str, scheme: str) -> None:
    with SQLStore(f"{scheme}://{migrated_url.partition('://')[2]}") as store:
        store.check()
        assert store.get_context(create(store)) is not None


def test_a_primitive_takes_two_round_trips_and_a_read_one(store: SQLStore, sent: list[str]) -> None:
    execution_id, lease = claimed(store, idempotency_key="key", session_id="s")

    def trips(primitive: Callable[[], object]) -> int:
        sent.clear()
        assert primitive() is not False
        return len(sent)

    full = Checkpoint(
        steps=(done(1), done(2)),
        messages=(message("m"), message("n")),
        working_memory={"a": 1, "b": 2},
        forget=("c", "d"),
        facts=(1, 2),
        entities={"e": 1},
        consumed=("none",),
    )
    assert trips(lambda: store.create_context("agent", session_id="s")) == 2
    assert trips(lambda: store.create_context("agent", idempotency_key="key")) == 2
    assert trips(lambda: store.checkpoint(execution_id, full, lease)) == 2
    assert trips(lambda: store.checkpoint(execution_id, Checkpoint(steps=(done(3),)), lease)) == 2
    assert trips(lambda: store.renew([lease], TTL)) == 2
    assert trips(lambda: store.send(execution_id, event())) == 2
    assert trips(lambda: store.checkpoint(execution_id, pause(), lease)) == 2
    assert trips(lambda: store.send(execution_id, answer())) == 2
    assert trips(lambda: store.take_due(10, TTL)) == 2
    assert trips(lambda: store.mark_rung([(execution_id, 1)], TTL, TTL)) == 2
    assert trips(lambda: store.claim(execution_id, "host:1", TTL)) == 2
    assert trips(lambda: store.delete_context(execution_id)) == 2
    other_id, lease = claimed(store)
    assert trips(lambda: store.get_context(other_id)) == 1
    assert trips(lambda: store.get_summary(other_id)) == 1
    assert trips(lambda: store.export(other_id)) == 1
    assert trips(lambda: store.release(lease)) == 1


def test_the_sweeper_looks_the_due_ones_up_in_their_index(store: SQLStore, other: Execute, sent: list[str]) -> None:
    for _ in range(200):
        create(store)
    other("ANALYZE TABLE agent_contexts")
    sent.clear()
    store.take_due(5, TTL)
    (look,) = [part for part in sent[0].split(";\n") if "SKIP LOCKED" in part]
    ((_, _, _, kind, _, key, *_),) = other(f"EXPLAIN {look}")
    assert (kind, key) == ("range", "agent_contexts_due")


# -- time --------------------------------------------------------------------------------------------------------------


def server_time(execute: Execute) -> datetime:
    moment: datetime = execute("SELECT UTC_TIMESTAMP(6)")[0][0]
    return moment.replace(tzinfo=UTC)


def test_the_time_is_the_servers_whatever_its_zone(store: SQLStore, other: Execute) -> None:
    before = server_time(other)
    ((zone,),) = other("SELECT @@global.time_zone")
    other("SET GLOBAL time_zone = '+05:00'")
    try:
        with SQLStore(store._settings.url.render_as_string(hide_password=False)) as far:
            execution_id, lease = claimed(far)
            summary = summary_of(far, execution_id)
            (found,) = far.find_leases("")
            far.release(lease)
            released_at = summary_of(far, execution_id).updated_at
    finally:
        other("SET GLOBAL time_zone = %s", zone)
    assert before <= summary.created_at <= summary.updated_at <= released_at <= server_time(other)
    assert summary.lease_expires_at == summary.updated_at + TTL
    assert timedelta(0) < found.ttl <= TTL


@pytest.mark.parametrize("primitive", ["checkpoint", "release"])
def test_time_is_told_after_the_lock_was_got(
    store: SQLStore, other: Execute, migrated_url: str, primitive: str
) -> None:
    """A lease that ran out while its holder waited for the row must be seen to have run out."""
    execution_id, lease = claimed(store)
    calls: dict[str, Callable[[], object]] = {
        "checkpoint": lambda: store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease),
        "release": lambda: store.release(lease),
    }
    with ThreadPoolExecutor(1) as pool:
        lock_row(other, execution_id)
        waiting = pool.submit(calls[primitive])
        wait_until_blocked(migrated_url)
        freed_at = server_time(other)
        other("COMMIT")
        waiting.result()
    assert summary_of(store, execution_id).updated_at >= freed_at


# -- comparing ---------------------------------------------------------------------------------------------------------

ALIKE = ("key", "Key", "KEY", "key ", " key", "clé", "cle", "cl\u00e9", "cle\u0301", "ß", "ss", "🙂", "🙃", "k\u200bey")


def test_texts_that_only_look_alike_are_different(store: SQLStore, other: Execute) -> None:
    names = sorted(set(ALIKE))
    made = {
        name: create(store, f"agent {name}", idempotency_key="same", session_id=name, user_id=name) for name in names
    }
    for name in names:
        assert create(store, f"agent {name}", idempotency_key="same") == made[name]
        for field in ("session_id", "user_id"):
            assert [item.execution_id for item in store.find(Query(**{field: name})).items] == [made[name]]
    same_agent = {name: create(store, idempotency_key=name) for name in names}
    assert len(set(same_agent.values())) == len(names)
    found = {name: store.get_by_idempotency_key("agent", name) for name in names}
    assert {name: context and context.execution_id for name, context in found.items()} == same_agent
    assert {row[0] for row in other("SELECT session_id FROM agent_sessions")} == set(names)


def test_keys_of_the_memory_and_of_signals_that_only_look_alike_are_different(store: SQLStore) -> None:
    names = sorted(set(ALIKE))
    execution_id = create(store)
    store.checkpoint(execution_id, Checkpoint(working_memory={name: number for number, name in enumerate(names)}))
    store.checkpoint(execution_id, Checkpoint(forget=("key",), working_memory={"Key": "set again"}))
    memory = context_of(store, execution_id).memory.working_memory
    assert memory == {name: number for number, name in enumerate(names) if name != "key"} | {"Key": "set again"}
    for name in names:
        for _ in range(2):
            store.send(execution_id, signal(SignalKind.EVENT, name, signal_id=f"id {name}"))
    assert sorted(signal.key for signal in context_of(store, execution_id).signals) == names
    for name in names:
        assert store.get_context(execution_id.upper() + name) is None


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_values_of_four_megabytes_come_back_as_they_were(store: SQLStore) -> None:
    """Characters that are escaped on the way, and a checkpoint larger than the server takes at once."""
    hard = "'\\\"\n\x00\x1a%s;é🙂"
    value = hard * (4_000_000 // len(hard.encode()) // 3)
    plain = "x" * 4_100_000
    execution_id = create(store, input=value, metadata={"m": value})
    steps = tuple(done(number, output=plain) for number in range(1, 6))
    store.checkpoint(execution_id, Checkpoint(steps=steps, messages=(message(value),), working_memory={"k": plain}))
    context = context_of(store, execution_id)
    assert context.input == context.metadata["m"] == context.memory.conversation_history[0].content == value
    assert context.steps == steps
    assert context.memory.working_memory["k"] == plain
    exported = store.export(execution_id)
    assert exported is not None
    assert store.purge(execution_id)
    assert store.restore(exported)
    assert store.export(execution_id) == exported


def test_what_does_not_fit_a_column_is_refused_and_not_cut_short(store: SQLStore) -> None:
    execution_id = create(store)
    with pytest.raises(InvalidRecord):
        store._database.change(
            "UPDATE agent_contexts SET queue = :queue WHERE execution_id = :execution_id",
            {"queue": "q" * 256, "execution_id": execution_id},
        )
    with pytest.raises(InvalidRecord):
        store.get_context("lone \ud800 surrogate")
    assert summary_of(store, execution_id).queue is None


# -- locks -------------------------------------------------------------------------------------------------------------


def test_who_waits_too_long_for_a_row_is_told_so(
    migrated_url: str, other: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_WAITS", "SET SESSION innodb_lock_wait_timeout = 1")
    with SQLStore(migrated_url) as store:
        execution_id, lease = claimed(store)
        lock_row(other, execution_id)
        with pytest.raises(StoreUnavailable, match=r"Lock wait timeout exceeded.*1205"):
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        assert context_of(store, execution_id).steps == ()  # a read waits for nobody
        other("COMMIT")
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        assert len(store.get_steps(execution_id)) == 1


def test_the_sweeper_passes_over_a_row_that_is_being_written(store: SQLStore, other: Execute) -> None:
    written, free = create(store), create(store)
    for execution_id in (written, free):
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),)))
        store.send(execution_id, cancel())
    lock_row(other, written)
    assert [due.execution_id for due in store.take_due(10, TTL)] == [free]
    other("COMMIT")
    assert [due.execution_id for due in store.take_due(10, TTL)] == [written]


def deadlocks(execute: Execute) -> int:
    ((_, count),) = execute("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
    return int(count)


def make_heavy(execute: Execute) -> None:
    """Of two that wait for each other the server undoes the one that has written less."""
    execute("CREATE TABLE IF NOT EXISTS weights (id INTEGER PRIMARY KEY AUTO_INCREMENT) ENGINE=InnoDB")
    execute("BEGIN")
    execute(f"INSERT INTO weights (id) VALUES {', '.join('(NULL)' for _ in range(500))}")


def test_a_renewal_that_lost_a_deadlock_is_repeated(store: SQLStore, other: Execute, migrated_url: str) -> None:
    first, second = sorted((claimed(store) for _ in range(2)), key=lambda made: made[0])
    before = deadlocks(other)
    make_heavy(other)
    with ThreadPoolExecutor(1) as pool:
        other("SELECT 1 FROM agent_contexts WHERE execution_id = %s FOR UPDATE", second[0])
        renewing = pool.submit(store.renew, [first[1], second[1]], timedelta(hours=1))
        wait_until_blocked(migrated_url)  # it holds the first and waits for the second
        other("SELECT 1 FROM agent_contexts WHERE execution_id = %s FOR UPDATE", first[0])
        other("ROLLBACK")
        assert renewing.result().lost == frozenset()
    assert deadlocks(other) == before + 1
    for execution_id, _ in (first, second):
        expires_at = summary_of(store, execution_id).lease_expires_at
        assert expires_at is not None
        assert expires_at > datetime.now(UTC) + timedelta(minutes=30)


def test_a_purge_that_lost_a_deadlock_is_repeated_as_a_whole(
    store: SQLStore, other: Execute, migrated_url: str
) -> None:
    execution_id = create(store, session_id="s")
    before = deadlocks(other)
    make_heavy(other)
    with ThreadPoolExecutor(1) as pool:
        other("SELECT 1 FROM agent_sessions WHERE session_id = 's' FOR UPDATE")
        purging = pool.submit(store.purge, execution_id)
        wait_until_blocked(migrated_url)  # it has removed the execution and waits for the session
        other("SELECT 1 FROM agent_contexts WHERE execution_id = %s FOR UPDATE", execution_id)
        other("ROLLBACK")
        assert purging.result() is True
    assert deadlocks(other) == before + 1
    assert other("SELECT session_id FROM agent_sessions") == []


def test_of_creations_with_one_key_that_meet_one_creates(store: SQLStore, other: Execute, migrated_url: str) -> None:
    """All have looked before the first inserts: the unique index refuses the others, who then find it."""
    with ThreadPoolExecutor(4) as pool:
        other("BEGIN")
        other("INSERT INTO agent_sessions (session_id, created_us, updated_us) VALUES ('s', 1, 1)")
        creating = [pool.submit(store.create_context, "agent", idempotency_key="key", session_id="s") for _ in range(4)]
        wait_until_blocked(migrated_url, 4)
        other("ROLLBACK")
        made = {future.result().execution_id for future in creating}
    assert len(made) == 1
    assert [item.execution_id for item in store.find().items] == [*made]
    assert len(store.get_audit(*made)) == 1


def a_row(execute: Execute, execution_id: str) -> tuple[str, tuple[Any, ...]]:
    """All columns of an execution but its id, and its values in them."""
    found = execute(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND table_name = 'agent_contexts' AND column_name <> 'execution_id'"
    )
    columns = ", ".join(f"`{name}`" for (name,) in found)
    (values,) = execute(f"SELECT {columns} FROM agent_contexts WHERE execution_id = %s", execution_id)
    return columns, values


def test_a_session_to_which_an_execution_is_being_added_stays(
    store: SQLStore, other: Execute, migrated_url: str
) -> None:
    last = create(store, session_id="s")
    columns, values = a_row(other, last)
    with ThreadPoolExecutor(1) as pool:
        # As `create` does it: the session first, then the execution.
        other("BEGIN")
        other("UPDATE agent_sessions SET updated_us = updated_us + 1 WHERE session_id = 's'")
        purging = pool.submit(store.purge, last)
        wait_until_blocked(migrated_url)
        other(f"INSERT INTO agent_contexts (execution_id, {columns}) VALUES %s", ("new", *values))
        other("COMMIT")
        assert purging.result() is True
    assert other("SELECT session_id FROM agent_sessions") == [("s",)]
    assert store.purge("new")
    assert other("SELECT session_id FROM agent_sessions") == []


def test_a_context_is_read_in_one_state_while_it_is_written(store: SQLStore) -> None:
    execution_id, lease = claimed(store)
    is_over = threading.Event()

    def write() -> None:
        for number in range(1, 151):
            change = Checkpoint(steps=(done(number),), messages=(message(number),), working_memory={"n": number})
            store.checkpoint(execution_id, change, lease)
        is_over.set()

    seen = set()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not is_over.is_set() and not writing.done():
            context, exported = context_of(store, execution_id), store.export(execution_id)
            count = len(context.steps)
            assert (context.step_count, len(context.memory.conversation_history)) == (count, count)
            assert context.memory.working_memory.get("n", 0) == context.version == count
            assert exported is not None
            assert len(exported.steps) == len(exported.messages) == exported.header["step_count"]
            seen.add(count)
        writing.result()
    assert len(seen) > 1


# -- connections -------------------------------------------------------------------------------------------------------


UNKNOWN_THREAD = 1094


def kill_connections(execute: Execute) -> int:
    """Ends the connections of everybody else, as a server does with those that were idle for too long."""
    others = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    found = execute(others)
    for (number,) in found:
        try:
            execute(f"KILL {number}")
        except pymysql.err.OperationalError as error:
            if error.args[0] != UNKNOWN_THREAD:  # it was ending by itself
                raise
    deadline = time.monotonic() + 20
    while set(found) & set(execute(others)):  # a connection is closed before it is off the list
        assert time.monotonic() < deadline, "the killed connections should end"
        time.sleep(0.01)
    return len(found)


def test_idle_connections_that_the_server_closed_are_not_used(store: SQLStore, other: Execute) -> None:
    execution_id, lease = claimed(store)
    start = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: (start.wait(), store.get_summary(execution_id)), range(4)))
    assert kill_connections(other) > 0
    store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: store.get_summary(execution_id), range(8)))


def test_a_connection_lost_in_the_middle_is_unavailable_and_changes_nothing(
    store: SQLStore, other: Execute, migrated_url: str
) -> None:
    execution_id, lease = claimed(store)
    with ThreadPoolExecutor(1) as pool:
        lock_row(other, execution_id)
        writing = pool.submit(store.checkpoint, execution_id, Checkpoint(steps=(done(1),)), lease)
        wait_until_blocked(migrated_url)
        kill_connections(other)
        with pytest.raises(StoreUnavailable) as lost:
            writing.result()
        other("COMMIT")
    assert isinstance(lost.value.__cause__, pymysql.err.MySQLError)
    assert store.get_steps(execution_id) == ()
    assert store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease).version == 1


def test_an_interrupted_call_leaves_no_answer_for_the_next(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's time limits raise wherever the thread is, also between two answers of the server."""
    execution_id, lease = claimed(store)
    nextset = pymysql.cursors.Cursor.nextset
    calls = []

    def interrupt(self: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise TimeoutError("soft time limit")
        return nextset(self)

    with monkeypatch.context() as patched:
        patched.setattr(pymysql.cursors.Cursor, "nextset", interrupt)
        with pytest.raises(TimeoutError):
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
    for number in (1, 2):
        store.checkpoint(execution_id, Checkpoint(steps=(done(number),)), lease)
    assert [step.step_number for step in store.get_steps(execution_id)] == [1, 2]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_leaves_the_parents_connections_alone(store: SQLStore, other: Execute) -> None:
    execution_id, lease = claimed(store)
    ours = other("SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
            ((number,),) = store._database.run("SELECT CONNECTION_ID()", {})
            store.close()
            os.write(write, str(number).encode())
        except BaseException as error:  # noqa: BLE001 - the parent looks at it
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    answered = os.read(read, 1000).decode()
    os.close(read)
    os.close(write)
    assert answered.isdigit(), answered
    assert (int(answered),) not in ours
    ((number,),) = store._database.run("SELECT CONNECTION_ID()", {})
    assert (number,) in ours
    store.checkpoint(execution_id, Checkpoint(steps=(done(2),)), lease)
    assert len(store.get_steps(execution_id)) == 2


# -- faults ------------------------------------------------------------------------------------------------------------


def test_a_missing_table_or_column_is_a_schema_mismatch(mariadb_database_url: str) -> None:
    with SQLStore(mariadb_database_url) as store, other_connection(mariadb_database_url) as execute:
        with pytest.raises(SchemaMismatch):
            store.check()
        with pytest.raises(SchemaMismatch):
            store.create_context("agent")
        store.migrate()
        execution_id = create(store)
        execute("ALTER TABLE agent_contexts DROP COLUMN audit_count")
        with pytest.raises(SchemaMismatch):
            store.get_context(execution_id)


def test_the_password_is_not_shown(mariadb_url: str) -> None:
    host = mariadb_url.rpartition("@")[2].partition("/")[0]
    with SQLStore(f"mysql+pymysql://nobody:secret@{host}/test") as store:
        assert "secret" not in store.url
        with pytest.raises(StoreUnavailable) as unavailable:
            store.get_context("any")
    assert "secret" not in str(unavailable.value)


def test_durability_is_told_from_the_servers_settings(store: SQLStore, other: Execute) -> None:
    ((before,),) = other("SELECT @@global.innodb_flush_log_at_trx_commit")
    try:
        for setting, warns in ((1, False), (2, True), (0, True)):
            other(f"SET GLOBAL innodb_flush_log_at_trx_commit = {setting}")
            assert ("innodb_flush_log_at_trx_commit" in (store.durability_warning() or "")) == warns
    finally:
        other(f"SET GLOBAL innodb_flush_log_at_trx_commit = {before}")
