"""Each field of a header damaged in turn, past the store: the one execution is damaged, and no other notices it."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from agent_statestore import Checkpoint, ManualClock, Store, open_store
from agent_statestore.codec import HEADER_FIELDS
from agent_statestore.errors import ExecutionUnreadable, FormatTooNew, StoreError, StoreUnavailable
from agent_statestore.redis import RedisStore
from agent_statestore.testing.kit.builders import GRACE, TTL, create, done

GARBAGE = "\\{garbage"
Spoil = Callable[[str, str, str | None], None]

# The columns of a SQL database are typed; SQLite's are not.
FIELDS = [name for name in HEADER_FIELDS if name not in ("execution_id", "due_us", "created_us")]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def redis_store(redis_url: str, redis_prefix: str, clock: ManualClock) -> Iterator[RedisStore]:
    with RedisStore(redis_url, key_prefix=redis_prefix, clock=clock) as store:
        yield store
        store.clear()


@pytest.fixture
def sqlite_store(tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/s.db", clock=clock) as store:
        yield store


def in_redis(store: RedisStore) -> Spoil:
    def spoil(execution_id: str, field: str, value: str | None) -> None:
        header = store._keys.header(execution_id)
        store._connection.send_each([("HDEL", header, field) if value is None else ("HSET", header, field, value)])

    return spoil


def in_sqlite(store: Store) -> Spoil:
    def spoil(execution_id: str, field: str, value: str | None) -> None:
        store._database.change(  # type: ignore[attr-defined]
            f"UPDATE agent_contexts SET {field} = :value WHERE execution_id = :id",
            {"value": value, "id": execution_id},
        )

    return spoil


def unhurt(store: Store, clock: ManualClock, spoil: Spoil, field: str, value: str | None) -> None:
    """Damage one of two executions, and do with both what workers and people do."""
    bad, good = create(store), create(store)
    spoil(bad, field, value)
    clock.advance(timedelta(minutes=10))
    assert good in {item.execution_id for item in store.find().items}
    assert {item.execution_id for item in store.find().items} <= {bad, good}
    due = store.take_due(10, GRACE)
    assert good in {one.execution_id for one in due}
    store.mark_rung([(one.execution_id, one.token) for one in due], TTL, timedelta(hours=1))
    assert store.take_due(10, GRACE) == ()
    store.stats()
    for read in (store.get_summary, store.get_context, lambda execution_id: store.claim(execution_id, "host:1", TTL)):
        _done_or_refused(lambda read=read: read(bad))  # type: ignore[misc]
    claim = store.claim(good, "host:1", TTL)
    assert claim is not None
    summary = store.get_summary(good)
    assert summary is not None
    assert summary.owner == "host:1"
    assert store.renew([claim.lease], TTL).lost == frozenset()
    store.checkpoint(good, Checkpoint(steps=(done(1),)), claim.lease)
    assert store.purge(bad)
    assert [item.execution_id for item in store.find().items] == [good]


def _done_or_refused(call: Callable[[], object]) -> None:
    """Call, and accept that one execution is refused by name; a store that seems to be away would stop everything."""
    try:
        call()
    except StoreUnavailable:
        raise
    except (ExecutionUnreadable, FormatTooNew) as error:
        assert str(error)  # noqa: PT017 - of which error it is, nothing is known


@pytest.mark.parametrize("backend", ["redis", "sqlite"])
def test_no_damaged_field_of_a_header_stops_others(
    backend: str, request: pytest.FixtureRequest, clock: ManualClock, record_property: Callable[[str, object], None]
) -> None:
    store: Store = request.getfixturevalue(f"{backend}_store")
    spoil = in_redis(store) if isinstance(store, RedisStore) else in_sqlite(store)
    faults = []
    values = (GARBAGE, None, "99999999999999999999") if backend == "redis" else (GARBAGE,)
    cells = [(field, value) for field in FIELDS for value in values]
    for field, value in cells:
        try:
            unhurt(store, clock, spoil, field, value)
        except (AssertionError, StoreError, ValueError, TypeError, KeyError) as error:
            faults.append(f"{field}={value}: {type(error).__name__}: {str(error)[:150]}")
        store.clear()
    assert not faults, "\n".join(faults)
    record_property("attacked", ("damages", len(cells)))


def test_a_header_of_another_type_stops_no_other(redis_store: RedisStore, clock: ManualClock) -> None:
    def spoil(execution_id: str, field: str, value: str | None) -> None:
        header = redis_store._keys.header(execution_id)
        redis_store._connection.send_each([("DEL", header), ("SET", header, "text")])

    unhurt(redis_store, clock, spoil, "", None)
