"""A fail-over of PostgreSQL that leaves sessions open: the pool must not hand out what leads to the wrong server."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from agent_statestore import Checkpoint, Lease, StoreUnavailable
from agent_statestore.sql import SQLStore
from agent_statestore.sql.postgresql.connections import LimitedConnection
from agent_statestore.testing.kit.builders import claim, create, done
from tests.services.postgresql import PostgresServer
from tests.services.postgresql_standby import PostgresStandby, fence, url_of


@pytest.fixture
def standby(postgresql_server: PostgresServer) -> Iterator[PostgresStandby]:
    with SQLStore(postgresql_server.url) as store:
        store.migrate()
    with PostgresStandby(postgresql_server) as standby:
        yield standby.start()


def claimed_for_long(store: SQLStore) -> tuple[str, Lease]:
    execution_id = create(store)
    return execution_id, claim(store, execution_id, ttl=timedelta(hours=1)).lease


def sessions_of(store: SQLStore, number: int) -> list[LimitedConnection]:
    """Sessions of the store's pool, opened if need be; they lie idle in it again."""
    pool = store._database._pool  # type: ignore[attr-defined]
    taken = [pool.take() for _ in range(number)]
    for one in taken:
        one.__exit__()
    return [one.connection for one in taken]


def fill_pools(store: SQLStore, execution_id: str, lease: Lease) -> None:
    """Leaves several sessions open in both pools, that of the store's statements and that of transactional steps."""
    sessions_of(store, 3)
    with store.transaction(execution_id, lease), store.transaction(execution_id, lease):
        pass


def book(store: SQLStore, execution_id: str, lease: Lease, number: int) -> None:
    """A transactional step: a write of its own, and its checkpoint."""
    with store.transaction(execution_id, lease) as transaction:
        transaction.connection.execute(text("CREATE TABLE IF NOT EXISTS bookings (number int)"))
        transaction.connection.execute(text("INSERT INTO bookings VALUES (1)"))
        transaction.checkpoint(Checkpoint(steps=(done(number),)))


def test_a_session_that_takes_no_writes_is_given_up_with_all_others(postgresql_migrated_url: str) -> None:
    with SQLStore(postgresql_migrated_url) as store:
        execution_id, lease = claimed_for_long(store)
        fill_pools(store, execution_id, lease)
        for connection in sessions_of(store, 3):
            connection.execute("SET default_transaction_read_only = on")
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        for connection in sessions_of(store, 3):
            assert connection.execute("SHOW default_transaction_read_only").fetchone() == ("off",)

        engine = store._transactions._engine
        assert engine is not None
        with engine.connect() as first, engine.connect() as second:
            for one in (first, second):
                one.execute(text("SET default_transaction_read_only = on"))
                one.commit()
        with pytest.raises(StoreUnavailable, match="read-only"):
            book(store, execution_id, lease, 2)
        book(store, execution_id, lease, 2)
        assert len(store.get_steps(execution_id)) == 2


def test_who_only_reads_does_not_stay_on_a_server_that_takes_no_writes(postgresql_migrated_url: str) -> None:
    """It would see an old state for ever, as nothing that it does is refused."""
    with SQLStore(f"{postgresql_migrated_url}?pool_size=1&max_overflow=0") as store:
        execution_id = create(store)
        (old,) = sessions_of(store, 1)
        assert store.get_summary(execution_id) is not None
        assert sessions_of(store, 1) == [old]
        old.execute("SET default_transaction_read_only = on")
        assert store.get_summary(execution_id) is not None
        assert store.get_summary(execution_id) is not None
        (new,) = sessions_of(store, 1)
        assert new is not old
        assert old.closed


@pytest.mark.full
def test_no_session_on_the_wrong_server_is_used_again(
    postgresql_server: PostgresServer, standby: PostgresStandby
) -> None:
    _goes_back_to_the_primary(postgresql_server, standby)
    _goes_on_to_the_promoted_standby(postgresql_server, standby)


def _goes_back_to_the_primary(primary: PostgresServer, standby: PostgresStandby) -> None:
    """While the primary is away the pools find the standby, which is in recovery. Then the primary is back."""
    with SQLStore(url_of(primary, standby)) as store:
        execution_id, lease = claimed_for_long(store)
        standby.catch_up()
        primary.kill()
        assert store.get_steps(execution_id) == ()  # from the standby
        fill_pools(store, execution_id, lease)
        with pytest.raises(StoreUnavailable, match="read-only"):
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        with pytest.raises(StoreUnavailable, match="read-only"):
            book(store, execution_id, lease, 1)
        primary.start()
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        book(store, execution_id, lease, 2)
        assert len(store.get_steps(execution_id)) == 2


def _goes_on_to_the_promoted_standby(primary: PostgresServer, standby: PostgresStandby) -> None:
    """The primary refuses writes and keeps its sessions. The standby is promoted."""
    with SQLStore(url_of(primary, standby, options="&target_session_attrs=read-write")) as store:
        execution_id, lease = claimed_for_long(store)
        fill_pools(store, execution_id, lease)
        standby.catch_up()
        fence(primary)
        with pytest.raises(StoreUnavailable):  # nobody takes writes yet
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        standby.promote()
        # Nothing was written, so that the store asks the next server by itself.
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        with pytest.raises(StoreUnavailable, match="read-only"):
            book(store, execution_id, lease, 2)
        book(store, execution_id, lease, 2)
        primary.kill()
        for _ in range(5):  # no session of the old primary is left
            assert len(store.get_steps(execution_id)) == 2
