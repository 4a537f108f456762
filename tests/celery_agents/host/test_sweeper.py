"""The sweeper rings the bells of what is due, and of nothing else."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, FormatTooNew, ManualClock, open_store
from celery_agents import Agent, Run, agent, enqueue, get_execution
from celery_agents.host.bell import ring
from celery_agents.host.owner import owner_of
from celery_agents.host.recovery.sweeper import Sweeper
from celery_agents.host.runtime import Runtime
from celery_agents.lifecycle.ends import Ends
from tests.celery_agents.client.test_client import published


def one_step(run: Run, input: Any) -> Any:
    return run.step("one", lambda: input)


@pytest.fixture
def simple(runtime: Runtime) -> Agent:
    return agent(registry=runtime.registry)(one_step)


@pytest.fixture
def clock(runtime: Runtime) -> ManualClock:
    """Puts the runtime's store on a clock that stands still."""
    clock = ManualClock(datetime.now(UTC))
    runtime._store = open_store(runtime.settings.store_url, clock=clock)
    return clock


def rung_ids(runtime: Runtime) -> list[str]:
    return [message.headers["id"] for message in published(runtime)]


def test_an_execution_that_was_created_but_never_published_is_rung_after_the_grace(
    runtime: Runtime, simple: Agent, clock: ManualClock
) -> None:
    execution_id = runtime.store.create_context(simple.name, 1).execution_id
    sweeper = Sweeper(runtime)
    assert sweeper.sweep().rung == 0
    clock.advance(timedelta(seconds=runtime.settings.publish_grace_seconds))
    assert sweeper.sweep().rung == 1
    assert rung_ids(runtime) == [execution_id]


def test_a_published_execution_is_rung_again_at_doubling_intervals(
    runtime: Runtime, simple: Agent, clock: ManualClock
) -> None:
    enqueue(simple, 1, runtime=runtime)
    sweeper = Sweeper(runtime)
    intervals = []
    waited = 0
    while len(intervals) < 4:
        clock.advance(timedelta(seconds=5))
        waited += 5
        if sweeper.sweep().rung:
            intervals.append(waited)
            waited = 0
    assert intervals == [15, 30, 60, 120]


def test_an_abandoned_execution_is_rung_when_its_lease_is_over(
    runtime: Runtime, simple: Agent, clock: ManualClock
) -> None:
    execution = enqueue(simple, 1, runtime=runtime)
    published(runtime)
    assert runtime.store.claim(execution.id, "elsewhere/1/0", runtime.settings.lease) is not None
    sweeper = Sweeper(runtime)
    clock.advance(timedelta(seconds=14))
    assert sweeper.sweep().rung == 0
    clock.advance(timedelta(seconds=1))
    assert sweeper.sweep().rung == 1
    assert rung_ids(runtime) == [execution.id]


def test_a_paused_and_a_finished_execution_are_left_alone(runtime: Runtime, clock: ManualClock) -> None:
    def asks(run: Run, input: bool) -> Any:
        return run.ask("?") if input else None

    made = agent(registry=runtime.registry)(asks)
    for value in (True, False):
        execution = enqueue(made, value, runtime=runtime)
        runtime.executor.execute(execution.id, "host/1/0")
        runtime.store.settle(execution.id)
    published(runtime)
    clock.advance(timedelta(weeks=3))
    assert Sweeper(runtime).sweep().rung == 0


def test_an_end_that_nobody_announced_is_rung_once_more(runtime: Runtime, simple: Agent, clock: ManualClock) -> None:
    execution = enqueue(simple, 1, runtime=runtime)
    published(runtime)
    runtime.executor.execute(execution.id, "host/1/0")  # and the process dies before it tells the result backend
    clock.advance(runtime.settings.lease)
    assert Sweeper(runtime).sweep().rung == 1
    assert rung_ids(runtime) == [execution.id]


def test_an_end_that_nobody_ever_announces_is_not_rung_for_ever(
    runtime: Runtime, simple: Agent, clock: ManualClock
) -> None:
    execution = enqueue(simple, 1, runtime=runtime)
    runtime.executor.execute(execution.id, "host/1/0")
    sweeper, rung = Sweeper(runtime), 0
    for _ in range(50):
        clock.advance(timedelta(hours=2))
        rung += sweeper.sweep().rung
    assert rung == 12
    assert execution.summary().due_at is None


def test_the_lease_of_a_dead_process_on_this_host_is_broken_at_once(runtime: Runtime, simple: Agent) -> None:
    execution = enqueue(simple, 1, runtime=runtime)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = owner_of(child.pid)
    assert runtime.store.claim(execution.id, owner, runtime.settings.lease) is not None
    sweeper = Sweeper(runtime)
    assert sweeper.break_dead_leases() == 0
    child.kill()
    child.communicate()
    assert sweeper.break_dead_leases() == 1
    published(runtime)
    assert sweeper.sweep().rung == 1
    assert execution.summary().crashes == 1


def test_a_revoked_task_is_a_cancelled_execution(runtime: Runtime, simple: Agent) -> None:
    execution = enqueue(simple, 1, runtime=runtime)
    sweeper = Sweeper(runtime)
    assert sweeper.cancel_revoked({execution.id, "the id of somebody else's task"}) == 1
    assert execution.state is AgentState.CANCELLED
    assert sweeper.cancel_revoked({execution.id}) == 0


def test_a_revoke_after_another_end_is_void(runtime: Runtime) -> None:
    def fails(run: Run, input: None) -> None:
        raise LookupError

    execution = enqueue(agent(registry=runtime.registry)(fails), runtime=runtime)
    runtime.executor.execute(execution.id, "host/1/0")
    sweeper = Sweeper(runtime)
    assert sweeper.cancel_revoked({execution.id}) == 0
    assert sweeper.void_revokes == {execution.id}


@pytest.mark.parametrize("odd", [7, "\ud800", "a\x00b", None])
def test_an_odd_id_among_the_revoked_does_not_keep_the_others_waiting(
    runtime: Runtime, simple: Agent, odd: Any
) -> None:
    execution = enqueue(simple, 1, runtime=runtime)
    assert Sweeper(runtime).cancel_revoked({odd, execution.id}) == 1
    assert execution.state is AgentState.CANCELLED


def test_an_execution_that_cannot_be_swept_does_not_keep_the_others_waiting(
    runtime: Runtime, simple: Agent, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celery_agents.lifecycle.cancel import request_cancel
    from celery_agents.lifecycle.decider import Decider

    newer = enqueue(simple, 1, runtime=runtime)
    request_cancel(runtime.store, newer.id, by=Decider())
    clock.advance(timedelta(minutes=1))
    healthy = runtime.store.create_context(simple.name, 1, first_ring=timedelta(0)).execution_id
    published(runtime)

    def too_new(*_: Any) -> bool:
        raise FormatTooNew("execution", 2, 1)

    monkeypatch.setattr(Ends, "finish_cancel", too_new)
    Sweeper(runtime).sweep()
    assert rung_ids(runtime) == [healthy]


def test_a_cancel_whose_sender_died_is_finished_by_the_sweeper(runtime: Runtime, simple: Agent) -> None:
    from celery_agents.lifecycle.cancel import request_cancel
    from celery_agents.lifecycle.decider import Decider

    execution = enqueue(simple, 1, runtime=runtime)
    request_cancel(runtime.store, execution.id, by=Decider())
    assert execution.state is AgentState.IDLE
    assert Sweeper(runtime).sweep().cancelled == 1
    assert execution.state is AgentState.CANCELLED


def test_a_broker_that_is_away_costs_no_ring(
    runtime: Runtime, simple: Agent, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = runtime.store.create_context(simple.name, 1).execution_id
    clock.advance(timedelta(minutes=1))
    with monkeypatch.context() as patch:
        patch.setattr(runtime.app, "send_task", _refuse)
        patch.setattr("celery_agents.host.bell.broker_answers", lambda _: False)
        assert Sweeper(runtime).sweep().rung == 0
    clock.advance(timedelta(seconds=runtime.settings.publish_grace_seconds))
    assert Sweeper(runtime).sweep().rung == 1
    assert get_execution(execution_id, runtime=runtime).summary().due_at is not None


def _refuse(*_: Any, **__: Any) -> None:
    raise ConnectionRefusedError("no broker")


def test_ringing_says_whether_it_reached_the_broker(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.app, "send_task", _refuse)
    assert not ring(runtime.app, runtime.settings, execution_id="x", agent_id="a", queue=None, priority=None)
