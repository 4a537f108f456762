"""Streams on PostgreSQL: who is told, what is told to nobody, and what a listener does when the server goes."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from agent_statestore import Checkpoint, Lease, ManualClock, StoreUnavailable
from agent_statestore.checkpoint import LeasedWrite
from agent_statestore.contract.streams import PollingListener, StreamListener
from agent_statestore.records import Checkpointed
from agent_statestore.sql import SQLStore
from agent_statestore.sql.database import Params
from agent_statestore.sql.postgresql import listening
from agent_statestore.sql.postgresql.database import PostgreSQLDatabase
from agent_statestore.sql.postgresql.streams import _notes
from agent_statestore.sql.transaction import Row
from agent_statestore.streams.records import Appended, StreamAppend
from agent_statestore.testing.contract.streams import append, part_of, values_of
from agent_statestore.testing.kit.builders import cancel, claim, claimed, create, done, event
from tests.agent_statestore.sql.test_postgresql_races import in_order, row_of
from tests.services.pgbouncer import PgBouncer
from tests.services.postgresql import PostgresServer, driver_url


@pytest.fixture
def store(postgresql_migrated_url: str) -> Iterator[SQLStore]:
    with SQLStore(postgresql_migrated_url) as postgresql:
        yield postgresql


@pytest.fixture
def listener(store: SQLStore) -> Iterator[StreamListener]:
    listener = store.listen_streams()
    yield listener
    listener.close()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listeners repeat their word so late that what a test sees must have been told."""
    monkeypatch.setattr(listening, "_REPEAT_SECONDS", 1000.0)


def follow(listener: StreamListener, *execution_ids: str) -> None:
    """Follow these, and wait until the store knows."""
    listener.follow(execution_ids)
    missing = set(execution_ids)
    while missing:
        missing -= listener.wait(5)


def appended(store: SQLStore, lease: Lease, seq: int) -> Appended:
    (answer,) = store.append_events([StreamAppend(lease=lease, part=part_of(lease, seq, seq))])
    return answer


def heard(listener: StreamListener, seconds: float = 10) -> frozenset[str]:
    """What is told next."""
    end = time.monotonic() + seconds
    while not (told := listener.wait(seconds)):
        assert time.monotonic() < end, "nothing was told"
    return told


@pytest.mark.usefixtures("silent")
def test_only_who_is_listened_to_tells(store: SQLStore, listener: StreamListener) -> None:
    execution_id, lease = claimed(store)
    other, other_lease = claimed(store)
    assert not appended(store, lease, 1).is_watched
    follow(listener, execution_id)
    assert appended(store, lease, 2).is_watched
    assert not appended(store, other_lease, 1).is_watched
    changes = [Checkpoint(steps=(done(1),), stream=part_of(lease, seq, seq)) for seq in (2, 3)]
    changes += [Checkpoint(steps=(done(2),), stream=part_of(lease, 3, *range(3, 8))), Checkpoint(steps=(done(3),))]
    assert [store.checkpoint(execution_id, each, lease).is_watched for each in changes[1:]] == [True, True, False]
    (first, second) = store.checkpoint_each(
        [
            LeasedWrite(checkpoint=Checkpoint(steps=(done(4),), stream=part_of(lease, 8, 8)), lease=lease),
            LeasedWrite(checkpoint=Checkpoint(steps=(done(1),), stream=part_of(other_lease, 2, 2)), lease=other_lease),
        ]
    )
    assert (getattr(first, "is_watched", None), getattr(second, "is_watched", None)) == (True, False)
    with store.transaction(execution_id, lease) as transaction:
        change = Checkpoint(steps=(done(5),), stream=part_of(lease, 9, 9))
        assert transaction.checkpoint(change).is_watched
    assert values_of(store, execution_id) == [*range(1, 10)]
    assert listener.wait(0.05) == frozenset()  # none of these writes has told anybody
    store.tell_readers([execution_id, other])
    assert heard(listener) == {execution_id}
    store.send(execution_id, cancel())  # which tells by itself
    assert heard(listener) == {execution_id}
    listener.unfollow(execution_id)
    store.tell_readers([execution_id])
    assert listener.wait(0.05) == frozenset()
    store.tell_readers([])


def test_nobody_tells_for_a_reader_that_is_gone(postgresql_migrated_url: str, clock: ManualClock) -> None:
    with SQLStore(postgresql_migrated_url, clock=clock) as store:
        execution_id = create(store)
        lease = claim(store, execution_id, ttl=timedelta(hours=1)).lease
        listener = store.listen_streams()
        follow(listener, execution_id)
        listener.close()
        assert appended(store, lease, 1).is_watched
        clock.advance(timedelta(seconds=16))
        assert not appended(store, lease, 2).is_watched


def test_what_a_writer_did_not_tell_is_found(
    store: SQLStore, listener: StreamListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died behind its write. And what came before the listener's word arrived was told to nobody."""
    monkeypatch.setattr(listening, "_REPEAT_SECONDS", 0.1)
    execution_id, lease = claimed(store)
    append(store, lease, 1, "before")
    listener.follow([execution_id])
    assert heard(listener) == {execution_id}
    assert listener.wait(0.3) == frozenset()
    append(store, lease, 2, "silently")
    assert heard(listener) == {execution_id}
    assert listener.wait(0.3) == frozenset()


def test_a_follower_is_heard_while_another_thread_waits(store: SQLStore, listener: StreamListener) -> None:
    one, other = create(store), create(store)
    follow(listener, one)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(listener.wait, 60)
        listener.follow([other])
        assert waiting.result(20) == {other}
        waiting = pool.submit(listener.wait, 60)
        listener.close()
        assert waiting.result(20) == frozenset()
    assert listener.wait(60) == frozenset()
    listener.follow([one])
    assert sessions(store, "LISTEN%") == 0


def test_one_locked_row_keeps_neither_other_readers_waiting_nor_their_writers(
    store: SQLStore, listener: StreamListener
) -> None:
    locked, lease = claimed(store)
    free, free_lease = claimed(store)
    with psycopg.connect(driver_url(store._settings.url.render_as_string(hide_password=False))) as holder:
        holder.execute(f"{row_of(locked)} FOR UPDATE")
        listener.follow([locked, free])
        for _ in range(3):  # it is named again and again, until it is sure to be told of
            assert locked in heard(listener)
        assert appended(store, free_lease, 1).is_watched
    while locked in listener.wait(0.3):
        pass
    assert appended(store, lease, 1).is_watched


@pytest.mark.usefixtures("silent")
def test_many_are_told_at_once(store: SQLStore, listener: StreamListener) -> None:
    ids = [create(store) for _ in range(3)]
    follow(listener, *ids)
    others = [f"{'é' * 200}{number}" for number in range(1000)]
    notes = list(_notes([*others, *ids]))
    assert max(len(note.encode()) for note in notes) < 8000
    store.tell_readers([*others, *ids])
    told: set[str] = set()
    while told != set(ids):
        told |= heard(listener)


def sessions(store: SQLStore, query: str) -> int:
    """How many sessions of the server have run such a statement last."""
    statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE :query"
    ((count,),) = store._database.run(statement, {"query": query})
    return int(count)


def test_a_server_that_restarts_is_listened_to_again(postgresql_server: PostgresServer) -> None:
    with SQLStore(postgresql_server.url) as store:
        store.migrate()
        execution_id = create(store)
        lease = claim(store, execution_id, ttl=timedelta(hours=1)).lease
        listener = store.listen_streams()
        follow(listener, execution_id)
        for kill in (postgresql_server.kill, postgresql_server.stop):
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(listener.wait, 60)
                kill()
                with pytest.raises(StoreUnavailable):
                    waiting.result(30)
            with pytest.raises(StoreUnavailable):
                listener.wait(1)
            postgresql_server.start()
            assert heard(listener) == {execution_id}  # something may have been missed
            assert appended(store, lease, 1 if kill == postgresql_server.kill else 2).is_watched
            store.tell_readers([execution_id])
            assert heard(listener) == {execution_id}
        assert values_of(store, execution_id) == [1, 2]
        listener.close()


def test_through_a_pooler_it_polls(pgbouncer: PgBouncer) -> None:
    with SQLStore(pgbouncer.url) as store:
        execution_id, lease = claimed(store)
        listener = store.listen_streams()
        assert type(listener) is PollingListener
        listener.follow([execution_id])
        assert not appended(store, lease, 1).is_watched
        assert heard(listener) == {execution_id}
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),), stream=part_of(lease, 2, 2)), lease)
        store.send(execution_id, cancel())
        assert values_of(store, execution_id) == [1, 2, "cancel_requested"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_leaves_the_connection_to_its_parent(store: SQLStore, listener: StreamListener) -> None:
    execution_id, lease = claimed(store)
    follow(listener, execution_id)
    child = os.fork()
    if child == 0:
        try:
            own = heard(listener) == {execution_id}  # on a connection of its own
            listener.close()
            os._exit(0 if own else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    appended(store, lease, 1)
    store.tell_readers([execution_id])
    assert heard(listener) == {execution_id}


# -- order -------------------------------------------------------------------------------------------------------------


def test_events_that_waited_for_the_row_come_behind_those_they_waited_for(store: SQLStore) -> None:
    execution_id, lease = claimed(store)
    append(store, lease, 1, "a")
    in_order(
        store,
        lambda: store.send(execution_id, cancel()),
        lambda: append(store, lease, 2, "b"),
        lambda: store.checkpoint(execution_id, Checkpoint(steps=(done(1),), stream=part_of(lease, 2, "b", "c")), lease),
        lambda: append(store, lease, 2, "b", "c", "d"),
        lambda: store.trim_stream(execution_id, 0),
        lock=row_of(execution_id),
    )
    page = store.read_events(execution_id)
    assert page is not None
    # The trim has removed what it saw when it began.
    assert values_of(store, execution_id) == ["cancel_requested", "b", "c", "d"]
    assert page.last == page.events[-1].number
    assert page.trimmed_to < (page.events[0].number or 0)


def test_who_reads_on_misses_nothing_that_others_append(store: SQLStore) -> None:
    execution_id, lease = claimed(store)
    over = threading.Event()

    def speak(number: int) -> None:
        for count in range(15):
            store.send(execution_id, event([number, count], key="news"))

    def read() -> list[int]:
        seen: list[int] = []
        while True:
            is_last = over.is_set()
            page = store.read_events(execution_id, seen[-1] if seen else 0)
            assert page is not None
            seen += [event.number or 0 for event in page.events]
            if is_last and not page.events:
                return seen

    with ThreadPoolExecutor(4) as pool:
        reading, speaking = pool.submit(read), pool.map(speak, range(2))
        try:
            for seq in range(1, 16):
                append(store, lease, seq, seq)
            assert [*speaking] == [None, None]
        finally:
            over.set()
        seen = reading.result(60)
    page = store.read_events(execution_id, limit=1000)
    assert page is not None
    assert seen == [event.number for event in page.events]
    assert len(seen) == 45


def test_several_rows_are_locked_in_one_order(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers of the same executions in opposite orders do not wait for each other."""
    leases = sorted([claimed(store)[1] for _ in range(6)], key=lambda lease: lease.execution_id)
    failed: list[object] = []

    def write(ordered: list[Lease]) -> None:
        for seq in range(1, 16):
            answers = store.append_events([StreamAppend(lease=each, part=part_of(each, seq, seq)) for each in ordered])
            failed.extend(answer for answer in answers if not answer.accepted)

    with ThreadPoolExecutor(2) as pool:
        for call in [pool.submit(write, leases), pool.submit(write, leases[::-1])]:
            call.result(60)
    assert failed == []
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert store._database.run(deadlocks, {}) == [(0,)]
    assert all(values_of(store, lease.execution_id) == [*range(1, 16)] for lease in leases)

    database, written = store._database, []
    assert isinstance(database, PostgreSQLDatabase)
    run_together = database.run_together

    def noted(statements: Sequence[tuple[str, Params]]) -> list[list[Row]]:
        written.extend(params["execution_id"] for _, params in statements)
        return run_together(statements)

    monkeypatch.setattr(database, "run_together", noted)
    steps = {lease.execution_id: done(1, output=number) for number, lease in enumerate(leases)}
    writes = [
        LeasedWrite(checkpoint=Checkpoint(steps=(steps[each.execution_id],)), lease=each) for each in leases[::-1]
    ]
    for _ in range(2):
        assert [type(outcome) for outcome in store.checkpoint_each(writes)] == [Checkpointed] * 6
    assert written[:6] == [lease.execution_id for lease in leases]
    assert {each: store.get_steps(each) for each in steps} == {each: (step,) for each, step in steps.items()}
