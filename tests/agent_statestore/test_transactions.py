"""A step's own writes and its checkpoint commit together, on each SQL database."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from agent_statestore import (
    Checkpoint,
    InvalidRecord,
    Lease,
    LeaseLost,
    ManualClock,
    MemoryStore,
    NoTransactions,
    StepConflict,
)
from agent_statestore.errors import StoreUnavailable
from agent_statestore.sql import SQLStore
from agent_statestore.testing.kit.builders import claimed, context_of, done


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/executions.db?busy_timeout_ms=300"
    found: str = request.getfixturevalue(f"{request.param}_database_url")
    return found


@pytest.fixture
def store(url: str, clock: ManualClock) -> Iterator[SQLStore]:
    with SQLStore(url, clock=clock) as store:
        store.migrate()
        with _engine(store) as connection:
            connection.execute(text("CREATE TABLE payments (id VARCHAR(64) PRIMARY KEY, amount INTEGER)"))
        yield store


@contextmanager
def _engine(store: SQLStore) -> Iterator[Any]:
    """A connection of the user's own."""
    from sqlalchemy import create_engine

    engine = create_engine(store._settings.url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def _payments(store: SQLStore) -> list[tuple[Any, ...]]:
    with _engine(store) as connection:
        return [tuple(row) for row in connection.execute(text("SELECT id, amount FROM payments ORDER BY id"))]


def _pay(connection: Any, payment: str = "p", amount: int = 1) -> None:
    connection.execute(text("INSERT INTO payments VALUES (:id, :amount)"), {"id": payment, "amount": amount})


def test_writes_and_checkpoint_commit_together(store: SQLStore) -> None:
    execution_id, lease = claimed(store)
    with store.transaction(execution_id, lease) as transaction:
        _pay(transaction.connection)
        applied = transaction.checkpoint(Checkpoint(steps=(done(1),), working_memory={"k": "ü"}))
        assert not transaction.was_applied
    assert applied.version == 1
    assert _payments(store) == [("p", 1)]
    context = context_of(store, execution_id)
    assert (context.steps, context.memory.working_memory) == ((done(1),), {"k": "ü"})


def test_without_a_checkpoint_everything_is_undone(store: SQLStore) -> None:
    execution_id, lease = claimed(store)
    with store.transaction(execution_id, lease) as transaction:
        _pay(transaction.connection)
    assert _payments(store) == []
    # The connection goes back as good as new.
    with store.transaction(execution_id, lease) as transaction:
        _pay(transaction.connection)
        transaction.checkpoint(Checkpoint(steps=(done(1),)))
    assert _payments(store) == [("p", 1)]


def test_an_error_in_the_block_undoes_everything_and_passes_through(store: SQLStore) -> None:
    execution_id, lease = claimed(store)

    def work_1() -> None:
        with store.transaction(execution_id, lease) as transaction:
            _pay(transaction.connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work_1()

    def work_2() -> None:
        with store.transaction(execution_id, lease) as transaction:
            _pay(transaction.connection)
            transaction.connection.execute(text("INSERT INTO nowhere VALUES (1)"))

    with pytest.raises(SQLAlchemyError):
        work_2()
    assert _payments(store) == []
    assert context_of(store, execution_id).steps == ()


def test_a_refused_checkpoint_undoes_the_writes(store: SQLStore, clock: ManualClock) -> None:
    execution_id, lease = claimed(store)

    def work_3() -> None:
        with store.transaction(execution_id, lease) as transaction:
            _pay(transaction.connection)
            transaction.checkpoint(Checkpoint(steps=(done(7),)))

    with pytest.raises(StepConflict):
        work_3()
    assert _payments(store) == []
    clock.advance(timedelta(minutes=1))
    successor = store.claim(execution_id, "other", timedelta(seconds=15))
    assert successor is not None

    def work_4() -> None:
        with store.transaction(execution_id, lease) as transaction:
            _pay(transaction.connection)
            transaction.checkpoint(Checkpoint(steps=(done(1),)))

    with pytest.raises(LeaseLost):
        work_4()
    assert _payments(store) == []
    assert context_of(store, execution_id).steps == ()


def test_repeated_after_a_commit_whose_answer_was_lost_it_writes_nothing_twice(store: SQLStore) -> None:
    execution_id, lease = claimed(store)
    change = Checkpoint(steps=(done(1, output="first"),))
    with store.transaction(execution_id, lease) as transaction:
        _pay(transaction.connection, "first")
        transaction.checkpoint(change)
    again = Checkpoint(steps=(done(1, output="second"),), checkpoint_id=change.checkpoint_id)
    with store.transaction(execution_id, lease) as transaction:
        _pay(transaction.connection, "second")
        applied = transaction.checkpoint(again)
        assert transaction.was_applied
    assert applied.version == 1
    assert _payments(store) == [("first", 1)]
    assert context_of(store, execution_id).steps == (done(1, output="first"),)


def test_a_step_that_ends_the_transaction_itself_is_told_so(store: SQLStore) -> None:
    execution_id, lease = claimed(store)

    def work_5() -> None:
        with store.transaction(execution_id, lease) as transaction:
            transaction.connection.rollback()
            transaction.checkpoint(Checkpoint(steps=(done(1),)))

    with pytest.raises(InvalidRecord, match="commit"):
        work_5()
    assert context_of(store, execution_id).steps == ()


def test_other_executions_go_on_while_a_transaction_is_open(store: SQLStore) -> None:
    execution_id, lease = claimed(store)
    other, others_lease = claimed(store)
    outcome: list[object] = []

    def work() -> None:
        try:
            outcome.append(store.checkpoint(other, Checkpoint(steps=(done(1),)), others_lease))
        except StoreUnavailable as error:
            outcome.append(error)

    with store.transaction(execution_id, lease) as transaction:
        _pay(transaction.connection)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
        transaction.checkpoint(Checkpoint(steps=(done(1),)))
    # SQLite has one writer: the others wait as long as its busy timeout, and are then told.
    assert isinstance(outcome[0], StoreUnavailable) == store._settings.is_sqlite
    assert _payments(store) == [("p", 1)]


def test_renewals_of_its_own_lease_are_not_held_up(store: SQLStore) -> None:
    if store._settings.is_sqlite:
        return  # has one writer; see above
    execution_id, lease = claimed(store)
    with store.transaction(execution_id, lease) as transaction:
        _pay(transaction.connection)
        assert store.renew([lease], timedelta(seconds=15)).lost == frozenset()
        transaction.checkpoint(Checkpoint(steps=(done(1),)))
    assert _payments(store) == [("p", 1)]


def test_stores_without_transactions_say_so() -> None:
    store = MemoryStore()
    execution_id, lease = claimed(store)
    assert not store.has_transactions
    with pytest.raises(NoTransactions, match="SQL"), store.transaction(execution_id, lease):
        pass


# -- what a step's function does that it should not --------------------------------------------------------------------


@pytest.mark.parametrize(
    "statements",
    [["COMMIT"], ["ROLLBACK"], ["COMMIT", "INSERT INTO payments VALUES ('q', 2)"]],
    ids=["commit", "rollback", "commit and go on"],
)
def test_a_transaction_that_was_ended_in_sql_is_refused(store: SQLStore, statements: list[str]) -> None:
    execution_id, lease = claimed(store)

    def work() -> None:
        with store.transaction(execution_id, lease) as transaction:
            _pay(transaction.connection)
            for statement in statements:
                transaction.connection.exec_driver_sql(statement)
            transaction.checkpoint(Checkpoint(steps=(done(1),)))

    with pytest.raises(InvalidRecord, match="may neither commit"):
        work()
    assert context_of(store, execution_id).steps == ()


def test_a_statement_that_mysql_commits_by_itself_is_refused_there(store: SQLStore) -> None:
    execution_id, lease = claimed(store)

    def work() -> None:
        with store.transaction(execution_id, lease) as transaction:
            _pay(transaction.connection)
            transaction.connection.exec_driver_sql("CREATE TABLE refunds (id VARCHAR(64) PRIMARY KEY)")
            _pay(transaction.connection, "q")
            transaction.checkpoint(Checkpoint(steps=(done(1),)))

    if store._settings.dialect == "mysql":
        with pytest.raises(InvalidRecord, match="CREATE TABLE"):
            work()
        assert context_of(store, execution_id).steps == ()
    else:
        work()
        assert _payments(store) == [("p", 1), ("q", 1)]


def test_a_connection_that_was_closed_is_refused(store: SQLStore) -> None:
    execution_id, lease = claimed(store)

    def work() -> None:
        with store.transaction(execution_id, lease) as transaction:
            with transaction.connection:
                _pay(transaction.connection)
            transaction.checkpoint(Checkpoint(steps=(done(1),)))

    with pytest.raises(InvalidRecord, match="may neither commit"):
        work()
    assert _payments(store) == []


def test_savepoints_are_the_functions_own(store: SQLStore) -> None:
    execution_id, lease = claimed(store)
    with store.transaction(execution_id, lease) as transaction:
        _pay(transaction.connection)
        with pytest.raises(SQLAlchemyError), transaction.connection.begin_nested():
            _pay(transaction.connection)  # the same id again
        transaction.connection.begin_nested()  # left open
        _pay(transaction.connection, "q")
        transaction.checkpoint(Checkpoint(steps=(done(1),)))
    assert _payments(store) == [("p", 1), ("q", 1)]


def test_what_only_the_commit_refuses_is_the_steps_fault_and_not_the_stores(store: SQLStore) -> None:
    waits = "" if store._settings.dialect == "mysql" else "DEFERRABLE INITIALLY DEFERRED"
    with _engine(store) as connection:
        connection.execute(
            text(f"CREATE TABLE parts (id INTEGER PRIMARY KEY, payment VARCHAR(64) REFERENCES payments (id) {waits})")
        )
    execution_id, lease = claimed(store)

    def work() -> None:
        with store.transaction(execution_id, lease) as transaction:
            transaction.connection.execute(text("INSERT INTO parts VALUES (1, 'none')"))
            transaction.checkpoint(Checkpoint(steps=(done(1),)))

    # MySQL has no constraints that wait for the commit: the function's own statement fails there.
    with pytest.raises(InvalidRecord if waits else SQLAlchemyError, match="constraint"):
        work()
    assert context_of(store, execution_id).steps == ()
    store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)


def test_an_error_that_was_caught_is_the_steps_fault_where_it_ends_the_transaction(store: SQLStore) -> None:
    execution_id, lease = claimed(store)

    def work() -> None:
        with store.transaction(execution_id, lease) as transaction:
            _pay(transaction.connection)
            with pytest.raises(SQLAlchemyError):
                _pay(transaction.connection)
            transaction.checkpoint(Checkpoint(steps=(done(1),)))

    if store._settings.dialect == "postgresql":
        with pytest.raises(InvalidRecord, match="savepoint"):
            work()
        assert _payments(store) == []
    else:
        work()
        assert _payments(store) == [("p", 1)]


def test_an_error_from_outside_passes_through_although_it_broke_the_connection(store: SQLStore) -> None:
    """As a time limit does, on whose way out pymysql closes the connection."""
    execution_id, lease = claimed(store)

    def work() -> None:
        with store.transaction(execution_id, lease) as transaction:
            transaction.connection.invalidate()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def _begun(store: SQLStore, execution_id: str, lease: Lease) -> Any:
    """A connection of the steps' pool in the middle of a transaction, as after an error in the rollback itself."""
    with store.transaction(execution_id, lease):
        pass
    engine = store._transactions._engine
    assert engine is not None
    begun = engine.raw_connection()
    for statement in ("BEGIN", "INSERT INTO payments VALUES ('p', 1)"):
        begun.cursor().execute(statement)
    return begun


@pytest.mark.parametrize("can_roll_back", [True, False])
def test_what_a_connection_has_begun_does_not_come_back_from_the_pool(
    store: SQLStore, monkeypatch: pytest.MonkeyPatch, can_roll_back: bool
) -> None:
    execution_id, lease = claimed(store)
    begun = _begun(store, execution_id, lease)
    if not can_roll_back:
        monkeypatch.setattr(type(begun.driver_connection), "rollback", lambda _: 1 / 0)
    begun.close()
    monkeypatch.undo()
    with store.transaction(execution_id, lease) as transaction:
        _pay(transaction.connection, "q")
        transaction.checkpoint(Checkpoint(steps=(done(1),)))
    assert _payments(store) == [("q", 1)]
