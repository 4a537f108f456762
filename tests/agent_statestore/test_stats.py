"""Statistics, against numbers that are easy to check by hand."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from agent_statestore import (
    Action,
    AgentState,
    AgentStep,
    AuditEvent,
    Checkpoint,
    ErrorInfo,
    JSONValue,
    ManualClock,
    Result,
    StepChanges,
    Store,
    open_store,
)
from agent_statestore.clock import from_us
from agent_statestore.sql import SQLStore
from agent_statestore.testing.kit.builders import AT, BOOM, answer, claim, claimed, done, event, pause
from agent_statestore.testing.kit.matrix import cells

SECOND = timedelta(seconds=1)


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb", "redis"])
def store(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[Store]:
    """Each backend that reads its statistics in a way of its own."""
    urls = {
        "memory": lambda: "memory://",
        "sqlite": lambda: f"sqlite:///{tmp_path}/executions.db",
        "postgresql": lambda: request.getfixturevalue("postgresql_migrated_url"),
        "mariadb": lambda: request.getfixturevalue("mariadb_database_url"),
        "redis": lambda: f"{request.getfixturevalue('redis_url')}?key_prefix={request.getfixturevalue('redis_prefix')}",
    }
    with open_store(urls[request.param](), clock=clock) as store:
        if isinstance(store, SQLStore):
            store.migrate()
        yield store


def _run(store: Store, clock: ManualClock, agent_id: str, seconds: int, *, fails: bool = False) -> str:
    """An execution of two steps of one name that takes so many seconds; the second one fails if it does."""
    execution_id = store.create_context(agent_id).execution_id
    lease = claim(store, execution_id, ttl=timedelta(hours=2)).lease
    for number in (1, 2):
        failure = ErrorInfo(type="builtins:OSError", message=f"no {seconds}") if fails and number == 2 else None
        step = AgentStep(
            step_number=number,
            name="work" if number == 1 else "work#2",
            action=Action(kind="step"),
            result=Result(success=failure is None, error=failure),
            timestamp=from_us(clock.now_us()),
            duration=number * seconds * SECOND,
        )
        store.checkpoint(execution_id, Checkpoint(steps=(step,)), lease)
    clock.advance(seconds * SECOND)
    end = (
        Checkpoint(state=AgentState.FAILED, error=ErrorInfo(type="builtins:OSError", message=f"no {seconds}"))
        if fails
        else Checkpoint(state=AgentState.COMPLETED)
    )
    store.checkpoint(execution_id, end, lease)
    return execution_id


def test_nothing_gives_empty_statistics(store: Store) -> None:
    stats = store.stats()
    assert (stats.agents, stats.steps, stats.failures, stats.waits) == ((), (), (), ())


def test_executions_steps_and_failures_by_agent(store: Store, clock: ManualClock) -> None:
    for seconds in range(1, 101):
        _run(store, clock, "fast", seconds)
    failed = [_run(store, clock, "bad", seconds, fails=True) for seconds in (1, 2)]
    store.create_context("bad")

    stats = store.stats()

    bad, fast = stats.agents
    assert (bad.agent_id, dict(bad.states)) == ("bad", {AgentState.FAILED: 2, AgentState.IDLE: 1})
    assert (fast.agent_id, dict(fast.states)) == ("fast", {AgentState.COMPLETED: 100})
    assert (fast.steps, bad.steps, fast.resumed) == (200, 4, 0)
    taken = fast.durations
    assert (taken.count, taken.p50, taken.p95, taken.p99, taken.longest) == (
        100,
        50 * SECOND,
        95 * SECOND,
        99 * SECOND,
        100 * SECOND,
    )
    # Both occurrences are one step; the second takes twice as long.
    work_of_bad, work_of_fast = stats.steps
    assert (work_of_fast.name, work_of_fast.failed, work_of_fast.durations.count) == ("work", 0, 200)
    assert work_of_fast.durations.longest == 200 * SECOND
    assert (work_of_bad.failed, work_of_bad.durations.count) == (2, 4)
    (failure,) = stats.failures
    assert (failure.agent_id, failure.error_type, failure.count) == ("bad", "builtins:OSError", 2)
    assert (failure.message, failure.execution_id) == ("no 2", failed[1])


def test_an_execution_that_was_claimed_twice_counts_as_resumed(store: Store, clock: ManualClock) -> None:
    execution_id = store.create_context("agent").execution_id
    claim(store, execution_id)
    clock.advance(timedelta(minutes=1))
    claim(store, execution_id)
    assert [agent.resumed for agent in store.stats().agents] == [1]


def test_waits_are_from_the_pause_to_the_decision(store: Store, clock: ManualClock) -> None:
    for minutes in (1, 2, None, None):
        execution_id = store.create_context("agent").execution_id
        lease = claim(store, execution_id).lease
        store.checkpoint(execution_id, pause(), lease)
        asked_at = from_us(clock.now_us())
        if minutes is not None:
            clock.advance(timedelta(minutes=minutes))
            store.send(execution_id, answer())
            clock.advance(timedelta(hours=1))  # the worker comes later: not the person's doing
            claim(store, execution_id)
    (wait,) = store.stats().waits
    assert (wait.agent_id, wait.state) == ("agent", AgentState.WAITING_FOR_INPUT)
    assert (wait.durations.count, wait.durations.p50) == (2, timedelta(minutes=1))
    assert wait.durations.longest == timedelta(minutes=2)
    assert (wait.waiting, wait.oldest) == (2, asked_at)


def test_an_event_that_somebody_sends_meanwhile_ends_no_wait(store: Store, clock: ManualClock) -> None:
    execution_id, lease = claimed(store)
    store.checkpoint(execution_id, pause(), lease)
    clock.advance(SECOND)
    store.send(execution_id, event())
    assert store.stats().waits[0].waiting == 1
    clock.advance(SECOND)
    store.send(execution_id, answer())
    (wait,) = store.stats().waits
    assert (wait.waiting, wait.durations.longest) == (0, 2 * SECOND)


def test_the_span_of_time_and_the_agent_are_heeded(store: Store, clock: ManualClock) -> None:
    store.create_context("one")
    clock.advance(SECOND)
    middle = from_us(clock.now_us())
    store.create_context("one")
    store.create_context("two")
    assert [sum(agent.states.values()) for agent in store.stats(since=middle).agents] == [1, 1]
    assert [sum(agent.states.values()) for agent in store.stats(until=middle).agents] == [1]
    assert [agent.agent_id for agent in store.stats(agent_id="two").agents] == ["two"]


def test_more_executions_than_one_page(store: Store) -> None:
    for _ in range(1201):
        store.create_context("agent")
    assert [dict(agent.states) for agent in store.stats().agents] == [{AgentState.IDLE: 1201}]


def _nested(levels: int) -> JSONValue:
    value: JSONValue = "x"
    for _ in range(levels):
        value = [value]
    return value


_AGAIN: JSONValue = {"a": 1, "took": 5, "result": {"ok": False}}


@cells(
    output={
        "nul": "\0",
        "quoted": '\\u0000","took":5,"result":{"ok":false}',
        "nested": _nested(40),
        "nested deeply": _nested(900),
        "same keys": {"a": _AGAIN},
        "same keys, long": [_AGAIN, "é" * 5000],
    },
    success={"success": True, "failure": False},
)
def test_no_output_of_a_step_breaks_or_changes_the_statistics(store: Store, output: JSONValue, success: bool) -> None:
    store.clear()
    execution_id = store.create_context("agent").execution_id
    lease = claim(store, execution_id).lease
    odd = AgentStep(
        step_number=1,
        name="odd",
        action=Action(kind="step", input=output),
        result=Result(success=success, output=output, error=None if success else BOOM),
        timestamp=AT,
        duration=3 * SECOND,
        changes=StepChanges(memory={"a": output}),
    )
    asked = AgentStep(
        step_number=2, name="asked", action=Action(kind="tool", input=output), timestamp=AT, duration=SECOND
    )
    store.checkpoint(execution_id, Checkpoint(steps=(odd, asked)), lease)

    steps = store.get_activity([execution_id])[execution_id].steps
    assert [(step.name, step.success, step.duration) for step in steps] == [
        ("odd", success, 3 * SECOND),
        ("asked", None, SECOND),
    ]
    (step,) = store.stats().steps
    assert (step.name, step.failed, step.durations.longest) == ("odd", int(not success), 3 * SECOND)


def test_of_a_deleted_execution_only_the_audit_trail_is_left(store: Store) -> None:
    if not store.keeps_deleted:
        pytest.skip("it purges what is deleted")
    (deleted, lease), (kept, kept_lease) = claimed(store), claimed(store)
    store.checkpoint(deleted, Checkpoint(steps=(done(1),)), lease)
    store.checkpoint(kept, Checkpoint(steps=(done(1),)), kept_lease)
    store.delete_context(deleted, by="ada", reason="asked to")

    activity = store.get_activity([deleted, kept])
    assert activity[deleted].steps == ()
    assert activity[deleted].audit == store.get_audit(deleted)
    assert [entry.event for entry in activity[deleted].audit] == [
        AuditEvent.CREATED,
        AuditEvent.CLAIMED,
        AuditEvent.DELETED,
    ]
    assert len(activity[kept].steps) == 1
