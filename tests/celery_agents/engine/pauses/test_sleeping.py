"""Durable timers: sleeps, moments to sleep until, and start times."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, InvalidRecord, WaitKind
from celery_agents import AsyncRun, Run
from celery_agents.engine.outcome import Ending
from tests.celery_agents.driving import Calls, Crash, Engine
from tests.celery_agents.household import Household, dying_at_each_write

HOUR = timedelta(hours=1)


def sleeper(run: Run, input: float) -> list[str]:
    run.step("before", lambda: "a")
    run.sleep(timedelta(hours=input))
    return [run.step("after", lambda: "b")]


def test_a_long_sleep_holds_nothing_and_cannot_be_woken_early() -> None:
    home = Household()
    execution_id = home.start(home.agent(sleeper), 24)
    home.work()

    asleep = home.context(execution_id)
    assert (asleep.state, asleep.owner, asleep.lease_expires_at) == (AgentState.WAITING, None, None)
    assert asleep.waiting is not None
    assert (asleep.waiting.kind, asleep.due_at) == (WaitKind.TIMER, asleep.waiting.asked_at + 24 * HOUR)
    home.clock.advance(23 * HOUR)
    assert home.execute(execution_id) is None
    home.work(within=2 * HOUR)

    assert home.context(execution_id).output == ["b"]
    assert [step.name for step in home.context(execution_id).steps] == ["before", "sleep", "after"]


def test_a_sleep_that_died_is_as_long_as_it_was_to_be() -> None:
    def scenario(home: Household) -> str:
        execution_id = home.start(home.agent(sleeper), 24)
        home.work(within=48 * HOUR)
        return execution_id

    for home, execution_id in dying_at_each_write(scenario):
        context = home.context(execution_id)
        assert context.output == ["b"], home.store.writes
        slept = context.steps[1]
        # As long as it was to be, and at most a lease or two later where the process died.
        assert context.ended_at is not None
        assert timedelta(0) <= context.ended_at - (slept.timestamp + 24 * HOUR) < timedelta(minutes=1)


def test_a_delay_that_differs_from_attempt_to_attempt_counts_as_it_was_first() -> None:
    home, delays = Household(), iter([timedelta(hours=2), timedelta(hours=9)])

    def work(run: Run, input: None) -> str:
        run.sleep(next(delays))
        return "rested"

    execution_id = home.start(home.agent(work))
    home.work(within=3 * HOUR)

    assert home.context(execution_id).output == "rested"


@pytest.mark.parametrize("offset", [timedelta(days=21), -HOUR])
def test_a_sleep_until_a_moment_ends_then_or_at_once(offset: timedelta) -> None:
    home = Household()
    until = home.now() + offset

    def work(run: Run, input: None) -> str:
        run.sleep_until(until)
        return "awake"

    execution_id = home.start(home.agent(work))
    home.work(within=timedelta(days=30))

    ended = home.summary(execution_id).ended_at
    assert ended is not None
    assert timedelta(0) <= ended - max(until, home.summary(execution_id).created_at) < timedelta(seconds=5)


def test_a_short_sleep_is_slept_in_place(engine: Engine) -> None:
    def work(run: Run, input: None) -> str:
        run.sleep(0.2)
        return "rested"

    began = time.monotonic()
    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == "rested"
    assert time.monotonic() - began >= 0.2


def test_a_shutdown_during_a_short_sleep_leaves_the_rest_of_it_to_a_timer(engine: Engine) -> None:
    def work(run: Run, input: None) -> str:
        if run.attempt == 1:
            threading.Timer(0.2, setattr, (engine, "draining", True)).start()
        run.sleep(4)
        return "rested"

    execution_id = engine.start(engine.agent(work))
    began = time.monotonic()
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert (outcome.ending, engine.context(execution_id).state) == (Ending.PAUSED, AgentState.WAITING)
    assert time.monotonic() - began < 2
    engine.draining = False
    engine.clock.advance(timedelta(seconds=5))
    again = engine.execute(execution_id)
    assert again is not None
    assert again.output == "rested"


def test_every_sleep_is_one_of_its_own() -> None:
    home = Household()

    def work(run: Run, input: None) -> int:
        for _ in range(5):
            run.sleep(HOUR)
        run.sleep(HOUR, name="last")
        return 6

    execution_id = home.start(home.agent(work))
    home.work(within=6 * HOUR + timedelta(minutes=1))

    context = home.context(execution_id)
    assert context.output == 6
    assert [step.name for step in context.steps] == ["sleep", "sleep#2", "sleep#3", "sleep#4", "sleep#5", "last"]


def test_an_async_agent_sleeps_as_durably() -> None:
    home = Household()

    async def work(run: AsyncRun, input: None) -> str:
        await run.sleep(HOUR)
        await run.sleep_until(datetime(2026, 1, 2, tzinfo=UTC))
        return "rested"

    execution_id = home.start(home.agent(work))
    home.work(within=25 * HOUR)

    assert home.context(execution_id).output == "rested"


def test_a_loop_of_sleeps_ends_at_the_limit_of_steps(engine: Engine) -> None:
    def work(run: Run, input: None) -> None:
        while True:
            run.sleep(0)

    execution_id = engine.start(engine.agent(work, max_steps=20))
    engine.execute(execution_id)

    context = engine.context(execution_id)
    assert context.error is not None
    assert "MaxStepsExceeded" in context.error.type
    assert len(context.steps) == 20


@pytest.mark.parametrize(
    "sleep",
    [
        lambda run: run.sleep_until(datetime(2026, 5, 1)),  # noqa: DTZ001 - the fault
        lambda run: run.sleep_until(datetime(9999, 1, 1, tzinfo=UTC)),
        lambda run: run.sleep(float("nan")),
        lambda run: run.sleep(float("inf")),
        lambda run: run.sleep("soon"),
        lambda run: run.sleep(timedelta.max),
        lambda run: run.sleep(timedelta(days=365 * 500)),
    ],
)
def test_a_sleep_that_is_none_is_refused_where_it_is_asked_for(engine: Engine, sleep: Any, calls: Calls) -> None:
    def work(run: Run, input: None) -> str:
        with pytest.raises(InvalidRecord, match="sleep"):
            sleep(run)
        return run.step("after", calls, "goes on")

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "goes on"


# -- start times -------------------------------------------------------------------------------------------------------


def test_nothing_runs_before_its_start_time(calls: Calls) -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        return run.step("work", calls, "done")

    start_at = home.now() + timedelta(days=3)
    execution_id = home.start(home.agent(work), start_at=start_at)
    home.work(within=timedelta(days=2))
    assert (home.execute(execution_id), calls.made) == (None, [])
    home.work(within=timedelta(days=2))

    ended = home.summary(execution_id).ended_at
    assert home.context(execution_id).output == "done"
    assert ended is not None
    assert ended >= start_at


def test_an_event_before_the_start_time_is_kept_and_starts_nothing() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        return run.wait_for("go")

    execution_id = home.start(home.agent(work), start_at=home.now() + HOUR)
    home.event(execution_id, "go", 7)
    assert home.execute(execution_id) is None
    home.work(within=2 * HOUR)

    assert home.context(execution_id).output == 7


def test_an_execution_whose_deadline_is_before_its_start_fails(calls: Calls) -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        return run.step("work", calls, "done")

    execution_id = home.start(home.agent(work, deadline=HOUR), start_at=home.now() + 2 * HOUR)
    home.work(within=3 * HOUR)

    error = home.context(execution_id).error
    assert error is not None
    assert "DeadlineExceeded" in error.type
    assert calls.made == []


def test_a_crash_in_the_agents_code_after_a_sleep_does_not_sleep_again() -> None:
    home, attempts = Household(), []

    def work(run: Run, input: None) -> str:
        run.sleep(24 * HOUR)
        attempts.append(run.attempt)
        if len(attempts) < 3:
            raise Crash
        return "rested"

    execution_id = home.start(home.agent(work))
    home.work(within=25 * HOUR)

    assert home.context(execution_id).output == "rested"
    assert attempts == [2, 3, 4]
