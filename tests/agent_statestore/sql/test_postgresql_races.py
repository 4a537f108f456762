"""Statements on PostgreSQL that begin before another writer of the row commits, and end after it.

What such a statement has seen of other tables, and of the row before its lock, is out of date by then.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from agent_statestore import AgentState, AuditEvent, Checkpoint, WaitKind
from agent_statestore.query import Query
from agent_statestore.sql import SQLStore
from agent_statestore.testing.kit.builders import TTL, claimed, done, event, message, wait
from tests.services.postgresql import driver_url


@pytest.fixture
def store(postgresql_migrated_url: str) -> Iterator[SQLStore]:
    with SQLStore(postgresql_migrated_url) as postgresql:
        yield postgresql


def in_order(store: SQLStore, *calls: Callable[[], Any], lock: str) -> list[Any]:
    """The outcomes of calls that begin one after the other while the row that `lock` selects is locked."""
    url = driver_url(store._settings.url.render_as_string(hide_password=False))
    with ThreadPoolExecutor(len(calls)) as pool:
        with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as watcher:
            assert holder.execute(f"{lock} FOR UPDATE").fetchone() is not None
            futures: list[Future[Any]] = []
            for call in calls:
                futures.append(pool.submit(call))
                _wait_until_blocked(watcher, len(futures))
        return [future.result() for future in futures]


def _wait_until_blocked(watcher: psycopg.Connection[Any], count: int) -> None:
    deadline = time.monotonic() + 20
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while watcher.execute(waiting).fetchone() != (count,):
        assert time.monotonic() < deadline, f"{count} statements should wait for the row"


def row_of(execution_id: str) -> str:
    return f"SELECT 1 FROM agent_contexts WHERE execution_id = '{execution_id}'"


SESSION = "SELECT 1 FROM agent_sessions WHERE session_id = 's'"


def sessions(store: SQLStore) -> list[str]:
    return [session_id for (session_id,) in store._database.run("SELECT session_id FROM agent_sessions", {})]


def in_session(store: SQLStore) -> str:
    return store.create_context("agent", session_id="s").execution_id


# -- checkpoints, signals, claims --------------------------------------------------------------------------------------


def test_a_pause_that_waited_for_the_row_sees_the_signal_written_meanwhile(store: SQLStore) -> None:
    """The order that loses wake-ups."""
    execution_id, lease = claimed(store)
    change = Checkpoint(state=AgentState.WAITING, waits=(wait(WaitKind.EVENT),))
    sent, paused = in_order(
        store,
        lambda: store.send(execution_id, event()),
        lambda: store.checkpoint(execution_id, change, lease),
        lock=row_of(execution_id),
    )
    assert sent.woke != paused.due_now
    assert store.claim(execution_id, "host:2", TTL) is not None


def test_a_claim_that_waited_for_the_row_returns_what_was_written_meanwhile(store: SQLStore) -> None:
    """Its first look at the steps does not see the step."""
    execution_id = store.create_context("agent").execution_id
    change = Checkpoint(steps=(done(1),), messages=(message("m"),), state=AgentState.USING_TOOL)
    _, claim = in_order(
        store,
        lambda: store.checkpoint(execution_id, change),
        lambda: store.claim(execution_id, "host:2", TTL),
        lock=row_of(execution_id),
    )
    assert claim is not None
    assert len(claim.context.steps) == claim.context.step_count == 1
    assert len(claim.context.memory.conversation_history) == 1
    assert claim.context == store.get_context(execution_id)
    assert store.get_audit(execution_id)[-1].from_state is AgentState.USING_TOOL


def test_a_value_that_is_set_while_forgetting_it_waits_is_forgotten(store: SQLStore) -> None:
    execution_id = store.create_context("agent").execution_id
    first, second = in_order(
        store,
        lambda: store.checkpoint(execution_id, Checkpoint(working_memory={"key": 1})),
        lambda: store.checkpoint(execution_id, Checkpoint(forget=("key",))),
        lock=row_of(execution_id),
    )
    assert (first.version, second.version) == (1, 2)
    assert store.get_working_memory(execution_id, "key") is None


def test_the_audit_trail_tells_of_the_state_that_was_overwritten(store: SQLStore) -> None:
    """And not of the one that the statement saw when it began."""
    execution_id = store.create_context("agent").execution_id
    states = [AgentState.THINKING, AgentState.USING_TOOL, AgentState.THINKING]
    in_order(
        store,
        *(lambda state=state: store.update_state(execution_id, state) for state in states),
        lock=row_of(execution_id),
    )
    trail = store.get_audit(execution_id)
    assert len(trail) >= 3
    assert [entry.position for entry in trail] == list(range(1, len(trail) + 1))
    assert [entry.from_state for entry in trail[1:]] == [entry.to_state for entry in trail[:-1]]


def test_a_deletion_that_waited_for_the_row_tells_who_held_the_lease(store: SQLStore) -> None:
    execution_id, lease = claimed(store)
    outcomes = in_order(
        store,
        lambda: store.renew([lease], TTL),
        lambda: store.delete_context(execution_id),
        lock=row_of(execution_id),
    )
    assert outcomes[1]
    assert store.get_audit(execution_id)[-1].worker == lease.owner
    execution_id, lease = claimed(store)
    assert in_order(
        store,
        lambda: store.release(lease),
        lambda: store.delete_context(execution_id),
        lock=row_of(execution_id),
    ) == [True, True]
    (*_, last) = store.get_audit(execution_id)
    assert (last.event, last.worker) == (AuditEvent.DELETED, None)


# -- copies ------------------------------------------------------------------------------------------------------------


def test_a_copy_that_is_written_to_while_a_newer_one_waits_is_replaced_as_a_whole(store: SQLStore) -> None:
    """The parts that were written meanwhile are not seen, and would stay."""
    execution_id = store.create_context("agent").execution_id
    older = store.export(execution_id)
    for number in (1, 2):
        change = Checkpoint(steps=(done(number),), messages=(message(number),), working_memory={"n": number})
        store.checkpoint(execution_id, change)
    store.send(execution_id, event("e1"))
    newer = store.export(execution_id)
    assert older is not None
    assert newer is not None
    assert store.purge(execution_id)
    assert store.restore(older)
    other = Checkpoint(working_memory={"other": 1})
    outcomes = in_order(
        store,
        lambda: store.checkpoint(execution_id, other),
        lambda: store.send(execution_id, event("e2")),
        lambda: store.restore(newer),
        lock=row_of(execution_id),
    )
    assert outcomes[2]
    restored = store.export(execution_id)
    assert restored is not None
    assert restored.digest == newer.digest


def test_an_archived_execution_that_was_released_meanwhile_is_not_dropped(store: SQLStore) -> None:
    execution_id = in_session(store)
    store.update_state(execution_id, AgentState.FAILED)
    archived = store.export(execution_id)
    assert archived is not None
    outcomes = in_order(
        store,
        lambda: store.requeue(execution_id),
        lambda: store.drop_archived(execution_id, archived.place),
        lock=row_of(execution_id),
    )
    assert outcomes[1] is False
    assert store.get_summary(execution_id) is not None
    assert sessions(store) == ["s"]


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_a_session_goes_with_its_last_executions_when_they_go_at_once(store: SQLStore) -> None:
    """Each statement has seen the execution that the other removes."""
    first, second, third = (in_session(store) for _ in range(3))
    store.delete_context(third)
    outcomes = in_order(
        store,
        lambda: store.purge(first),
        lambda: store.purge(second),
        lambda: store.purge(third),
        lambda: store.purge(third),
        lock=SESSION,
    )
    assert sorted(outcomes) == [False, True, True, True]
    assert sessions(store) == []


def test_a_session_stays_for_an_execution_that_is_created_while_its_last_one_goes(store: SQLStore) -> None:
    first = in_session(store)
    in_order(store, lambda: in_session(store), lambda: store.purge(first), lock=SESSION)
    assert sessions(store) == ["s"]
    (second,) = store.find(Query(session_id="s")).items
    in_order(store, lambda: store.purge(second.execution_id), lambda: in_session(store), lock=SESSION)
    assert sessions(store) == ["s"]
    assert len(store.find(Query(session_id="s")).items) == 1


def test_clearing_leaves_an_execution_that_is_created_meanwhile_its_session(store: SQLStore) -> None:
    in_session(store)
    in_order(store, lambda: in_session(store), store.clear, lock=SESSION)
    assert len(store.find().items) == 1
    assert sessions(store) == ["s"]
