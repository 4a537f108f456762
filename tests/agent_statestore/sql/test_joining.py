"""Executions are created in the transaction of an application on the store's database, and share its fate."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from agent_statestore import (
    ForeignConnection,
    IdempotencyConflict,
    ManualClock,
    MemoryStore,
    NewExecution,
    StoreUnavailable,
    ValueTooLarge,
)
from agent_statestore.errors import ExecutionIdTaken
from agent_statestore.hybrid import HybridStore
from agent_statestore.sql import SQLStore
from agent_statestore.sql.callers import caller_of
from agent_statestore.states import AgentState
from agent_statestore.testing.kit.builders import create
from tests.services.callers import Rollback, SQLAlchemyApp, apps_on

Apps = dict[str, Any]


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.full)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/executions.db?busy_timeout_ms=300"
    name = "postgresql_migrated_url" if request.param == "postgresql" else "mariadb_database_url"
    found: str = request.getfixturevalue(name)
    return found


@pytest.fixture
def store(url: str, clock: ManualClock) -> Iterator[SQLStore]:
    with SQLStore(url, clock=clock, max_value_bytes=10_000) as store:
        store.migrate()
        yield store


@pytest.fixture
def apps(store: SQLStore, url: str) -> Iterator[Apps]:
    with apps_on(url) as found:
        yield found


def _new(**fields: Any) -> NewExecution:
    return NewExecution(agent_id="agent", **fields)


@pytest.mark.parametrize("url", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_a_commit_keeps_and_a_rollback_undoes_both(store: SQLStore, apps: Apps) -> None:
    for name, app in apps.items():
        hooked: list[str] = []
        with app.transaction() as connection:
            # Before anything was written: on SQLite there is no transaction yet.
            lost = store.create_in(connection, _new(input={"o": 1}, session_id=f"{name}-lost", user_id="u"))
            app.write(connection, f"{name}-lost")
            caller_of(connection).after_commit(lambda hooked=hooked: hooked.append("lost"))
            assert (lost.state, lost.input, lost.session_id) == (AgentState.IDLE, {"o": 1}, f"{name}-lost"), name
            assert store.get_context(lost.execution_id) is None, name
            raise Rollback
        with app.transaction() as connection:
            app.write(connection, f"{name}-kept")
            kept = store.create_in(connection, _new(input="ü\N{SLIGHTLY SMILING FACE}", session_id=name, priority=3))
            caller_of(connection).after_commit(lambda hooked=hooked: hooked.append("kept"))
            assert hooked == [], name
        assert hooked == ["kept"], name
        assert store.get_context(kept.execution_id) == kept, name
        assert [entry.event for entry in store.get_audit(kept.execution_id)] == ["created"], name
        assert store.get_context(lost.execution_id) is None, name
        assert store.get_audit(lost.execution_id) == (), name
        assert app.orders() == sorted([*(f"{other}-kept" for other in list(apps)[: list(apps).index(name) + 1])]), name
    assert len(store.find().items) == len(apps)


def test_a_savepoint_undoes_what_was_created_behind_it(store: SQLStore, apps: Apps) -> None:
    for name, app in apps.items():
        with app.transaction() as connection:
            app.write(connection, name)
            kept = store.create_in(connection, _new())
            try:
                with app.nested(connection):
                    lost = store.create_in(connection, _new())
                    raise Rollback
            except Rollback:
                pass
        assert store.get_context(kept.execution_id) is not None, name
        assert store.get_context(lost.execution_id) is None, name


def test_what_was_to_be_done_after_the_commit_shares_the_fate_of_its_savepoint(apps: Apps) -> None:
    for name, app in apps.items():
        hooked: list[str] = []

        def then(connection: Any, what: str, hooked: list[str] = hooked) -> None:
            caller_of(connection).after_commit(lambda: hooked.append(what))

        with app.transaction() as connection:
            app.write(connection, name)
            with contextlib.suppress(Rollback), app.nested(connection):  # the very first one: nobody listens yet
                then(connection, "lost at first")
                raise Rollback
            then(connection, "before")
            with app.nested(connection):
                then(connection, "in a savepoint")
                with contextlib.suppress(Rollback), app.nested(connection):
                    with app.nested(connection):
                        then(connection, "lost in a released one")
                    then(connection, "lost")
                    raise Rollback
                then(connection, "in a savepoint again")
            then(connection, "after")
            assert hooked == [], name
        assert hooked == ["before", "in a savepoint", "in a savepoint again", "after"], name


def test_a_connection_that_is_kept_forgets_what_was_rolled_back(apps: Apps) -> None:
    for name in ("connection", "session"):
        app, hooked = apps[name], list[str]()
        with Session(app.engine) if app.with_session else app.engine.connect() as connection:
            for what in ("lost", "kept", "lost too", "kept too"):
                app.write(connection, what)
                caller_of(connection).after_commit(partial(hooked.append, what))
                connection.rollback() if "lost" in what else connection.commit()
        assert hooked == ["kept", "kept too"], name


def test_a_fault_in_the_database_leaves_the_callers_transaction_as_it_was(store: SQLStore, apps: Apps) -> None:
    """The last of several writes fails: nothing of the first ones stays, and the caller can go on."""
    table = store._settings.tables.audit
    fault = f"ALTER TABLE {table} ADD CONSTRAINT no_entries CHECK (event <> 'created')"
    if store._settings.is_sqlite:
        fault = f"CREATE TRIGGER no_entries BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no entries'); END"
    with apps["connection"].engine.begin() as connection:
        connection.execute(text(fault))
    for name, app in apps.items():
        with app.transaction() as connection:
            app.write(connection, f"{name} 1")
            with pytest.raises(Exception, match=r"no.entries"):
                store.create_in(connection, _new(session_id="s"))
            app.write(connection, f"{name} 2")
        assert [one for one in app.orders() if one.startswith(name)] == [f"{name} 1", f"{name} 2"]
    assert store.find().items == ()


def test_keys_and_chosen_ids_hold_within_the_transaction_and_across(store: SQLStore, apps: Apps) -> None:
    for name, app in apps.items():
        outside = create(store, idempotency_key=f"{name}-outside", input=1)
        with app.transaction() as connection:
            app.write(connection, name)
            first = store.create_in(connection, _new(idempotency_key=name, input=[1, None]))
            assert store.create_in(connection, _new(idempotency_key=name, input=[1, None])) == first, name
            again = store.create_in(connection, _new(idempotency_key=f"{name}-outside", input=1))
            assert again.execution_id == outside, name
            with pytest.raises(IdempotencyConflict):
                store.create_in(connection, _new(idempotency_key=name, input=2))
            with pytest.raises(ExecutionIdTaken):
                store.create_in(connection, _new(execution_id=outside, input=2))
            with pytest.raises(ValueTooLarge):
                store.create_in(connection, _new(input="x" * 20_000))
            app.write(connection, name)  # the transaction is as good as before
        assert store.get_by_idempotency_key("agent", name) == first, name


def test_concurrent_callers_with_one_key_create_one(store: SQLStore, apps: Apps) -> None:
    """The second waits for the first, and then finds its execution."""
    app = apps["connection"]
    first_has_it, seen = threading.Event(), []

    def second() -> None:
        first_has_it.wait()
        with app.transaction() as connection:
            seen.append(store.create_in(connection, _new(idempotency_key="key")).execution_id)

    thread = threading.Thread(target=second)
    thread.start()
    with app.transaction() as connection:
        made = store.create_in(connection, _new(idempotency_key="key")).execution_id
        first_has_it.set()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(30)
    assert seen == [made]
    assert len(store.find().items) == 1


def test_it_is_due_as_soon_as_it_is_said_to_be(store: SQLStore, apps: Apps, clock: ManualClock) -> None:
    with apps["session"].transaction() as connection:
        made = store.create_in(connection, _new(first_ring=timedelta(seconds=1)))
        clock.advance(timedelta(minutes=1))  # the transaction takes its time
        assert store.find().items == ()
    assert [due.execution_id for due in store.take_due(10, timedelta(seconds=1))] == [made.execution_id]


def test_a_connection_that_leads_elsewhere_is_refused(store: SQLStore, apps: Apps, tmp_path: Path) -> None:
    app = apps["connection"]
    twin_url = f"sqlite:///{tmp_path}/twin.db"
    with SQLStore(twin_url) as twin:
        twin.migrate()
    autocommit = SQLAlchemyApp(app.url, options={"isolation_level": "AUTOCOMMIT"})
    cases: dict[str, Any] = {"autocommit": autocommit, "another file": SQLAlchemyApp(make_url(twin_url))}
    for name, other in cases.items():
        with other.transaction() as connection, pytest.raises(ForeignConnection) as refused:
            store.create_in(connection, _new())
        assert store._settings.shown_url in str(refused.value), name
        other.close()
    for wrong in (None, "postgresql://", app.engine, app.url):
        with pytest.raises(ForeignConnection):
            store.create_in(wrong, _new())
    assert store.find().items == ()


def test_another_database_of_the_same_server_is_refused(postgresql_migrated_url: str, postgresql_url: str) -> None:
    """Also one with the same tables, and one in which the same tables are found in another schema."""
    with SQLStore(postgresql_migrated_url) as store, SQLStore(f"{postgresql_migrated_url}?schema=other") as other:
        other.migrate()
        elsewhere = create_engine(make_url(postgresql_url).set(drivername="postgresql+psycopg"))
        here = create_engine(make_url(postgresql_migrated_url).set(drivername="postgresql+psycopg"))
        with elsewhere.begin() as connection, pytest.raises(ForeignConnection):
            store.create_in(connection, _new())
        with here.begin() as connection:
            connection.execute(text("SET LOCAL search_path = other, public"))
            with pytest.raises(ForeignConnection):
                store.create_in(connection, _new())
            made = other.create_in(connection, _new())
        assert other.get_context(made.execution_id) == made
        assert store.find().items == ()
        elsewhere.dispose()
        here.dispose()


def test_an_async_session_is_written_to_through_its_sync_one(postgresql_migrated_url: str) -> None:
    async def enqueue() -> str:
        engine = create_async_engine(make_url(postgresql_migrated_url).set(drivername="postgresql+psycopg"))
        async with AsyncSession(engine) as session:
            with pytest.raises(ForeignConnection) as refused:
                store.create_in(session, _new())
            assert "run_sync" in str(refused.value)
            made = await session.run_sync(lambda sync: store.create_in(sync, _new(idempotency_key="key")))
            again = await session.run_sync(lambda sync: store.create_in(sync, _new(idempotency_key="key")))
            assert again == made
            assert store.get_context(made.execution_id) is None
            await session.commit()
        await engine.dispose()
        return made.execution_id

    with SQLStore(postgresql_migrated_url) as store:
        assert store.get_context(asyncio.run(enqueue())) is not None


def test_a_store_in_no_database_refuses_and_a_hybrid_writes_to_its_hot_one(tmp_path: Path, clock: ManualClock) -> None:
    url = f"sqlite:///{tmp_path}/executions.db"
    with SQLStore(url, clock=clock) as hot, HybridStore(hot, MemoryStore(clock=clock)) as hybrid:
        hybrid.create(_new())
        archived = create(hybrid, idempotency_key="archived")
        hybrid.update_state(archived, AgentState.COMPLETED)
        hybrid.settle(archived)
        assert hot.get_context(archived) is None
        with apps_on(url) as apps:
            for app in apps.values():
                with app.transaction() as connection:
                    app.write(connection, "order")
                    with pytest.raises(ForeignConnection):
                        hybrid.cold.create_in(connection, _new())
                    made = hybrid.create_in(connection, _new())
                    assert hybrid.create_in(connection, _new(idempotency_key="archived")).execution_id == archived
                    with pytest.raises(ExecutionIdTaken):
                        hybrid.create_in(connection, _new(execution_id=archived, input=1))
                assert hot.get_context(made.execution_id) is not None
        with pytest.raises(ForeignConnection):
            hybrid.create_in("nothing", _new())


def test_sqlite_names_the_cause_of_its_lock(tmp_path: Path) -> None:
    for mode in ("WAL", "DELETE"):
        url = f"sqlite:///{tmp_path}/{mode}.db?busy_timeout_ms=50&journal_mode={mode}"
        with SQLStore(url) as store:
            store.create(_new())
            with apps_on(url.partition("?")[0]) as apps:
                for name, app in apps.items():
                    with app.transaction() as connection:
                        app.write(connection, "order")
                        with pytest.raises(StoreUnavailable) as refused:
                            store.create(_new())
                        said = str(refused.value)
                        assert "locked" in said, (mode, name, said)
                        assert "this process has an open transaction" in said, (mode, name, said)
                        assert "connection=" in said, (mode, name, said)
