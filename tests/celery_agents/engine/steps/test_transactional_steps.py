"""`run.transaction`: a step's own writes and its record commit together."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text

from agent_statestore import Checkpoint, Checkpointed, InvalidRecord, Lease, StepTransaction, StoreUnavailable
from agent_statestore.sql import SQLStore
from celery_agents import Retry, Run
from celery_agents.engine.outcome import Ending
from tests.celery_agents.driving import Crash, Engine


@pytest.fixture
def engine(engine: Engine, tmp_path: Path) -> Iterator[Engine]:
    """An engine on a SQLite file with a table of the user's own in it."""
    store = SQLStore(f"sqlite:///{tmp_path}/shop.db", clock=engine.clock)
    store.migrate()
    with _own(store) as connection:
        connection.execute(text("CREATE TABLE payments (amount INTEGER)"))
    engine.store = store
    yield engine
    store.close()


@contextmanager
def _own(store: SQLStore) -> Iterator[Connection]:
    database = create_engine(store._settings.url)
    with database.begin() as connection:
        yield connection
    database.dispose()


def payments(engine: Engine) -> list[int]:
    assert isinstance(engine.store, SQLStore)
    with _own(engine.store) as connection:
        return [amount for (amount,) in connection.execute(text("SELECT amount FROM payments ORDER BY amount"))]


def pay(connection: Connection, amount: int) -> int:
    connection.execute(text("INSERT INTO payments VALUES (:amount)"), {"amount": amount})
    return amount


def test_the_step_is_done_once_and_replayed_afterwards(engine: Engine) -> None:
    crashes = [True]

    def shop(run: Run, amount: int) -> int:
        paid = run.transaction("pay", pay, amount)
        if crashes.pop():
            raise Crash
        return run.transaction("pay", pay, paid + 1)

    shop_agent = engine.agent(shop)
    execution_id = engine.start(shop_agent, 5)
    engine.crash(execution_id)
    crashes.append(False)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == 6
    assert payments(engine) == [5, 6]
    steps = engine.context(execution_id).steps
    assert [(step.name, step.action.kind) for step in steps] == [("pay", "transaction"), ("pay#2", "transaction")]


def test_a_crash_inside_the_step_leaves_nothing(engine: Engine) -> None:
    crashes = [False, True]

    def shop(run: Run, amount: int) -> int:
        def pay_and_crash(connection: Connection) -> int:
            pay(connection, amount)
            if crashes.pop():
                raise Crash
            return amount

        return run.transaction("pay", pay_and_crash)

    execution_id = engine.start(engine.agent(shop), 5)
    engine.crash(execution_id)
    assert payments(engine) == []
    engine.execute(execution_id)
    assert payments(engine) == [5]


def test_a_try_that_fails_is_rolled_back_and_its_failure_recorded(engine: Engine) -> None:
    def shop(run: Run, amount: int) -> str:
        def fail(connection: Connection) -> None:
            pay(connection, amount)
            run.memory["paid"] = amount
            raise ValueError("declined")

        with pytest.raises(ValueError, match="declined"):
            run.transaction("pay", fail)
        return "went on"

    execution_id = engine.start(engine.agent(shop), 5)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == "went on"
    assert payments(engine) == []
    context = engine.context(execution_id)
    assert context.steps[0].result is not None
    assert not context.steps[0].result.success
    assert context.memory.working_memory == {}


def test_retries_begin_a_new_transaction_each(engine: Engine) -> None:
    tries = itertools.count(1)

    def shop(run: Run, amount: int) -> int:
        def flaky(connection: Connection) -> int:
            pay(connection, amount)
            if next(tries) < 3:
                raise OSError
            return amount

        return run.options(retry=Retry(retries=2, first_delay=timedelta(0))).transaction("pay", flaky)

    execution_id = engine.start(engine.agent(shop), 5)
    engine.execute(execution_id)
    assert payments(engine) == [5]
    assert engine.context(execution_id).steps[0].tries == 3


def test_a_result_that_json_cannot_carry_undoes_the_writes(engine: Engine) -> None:
    def shop(run: Run, amount: int) -> None:
        def pay_for(connection: Connection) -> object:
            pay(connection, amount)
            return object()

        run.transaction("pay", pay_for)

    execution_id = engine.start(engine.agent(shop), 5)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.FAILED
    assert payments(engine) == []


def test_a_lost_lease_undoes_the_writes(engine: Engine) -> None:
    def shop(run: Run, amount: int) -> int:
        def pay_slowly(connection: Connection) -> int:
            pay(connection, amount)
            engine.clock.advance(engine.limits.lease)
            return amount

        return run.transaction("pay", pay_slowly)

    execution_id = engine.start(engine.agent(shop), 5)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.LOST
    assert payments(engine) == []


class _Unsure:
    """A store whose first commit is applied, or is not, and whose answer never arrives."""

    def __init__(self, store: SQLStore, *, applied: bool) -> None:
        self._open = store.transaction
        self._applied = applied
        self.opened = 0

    def __call__(self, execution_id: str, lease: Lease) -> AbstractContextManager[StepTransaction]:
        self.opened += 1
        return self._once(execution_id, lease) if self.opened == 1 else self._open(execution_id, lease)

    @contextmanager
    def _once(self, execution_id: str, lease: Lease) -> Iterator[Any]:
        with self._open(execution_id, lease) as transaction:
            commit, applied = transaction.checkpoint, self._applied

            class _Lost:
                connection = transaction.connection
                was_applied = False

                def checkpoint(self, checkpoint: Checkpoint) -> Checkpointed:
                    if applied:
                        commit(checkpoint)
                    raise StoreUnavailable("sqlite://", "connection lost")

            yield _Lost()


@pytest.mark.parametrize("applied", [True, False])
def test_a_commit_whose_answer_is_lost_happens_once_and_its_result_counts(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, applied: bool
) -> None:
    assert isinstance(engine.store, SQLStore)
    unsure = _Unsure(engine.store, applied=applied)
    monkeypatch.setattr(engine.store, "transaction", unsure)
    amounts = itertools.count(1)

    def shop(run: Run, _: None) -> int:
        return run.transaction("pay", lambda connection: pay(connection, next(amounts)))

    execution_id = engine.start(engine.agent(shop))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    # What was committed is what counts, although the second try made another amount of it.
    expected = 1 if applied else 2
    assert outcome.output == expected
    assert payments(engine) == [expected]
    assert unsure.opened == 2
    (step,) = engine.context(execution_id).steps
    assert step.tries == 1
    assert step.result is not None
    assert step.result.output == expected


def test_a_store_without_transactions_fails_the_execution_clearly() -> None:
    engine = Engine()

    def shop(run: Run, _: None) -> None:
        run.transaction("pay", pay, 1)

    execution_id = engine.start(engine.agent(shop))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.FAILED
    error = engine.context(execution_id).error
    assert error is not None
    assert "SQL store" in error.message


def test_what_was_changed_with_a_commit_whose_answer_is_lost_is_read_by_the_next_claim(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(engine.store, SQLStore)
    monkeypatch.setattr(engine.store, "transaction", _Unsure(engine.store, applied=True))
    numbers = itertools.count(1)
    seen: list[tuple[int, Any]] = []

    def shop(run: Run, _: None) -> int:
        def count(connection: Connection) -> None:
            run.memory["n"] = pay(connection, next(numbers))
            run.say("assistant", run.memory["n"])

        run.transaction("count", count)
        seen.append((run.memory["n"], [message.content for message in run.messages]))
        return run.step("use", lambda: int(run.memory["n"]))

    execution_id = engine.start(engine.agent(shop))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert (outcome.ending, outcome.ring) == (Ending.DRAINED, True)
    assert seen == []
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == 1
    assert seen == [(1, [1])]
    assert payments(engine) == [1]


@pytest.mark.parametrize("ended_by", ["cancel", "drain", "time"])
def test_a_transaction_that_never_commits_does_not_hold_the_worker(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, ended_by: str
) -> None:
    """The keeper goes on renewing the lease, as the store answers everything else."""
    engine.limits = replace(engine.limits, lease=timedelta(seconds=1.0))
    tries: list[float] = []

    def shop(run: Run, _: None) -> None:
        def lose(connection: Connection) -> None:
            tries.append(time.monotonic())
            if len(tries) == 2 and ended_by == "cancel":
                # From elsewhere: here it would wait for the lock that the transaction holds.
                threading.Thread(target=engine.cancel, args=(run.execution_id,)).start()
            if len(tries) == 2 and ended_by == "drain":
                engine.draining = True
            connection.invalidate()

        run.transaction("pay", lose)

    execution_id = engine.start(engine.agent(shop))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    expected = {"cancel": Ending.CANCELLED, "drain": Ending.DRAINED, "time": Ending.LOST}
    assert outcome.ending is expected[ended_by]
    assert tries[-1] - tries[0] < 5


def test_a_constraint_that_the_commit_breaks_fails_the_step(engine: Engine) -> None:
    assert isinstance(engine.store, SQLStore)
    with _own(engine.store) as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
        connection.execute(text("CREATE TABLE lines (o INTEGER REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED)"))

    def shop(run: Run, _: None) -> str:
        with pytest.raises(InvalidRecord, match="constraint"):
            run.transaction(
                "order", lambda connection: connection.execute(text("INSERT INTO lines VALUES (7)")) and None
            )
        return "told"

    execution_id = engine.start(engine.agent(shop))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == "told"
    (step,) = engine.context(execution_id).steps
    assert step.result is not None
    assert not step.result.success
