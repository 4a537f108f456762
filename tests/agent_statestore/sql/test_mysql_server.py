"""A MariaDB that is restarted, killed, made smaller or read-only while the store uses it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from agent_statestore import AgentState, Checkpoint, InvalidRecord, StoreUnavailable, ValueTooLarge
from agent_statestore.documents import DocumentQuery, Put
from agent_statestore.sql import SQLStore
from agent_statestore.testing.kit.builders import claimed, context_of, create, done, event, message, summary_of
from tests.services.mariadb import MariaDBServer, connect

PATIENCE_SECONDS = 60.0


@pytest.fixture
def store(mariadb_server: MariaDBServer) -> Iterator[SQLStore]:
    with SQLStore(mariadb_server.url) as store:
        store.migrate()
        yield store


def run_on(server: MariaDBServer, *statements: str) -> None:
    """As the server's root."""
    with connect(server.url) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def use_several_connections(store: SQLStore, execution_id: str) -> None:
    start = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: (start.wait(), store.get_context(execution_id)), range(4)))


@pytest.mark.parametrize("ending", ["restart", "kill"])
def test_a_server_that_came_back_between_two_calls_is_not_noticed(
    store: SQLStore, mariadb_server: MariaDBServer, ending: str
) -> None:
    execution_id, lease = claimed(store)
    use_several_connections(store, execution_id)
    if ending == "restart":
        mariadb_server.stop()
    else:
        mariadb_server.kill()
    mariadb_server.start()
    store.renew([lease], timedelta(minutes=1))
    store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
    use_several_connections(store, execution_id)
    assert len(store.get_steps(execution_id)) == 1


def test_a_server_that_is_away_is_unavailable_until_it_comes_back(
    store: SQLStore, mariadb_server: MariaDBServer
) -> None:
    execution_id, lease = claimed(store)
    mariadb_server.stop()
    change = Checkpoint(steps=(done(1),))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.checkpoint(execution_id, change, lease)
        with pytest.raises(StoreUnavailable):
            store.check()
    mariadb_server.start()
    store.check()
    store.renew([lease], timedelta(minutes=1))
    assert store.checkpoint(execution_id, change, lease).version == 1


def test_nothing_is_lost_or_doubled_when_the_server_is_killed_while_it_is_written_to(
    store: SQLStore, mariadb_server: MariaDBServer
) -> None:
    """Each writer repeats the checkpoint that failed until it is through, as a worker does."""
    writers, goal = 3, threading.Event()
    failures: list[StoreUnavailable] = []

    def write(execution_id: str) -> int:
        number = 0
        while not goal.is_set():
            number += 1
            change = Checkpoint(
                steps=(done(number, output=number),), messages=(message(number),), working_memory={"n": number}
            )
            give_up_at = time.monotonic() + PATIENCE_SECONDS
            while True:
                try:
                    store.checkpoint(execution_id, change)
                    break
                except StoreUnavailable as error:
                    failures.append(error)
                    assert time.monotonic() < give_up_at
                    time.sleep(0.02)
        return number

    made = [create(store, session_id="s") for _ in range(writers)]
    with ThreadPoolExecutor(writers) as pool:
        writing = [pool.submit(write, execution_id) for execution_id in made]
        for _ in range(3):
            before = sum(summary_of(store, execution_id).step_count for execution_id in made)
            give_up_at = time.monotonic() + PATIENCE_SECONDS
            while sum(summary_of(store, execution_id).step_count for execution_id in made) < before + 20:
                assert time.monotonic() < give_up_at
            mariadb_server.kill()
            mariadb_server.start()
        goal.set()
        written = [future.result() for future in writing]
    assert failures
    for execution_id, count in zip(made, written, strict=True):
        context = context_of(store, execution_id)
        assert context.version == context.step_count == count
        outputs = [step.result.output for step in context.steps if step.result is not None]
        contents = [entry.content for entry in context.memory.conversation_history]
        assert outputs == contents == list(range(1, count + 1))
        assert context.memory.working_memory == {"n": count}


def test_a_server_that_goes_away_after_a_steps_commit_leaves_no_traceback(
    store: SQLStore, mariadb_server: MariaDBServer, caplog: pytest.LogCaptureFixture
) -> None:
    execution_id, lease = claimed(store)
    with store.transaction(execution_id, lease) as transaction:
        transaction.checkpoint(Checkpoint(steps=(done(1),)))
        mariadb_server.kill()
    assert caplog.text == ""
    mariadb_server.start()
    store.renew([lease], timedelta(minutes=1))
    with store.transaction(execution_id, lease) as transaction:
        transaction.checkpoint(Checkpoint(steps=(done(2),)))
    assert len(store.get_steps(execution_id)) == 2


def test_what_the_server_does_not_take_at_once_is_told_in_several_trips_or_refused(
    store: SQLStore, mariadb_server: MariaDBServer
) -> None:
    limit = 1024 * 1024
    run_on(mariadb_server, f"SET GLOBAL max_allowed_packet = {limit}")
    with SQLStore(mariadb_server.url) as small:
        execution_id, lease = claimed(small, input="i" * 600_000, metadata={"m": "m" * 300_000})
        steps = tuple(done(number, output="o" * 500_000) for number in range(1, 7))
        small.checkpoint(execution_id, Checkpoint(steps=steps, messages=(message("m" * 500_000),)), lease)
        before = context_of(small, execution_id)
        assert before.steps == steps

        large = Checkpoint(
            steps=(done(7),), messages=(message("x"),), working_memory={"fits": 1, "large": "l" * (limit + 1)}
        )
        with pytest.raises(InvalidRecord, match=rf"max_allowed_packet is {limit}"):
            small.checkpoint(execution_id, large, lease)
        with pytest.raises(InvalidRecord, match="max_allowed_packet"):
            small.send(execution_id, event("e" * (limit + 1)))
        with pytest.raises(InvalidRecord, match="max_allowed_packet"):
            create(small, input="i" * (limit + 1), session_id="s", idempotency_key="key")
        assert context_of(small, execution_id) == before
        assert [item.execution_id for item in small.find().items] == [execution_id]
        assert small._database.run("SELECT * FROM agent_sessions", {}) == []
        with pytest.raises(ValueTooLarge, match=f"max_allowed_packet is {limit}"):
            small.documents.put(("a", "b"), "large", b"l" * (limit + 1))
        puts = [Put(namespace=("a", "b"), key=str(number), value="v" * 400_000) for number in range(4)]
        small.documents.write(puts)
        assert [each.key for each in small.documents.list(DocumentQuery(namespace=("a", "b"))).items] == list("0123")
        # The connection goes on, and nothing keeps a lock.
        small.checkpoint(execution_id, Checkpoint(steps=(done(7),)), lease)


def test_a_read_only_server_is_unavailable_until_it_takes_writes_again(
    store: SQLStore, mariadb_server: MariaDBServer
) -> None:
    run_on(
        mariadb_server,
        "CREATE USER 'app'@'%' IDENTIFIED BY 'secret'",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON test.* TO 'app'@'%'",
    )
    url = mariadb_server.url.replace("root@", "app:secret@")
    with SQLStore(url) as app:
        execution_id, lease = claimed(app)
        run_on(mariadb_server, "SET GLOBAL read_only = 1")
        with pytest.raises(StoreUnavailable, match=r"read-only.*1290"):
            app.checkpoint(execution_id, Checkpoint(steps=(done(1),), state=AgentState.USING_TOOL), lease)
        assert summary_of(app, execution_id).state is AgentState.THINKING
        with pytest.raises(StoreUnavailable, match="1290"), app.transaction(execution_id, lease) as step:
            step.connection.exec_driver_sql("UPDATE agent_contexts SET priority = 1")
        refused = step.connection
        assert refused.invalidated or refused.closed
        run_on(mariadb_server, "SET GLOBAL read_only = 0")
        app.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        assert app.purge(execution_id)
