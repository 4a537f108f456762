"""No zombie writes: an execution whose lease is lost stops silently and leaves no trace."""

import logging
import threading
import time
from datetime import timedelta

import pytest

from agent_statestore import AgentState, Checkpoint, Checkpointed, Lease, ManualClock, MemoryStore, StoreUnavailable
from celery_agents import Run
from celery_agents.engine.executor import Defaults
from celery_agents.engine.lease import LeaseKeeper
from celery_agents.engine.outcome import Ending
from tests.celery_agents.driving import LEASE, Calls, Engine


def test_a_zombie_writes_nothing_and_its_successor_is_untouched(engine: Engine, calls: Calls) -> None:
    def work(run: Run, input: None) -> list[int]:
        done = [run.step("one", calls, 1)]
        if run.attempt == 1:

            def freeze() -> int:
                engine.clock.advance(LEASE)  # the process stands still until its lease is over
                successor = engine.execute(run.execution_id)
                assert successor is not None
                assert successor.output == [1, 2]
                return 99

            run.memory["zombie"] = True
            run.say("assistant", "from the grave")
            run.step("two", freeze)
            calls("the zombie went on")
        else:
            done.append(run.step("two", calls, 2))
        return done

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.LOST
    assert calls.made == [1, 2]
    context = engine.context(execution_id)
    assert context.state is AgentState.COMPLETED
    assert context.output == [1, 2]
    assert [(step.name, step.attempt) for step in context.steps] == [("one", 1), ("two", 2)]
    assert context.memory.working_memory == {}
    assert context.memory.conversation_history == ()


class Unreachable(MemoryStore):
    """Fails a number of writes, the first ones after they have happened."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.failures = 0
        self.applied_before_failing = False

    def checkpoint(self, execution_id: str, checkpoint: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        if self.failures:
            self.failures -= 1
            if self.applied_before_failing:
                super().checkpoint(execution_id, checkpoint, lease)
            raise StoreUnavailable("test://", "connection lost")
        return super().checkpoint(execution_id, checkpoint, lease)


@pytest.mark.parametrize("applied", [False, True], ids=["before the write", "after the write"])
def test_a_store_that_is_away_for_a_moment_loses_and_repeats_nothing(
    engine: Engine, calls: Calls, caplog: pytest.LogCaptureFixture, applied: bool
) -> None:
    store = engine.store = Unreachable(engine.clock)
    store.applied_before_failing = applied

    def work(run: Run, input: None) -> str:
        store.failures = 2
        run.say("assistant", "once")
        run.step("one", calls, 1)
        store.failures = 1
        return "done"

    execution_id = engine.start(engine.agent(work))
    with caplog.at_level(logging.WARNING):
        outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "done"
    assert calls.made == [1]
    context = engine.context(execution_id)
    assert context.step_count == 1
    assert len(context.memory.conversation_history) == 1
    assert "could not be written" in caplog.text


def test_a_store_that_stays_away_ends_the_claim_without_success(engine: Engine, calls: Calls) -> None:
    store = engine.store = Unreachable(engine.clock)
    engine.limits = Defaults(lease=timedelta(seconds=0.5))

    def work(run: Run, input: None) -> str:
        store.failures = 10_000
        run.step("one", calls, 1)
        calls("went on")
        return "done"

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.LOST
    assert calls.made == [1]
    assert engine.context(execution_id).step_count == 0


def test_the_keeper_renews_leases_until_they_are_given_up() -> None:
    store = MemoryStore()
    keeper = LeaseKeeper(store)
    ttl = timedelta(seconds=0.6)
    first, second = (store.create_context("a").execution_id for _ in range(2))
    requested_at = time.monotonic()
    one, two = store.claim(first, "me", ttl), store.claim(second, "me", ttl)
    assert one is not None
    assert two is not None
    with keeper.keep(one.lease, requested_at) as held, keeper.keep(two.lease, requested_at):
        deadline = held.deadline
        _wait_until(lambda: held.deadline > deadline + ttl.total_seconds() * 1.5)
        assert not held.is_lost
        assert store.claim(first, "other", ttl) is None
        assert store.claim(second, "other", ttl) is None
    _wait_until(lambda: store.claim(first, "other", ttl) is not None)


def test_the_keeper_tells_of_a_lost_lease_and_of_a_cancel(engine: Engine) -> None:
    store = MemoryStore()
    keeper = LeaseKeeper(store)
    ttl = timedelta(seconds=0.6)
    lost, cancelled = (store.create_context("a").execution_id for _ in range(2))
    claims = [store.claim(one, "me", ttl) for one in (lost, cancelled)]
    requested_at = time.monotonic()
    assert claims[0] is not None
    assert claims[1] is not None
    engine.store = store
    with keeper.keep(claims[0].lease, requested_at) as first, keeper.keep(claims[1].lease, requested_at) as second:
        store.release(claims[0].lease)
        engine.cancel(cancelled)
        _wait_until(lambda: first.is_lost and second.cancel_requested)
        assert not first.cancel_requested
        assert not second.is_lost


def test_waiting_under_a_lease_ends_early_on_a_cancel() -> None:
    store = MemoryStore()
    claim = store.claim(store.create_context("a").execution_id, "me", timedelta(seconds=30))
    assert claim is not None
    with LeaseKeeper(store).keep(claim.lease, time.monotonic()) as held:
        started = time.monotonic()
        threading.Timer(0.05, held.mark_cancel_requested).start()
        held.wait(20)
        assert time.monotonic() - started < 10


def _wait_until(condition: object) -> None:
    assert callable(condition)
    give_up_at = time.monotonic() + 20
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < give_up_at, "the condition never came true"
        pause.wait(0.01)


def test_a_store_that_lost_what_it_confirmed_is_not_a_failure_of_the_agent(engine: Engine, calls: Calls) -> None:
    """A fail-over to a replica that was behind."""

    def work(run: Run, input: None) -> list[int]:
        done = [run.step("one", calls, 1), run.step("two", calls, 2)]
        if run.attempt == 1:
            promoted = engine.store._executions[run.execution_id]
            promoted.steps.pop()
            promoted.header["step_count"] -= 1
            promoted.header["version"] -= 1
        return [*done, run.step("three", calls, 3)]

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.LOST
    engine.clock.advance(LEASE)
    engine.execute(execution_id)
    context = engine.context(execution_id)
    assert (context.state, context.output) == (AgentState.COMPLETED, [1, 2, 3])
    assert [step.name for step in context.steps] == ["one", "two", "three"]
    assert calls.made == [1, 2, 3, 2, 3]  # what was lost, and what was never recorded
