"""What only the Redis store promises of executions that are over: when they expire, and what `find_ended` costs."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.errors import InvalidRecord
from agent_statestore.query import Query
from agent_statestore.redis import RedisStore
from agent_statestore.redis.keys import PARTITIONS
from agent_statestore.states import AgentState
from agent_statestore.testing.kit.builders import BOOM, TTL, claimed, create, done, summary_of
from agent_statestore.testing.kit.stories import export_of

LATER = datetime(2100, 1, 1, tzinfo=UTC)
DAY_MS = 86_400_000
OVER = [
    (AgentState.COMPLETED, DAY_MS),
    (AgentState.CANCELLED, DAY_MS),
    (AgentState.FAILED, 7 * DAY_MS),
]
MOMENT = timedelta(milliseconds=1)


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def store(redis_url: str, redis_prefix: str) -> Iterator[RedisStore]:
    with RedisStore(redis_url, key_prefix=redis_prefix) as store:
        yield store
        store.clear()


def over(store: RedisStore, state: AgentState = AgentState.COMPLETED) -> str:
    """An execution that is over, with steps."""
    execution_id = create(store, session_id="s")
    store.checkpoint(execution_id, Checkpoint(steps=(done(1),), working_memory={"a": 1}, state=state))
    return execution_id


def ttls(raw: redis.Redis, store: RedisStore, execution_id: str) -> set[int]:
    """The remaining milliseconds (-1: none) of each key that an execution has."""
    keys = [key for key in store._keys.own(execution_id) if raw.exists(key)]
    assert len(keys) == 4  # header, steps, memory, audit trail
    return {raw.pttl(key) for key in keys}


def drop(store: RedisStore, execution_id: str) -> bool:
    """Lets go of an execution as an archiver does that has just copied it."""
    return store.drop_archived(execution_id, export_of(store, execution_id).place)


def wait_until_gone(store: RedisStore, execution_id: str) -> None:
    deadline = time.monotonic() + 10
    while store.get_summary(execution_id) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


class TestHolding:
    @pytest.mark.parametrize(("state", "lifetime_ms"), OVER)
    def test_what_is_held_lives_until_it_is_dropped_and_then_for_its_time(
        self, store: RedisStore, raw: redis.Redis, state: AgentState, lifetime_ms: int
    ) -> None:
        store.hold_finished()
        execution_id = over(store, state)
        assert ttls(raw, store, execution_id) == {-1}
        assert store.find_ended(LATER) == (execution_id,)
        assert drop(store, execution_id) is True
        assert {lifetime_ms - 60_000 < ttl <= lifetime_ms for ttl in ttls(raw, store, execution_id)} == {True}
        assert store.find_ended(LATER) == ()
        assert [item.execution_id for item in store.find(Query(session_id="s", states=[state])).items] == [execution_id]

    def test_a_repetition_does_not_begin_the_time_anew(self, store: RedisStore, raw: redis.Redis) -> None:
        store.hold_finished()
        execution_id = over(store)
        drop(store, execution_id)
        for key in store._keys.own(execution_id):
            raw.pexpire(key, 50_000)
        assert drop(store, execution_id) is True
        assert max(ttls(raw, store, execution_id)) <= 50_000

    def test_what_was_dropped_and_is_released_is_active_again(self, store: RedisStore, raw: redis.Redis) -> None:
        store.hold_finished()
        execution_id = over(store, AgentState.FAILED)
        drop(store, execution_id)
        place = export_of(store, execution_id).place
        store.requeue(execution_id)
        assert ttls(raw, store, execution_id) == {-1}
        assert store.find_ended(LATER) == ()
        assert store.drop_archived(execution_id, place) is False
        assert drop(store, execution_id) is False
        assert store.tidy() == 0
        assert summary_of(store, execution_id).ended_at is None
        store.update_state(execution_id, AgentState.COMPLETED)
        assert ttls(raw, store, execution_id) == {-1}
        assert store.find_ended(LATER) == (execution_id,)

    def test_what_is_released_before_it_was_dropped_is_not_found_any_more(self, store: RedisStore) -> None:
        store.hold_finished()
        execution_id = over(store, AgentState.FAILED)
        store.requeue(execution_id)
        assert store.find_ended(LATER) == ()
        store.update_state(execution_id, AgentState.CANCELLED)
        assert store.find_ended(LATER, states=[AgentState.FAILED]) == ()
        assert store.find_ended(LATER) == (execution_id,)

    def test_without_holding_the_end_begins_the_time_and_dropping_begins_it_anew(
        self, store: RedisStore, raw: redis.Redis
    ) -> None:
        execution_id = over(store)
        for key in store._keys.own(execution_id):
            raw.pexpire(key, 50_000)
        assert drop(store, execution_id) is True
        assert min(ttls(raw, store, execution_id)) > 60_000

    def test_holding_ends_the_sliding_time_of_what_was_working(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix, default_ttl=timedelta(hours=1)) as store:
            store.hold_finished()
            execution_id, lease = claimed(store)
            change = Checkpoint(steps=(done(1),), working_memory={"a": 1}, state=AgentState.COMPLETED)
            store.checkpoint(execution_id, change, lease)
            assert ttls(raw, store, execution_id) == {-1}
            store.clear()

    def test_a_time_to_live_of_none_is_none_after_dropping(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix, completed_ttl=None) as store:
            store.hold_finished()
            kept, dropped = over(store, AgentState.FAILED), over(store)
            drop(store, kept)
            with store.watch(dropped) as watch:
                assert drop(store, dropped) is True
                assert watch.wait(10) is True
            assert store.get_context(dropped) is None
            assert store.drop_archived(dropped, (1, 0, 2)) is False
            assert [item.execution_id for item in store.find(Query(session_id="s")).items] == [kept]
            assert store.tidy() == 1
            assert not [key for key in raw.scan_iter(f"{redis_prefix}*") if dropped in key]
            assert store.clear() == 1
            assert not list(raw.scan_iter(f"{redis_prefix}*"))

    def test_the_key_of_what_expired_after_dropping_is_free(self, redis_url: str, redis_prefix: str) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix, completed_ttl=MOMENT) as store:
            store.hold_finished()
            execution_id = create(store, idempotency_key="k")
            store.update_state(execution_id, AgentState.COMPLETED)
            assert create(store, idempotency_key="k") == execution_id
            drop(store, execution_id)
            wait_until_gone(store, execution_id)
            assert store.get_by_idempotency_key("agent", "k") is None
            successor = create(store, idempotency_key="k")
            assert successor != execution_id
            assert store.tidy() == 1
            found = store.get_by_idempotency_key("agent", "k")
            assert found is not None
            assert found.execution_id == successor
            store.clear()

    def test_restored_executions_follow_the_same_rule(self, store: RedisStore, raw: redis.Redis) -> None:
        execution_id = over(store)
        exported = export_of(store, execution_id)
        for held in (False, True):
            store.purge(execution_id)
            if held:
                store.hold_finished()
            assert store.restore(exported) is True
            assert (ttls(raw, store, execution_id) == {-1}) is held
            assert store.find_ended(LATER) == (execution_id,)
        store.purge(execution_id)
        active = create(store)
        store.checkpoint(active, Checkpoint(steps=(done(1),), working_memory={"a": 1}))
        exported = export_of(store, active)
        store.purge(active)
        store.restore(exported)
        assert ttls(raw, store, active) == {-1}
        assert store.find_ended(LATER) == ()


class TestFindEnded:
    def test_what_has_expired_is_not_found_and_leaves_room_for_what_has_not(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix, completed_ttl=MOMENT) as store:
            gone = [over(store) for _ in range(40)]
            kept = [over(store, AgentState.FAILED) for _ in range(3)]
            for execution_id in gone:
                wait_until_gone(store, execution_id)
            assert store.find_ended(LATER, limit=2) == tuple(kept[:2])
            assert store.find_ended(LATER, states=[AgentState.COMPLETED]) == ()
            assert store.find_ended(LATER, states=[AgentState.IDLE]) == store.find_ended(LATER, states=[]) == ()
            ended = [key for partition in range(PARTITIONS) for key in store._keys.ended(partition)]
            assert sum(raw.zcard(key) for key in ended) == len(kept)
            assert store.tidy() == len(gone)
            store.clear()

    def test_one_round_trip_whatever_there_is(self, store: RedisStore, raw: redis.Redis) -> None:
        for _ in range(40):
            over(store)
        create(store)
        store.find_ended(LATER)
        before = raw.info("commandstats")["cmdstat_evalsha"]["calls"]
        assert len(store.find_ended(LATER, limit=5)) == 5
        assert raw.info("commandstats")["cmdstat_evalsha"]["calls"] - before == 1

    def test_the_announcement_of_an_end_comes_first(self, store: RedisStore) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(state=AgentState.FAILED, error=BOOM, announce_within=TTL), lease)
        assert store.find_ended(LATER) == ()
        assert drop(store, execution_id) is False
        store.settle(execution_id)
        assert store.find_ended(LATER) == (execution_id,)
        assert drop(store, execution_id) is True
        store.settle(execution_id)
        assert store.find_ended(LATER) == ()


class TestDeleting:
    @pytest.mark.parametrize("refused", [{"by": "a\0"}, {"reason": 1}])
    def test_who_and_why_are_checked_although_nothing_keeps_them(
        self, store: RedisStore, refused: dict[str, str]
    ) -> None:
        execution_id = over(store)
        with pytest.raises(InvalidRecord, match=next(iter(refused))):
            store.delete_context(execution_id, **refused)
        assert store.get_audit(execution_id) != ()
        assert store.delete_context(execution_id, by="ada", reason="because") is True
        assert store.get_audit(execution_id) == ()
        assert store.find_deleted(LATER) == ()
        assert store.purge(execution_id) is False
