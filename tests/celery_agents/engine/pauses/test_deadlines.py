"""Deadlines of executions: reached during a pause, passed by the questions they stand beside, raised by people."""

from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, InvalidRecord, MemoryStore, WaitKind
from agent_statestore.checkpoint import NewExecution
from celery_agents import Retry, Run
from celery_agents.define import deadline
from celery_agents.define.registry import Registry
from celery_agents.engine.executor import Defaults
from celery_agents.errors import DeadlineExceeded
from tests.celery_agents.driving import Engine
from tests.celery_agents.household import Household, dying_at_each_write

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def counting(run: Run, input: int) -> list[int]:
    return [run.step("count", lambda n=number: n) for number in range(input)]  # type: ignore[misc]


def failure_of(home: Engine, execution_id: str) -> str:
    error = home.context(execution_id).error
    assert error is not None, home.context(execution_id).state
    return error.type.rpartition(":")[2]


@pytest.mark.parametrize(
    "wait",
    [
        lambda run: run.ask("?"),
        lambda run: run.ask("?", timeout=30 * DAY, default="nobody"),
        lambda run: run.wait_for("event"),
        lambda run: run.sleep(30 * DAY),
        lambda run: run.gather(run.spawn("asks")),
        lambda run: run.options(retry=Retry(retries=1, first_delay=30 * DAY, max_delay=30 * DAY)).step(
            "fails", lambda: 1 // 0
        ),
    ],
)
def test_a_paused_execution_fails_at_its_deadline(wait: Any) -> None:
    home = Household()

    def asks(run: Run, input: None) -> Any:
        return run.ask("?")

    def work(run: Run, input: None) -> None:
        wait(run)

    home.agent(asks)
    execution_id = home.start(home.agent(work, deadline=DAY))
    home.work(within=23 * HOUR)
    assert home.context(execution_id).state.is_paused
    home.work(within=2 * HOUR)

    assert failure_of(home, execution_id) == DeadlineExceeded.__name__
    ended = home.summary(execution_id).ended_at
    assert ended is not None
    assert timedelta(0) <= ended - home.summary(execution_id).created_at - DAY < timedelta(minutes=1)


def test_a_questions_own_deadline_counts_where_it_is_the_earlier_one() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        return run.ask("?", timeout=HOUR, default="nobody")

    execution_id = home.start(home.agent(work, deadline=DAY))
    home.work(within=2 * HOUR)

    assert home.context(execution_id).output == "nobody"


def test_a_deadline_given_at_the_start_counts_like_the_agents_and_the_earlier_wins() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        return run.ask("?")

    agent = home.agent(work, deadline=DAY)
    early = home.start(agent, metadata=deadline.as_metadata(home.now() + HOUR))
    late = home.start(agent, metadata=deadline.as_metadata(home.now() + 7 * DAY))
    home.work(within=2 * HOUR)
    assert failure_of(home, early) == DeadlineExceeded.__name__
    assert home.context(late).state is AgentState.WAITING_FOR_INPUT
    home.work(within=DAY)

    assert failure_of(home, late) == DeadlineExceeded.__name__


def test_work_that_ends_late_without_another_step_counts() -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        return run.step("slow", lambda: home.clock.advance(HOUR) or "late")

    home.limits = Defaults(lease=2 * DAY)
    execution_id = home.start(home.agent(work, deadline=timedelta(minutes=1)))
    home.work()

    assert home.context(execution_id).output == "late"


def test_a_person_may_give_more_time_and_the_execution_fails_when_that_is_over() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        return run.wait_for("paid")

    execution_id = home.start(home.agent(work, deadline=DAY, on_limit="ask"))
    home.work(within=DAY + timedelta(minutes=1))
    waiting = home.context(execution_id).waiting
    assert waiting is not None
    assert (waiting.key, waiting.wake_at) == ("limit seconds 1", None)
    assert waiting.prompt["during"]["step"] == "event paid"
    home.answer(execution_id, 2 * DAY.total_seconds(), "limit seconds 1")
    home.work()
    again = home.context(execution_id).waiting
    assert again is not None
    assert (again.kind, again.key) == (WaitKind.EVENT, "paid")
    home.work(within=2 * DAY)
    home.answer(execution_id, 0, "limit seconds 2")
    home.work()

    assert failure_of(home, execution_id) == DeadlineExceeded.__name__


@pytest.mark.parametrize("kind", ["sleep", "event", "ask"])
def test_a_limit_that_is_raised_meanwhile_does_not_make_a_wait_begin_again(kind: str) -> None:
    def scenario(home: Household) -> str:
        def work(run: Run, input: None) -> Any:
            if kind == "sleep":
                return run.sleep(3 * DAY)
            if kind == "event":
                run.wait_for("other", timeout=timedelta(0), default=None)
                return run.wait_for("paid", timeout=3 * DAY, default=None)
            return run.ask("?", timeout=3 * DAY, default=None)

        execution_id = home.start(home.agent(work, deadline=DAY, on_limit="ask"))
        home.work(within=2 * DAY)
        home.answer(execution_id, 7 * DAY.total_seconds(), "limit seconds 1")
        home.work(within=4 * DAY)
        return execution_id

    for home, execution_id in dying_at_each_write(scenario):
        summary = home.summary(execution_id)
        assert summary.state is AgentState.COMPLETED, home.store.writes
        assert summary.ended_at is not None
        assert timedelta(0) <= summary.ended_at - summary.created_at - 3 * DAY < timedelta(minutes=1), home.store.writes


def test_a_sleep_is_not_over_at_the_deadline_that_woke_it() -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        run.sleep(3 * DAY)
        return "rested"

    execution_id = home.start(home.agent(work, deadline=DAY, on_limit="ask"))
    home.work(within=DAY + HOUR)

    assert home.context(execution_id).state is AgentState.WAITING_FOR_INPUT
    assert home.context(execution_id).steps == ()


def test_a_wait_after_one_that_a_limit_interrupted_has_a_time_of_its_own() -> None:
    home = Household()

    def work(run: Run, input: None) -> list[Any]:
        return [run.wait_for("paid", timeout=9 * DAY, default="late") for _ in range(2)]

    execution_id = home.start(home.agent(work, deadline=DAY, on_limit="ask"))
    home.work(within=2 * DAY)
    home.answer(execution_id, 90 * DAY.total_seconds(), "limit seconds 1")
    home.work(within=5 * DAY)
    home.event(execution_id, "paid", "first")
    home.work(within=8 * DAY)
    assert home.context(execution_id).state is AgentState.WAITING
    home.event(execution_id, "paid", "second")
    home.work()

    assert home.context(execution_id).output == ["first", "second"]


def test_a_deploy_that_gives_more_time_does_not_end_a_sleep_early() -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        run.sleep(3 * DAY)
        return "rested"

    execution_id = home.start(home.agent(work, deadline=DAY))
    home.work(within=HOUR)
    home.registry = Registry()  # the new workers'
    home.agent(work, deadline=7 * DAY)
    home.work(within=DAY)
    assert home.context(execution_id).state is AgentState.WAITING
    home.work(within=2 * DAY)

    assert home.context(execution_id).output == "rested"


def test_an_answer_that_came_before_the_question_whether_to_go_on_is_not_lost() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        return run.wait_for("paid")

    execution_id = home.start(home.agent(work, deadline=DAY, on_limit="ask"))
    home.work()
    home.clock.advance(2 * DAY)
    home.event(execution_id, "paid", 5)
    home.work()
    assert home.context(execution_id).state is AgentState.WAITING_FOR_INPUT
    home.answer(execution_id, 5 * DAY.total_seconds(), "limit seconds 1")
    home.work()

    assert home.context(execution_id).output == 5


def test_any_amount_of_time_may_be_given() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        return run.ask("?", timeout=2 * DAY, default="nobody")

    execution_id = home.start(home.agent(work, deadline=DAY, on_limit="ask"))
    home.work(within=DAY + HOUR)
    home.answer(execution_id, 1e300, "limit seconds 1")
    home.work(within=2 * DAY)

    assert home.context(execution_id).output == "nobody"


@pytest.mark.parametrize("given", ["soon", "2026-01-01T00:00:00", 7, ["x"]])
def test_a_deadline_that_is_none_fails_the_execution_and_does_not_take_workers_down(given: Any) -> None:
    home = Household()
    agent = home.agent(counting)
    new = NewExecution(agent_id=agent.name, input=1, metadata={"agents.deadline": given}, first_ring=timedelta(0))
    execution_id = MemoryStore.create(home.store, new).execution_id
    home.work()

    assert failure_of(home, execution_id) == InvalidRecord.__name__
    assert home.summary(execution_id).attempt == 1
