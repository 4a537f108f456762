"""How often executions of an agent start."""

import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, SignalKind
from celery_agents import Run
from celery_agents.engine.outcome import Ending, Outcome
from tests.celery_agents.driving import LEASE, Crash
from tests.celery_agents.lifecycle.turns.lining import Line

GAP = timedelta(seconds=6)  # of ten a minute


@pytest.fixture
def line() -> Line:
    return Line()


def ends(outcome: Outcome | None) -> Ending:
    assert outcome is not None
    return outcome.ending


def simple(run: Run, input: Any) -> Any:
    return run.step("do", lambda: input)


def wait_of(line: Line, execution_id: str) -> timedelta:
    """How long the execution waits from now on."""
    waiting = line.context(execution_id).waiting
    assert waiting is not None
    assert (waiting.kind.value, waiting.key, waiting.prompt["turn"]) == ("timer", "agents.rate", "rate")
    assert waiting.wake_at is not None
    return waiting.wake_at - datetime.fromtimestamp(line.clock.now_us() / 1e6, waiting.wake_at.tzinfo)


def near(duration: timedelta) -> Any:
    return pytest.approx(duration.total_seconds(), abs=0.5)


def test_starts_beyond_the_rate_wait_for_a_time_of_their_own(line: Line) -> None:
    limited = line.agent(simple, rate_limit="10/m")
    executions = [line.begin(limited) for _ in range(5)]
    outcomes = [ends(line.execute(execution_id)) for execution_id in executions]
    assert outcomes == [Ending.COMPLETED] + [Ending.PAUSED] * 4
    waits = [wait_of(line, execution_id).total_seconds() for execution_id in executions[1:]]
    assert waits == [near(GAP * n) for n in (1, 2, 3, 4)]
    for number, execution_id in enumerate(executions[1:], 1):
        assert line.execute(execution_id) is None
        line.clock.advance(GAP + timedelta(milliseconds=100 if number == 1 else 0))
        assert ends(line.execute(execution_id)) is Ending.COMPLETED
    assert line.rung == []


def test_what_has_begun_goes_on_whatever_the_rate(line: Line) -> None:
    def asks(run: Run, input: None) -> Any:
        return run.ask("?")

    def dies(run: Run, input: None) -> Any:
        run.step("one", lambda: 1)
        if run.attempt == 1:
            raise Crash
        return "alive"

    asking, dying = line.agent(asks, rate_limit="1/h"), line.agent(dies, rate_limit="1/h")
    asked, died = line.begin(asking), line.begin(dying)
    line.execute(asked)
    line.crash(died)
    line.answer(asked, "yes")
    assert ends(line.execute(asked)) is Ending.COMPLETED
    assert ends(line.execute(died)) is Ending.COMPLETED


def test_one_that_died_before_it_recorded_anything_starts_anew(line: Line) -> None:
    def dies(run: Run, input: None) -> None:
        raise Crash

    limited = line.agent(dies, rate_limit="1/h")
    execution_id = line.begin(limited)
    line.crash(execution_id)
    assert ends(line.execute(execution_id)) is Ending.PAUSED
    assert wait_of(line, execution_id).total_seconds() == near(timedelta(hours=1) - LEASE)


def test_a_short_wait_is_waited_in_place(line: Line) -> None:
    limited = line.agent(simple, rate_limit="20/s")
    began = time.monotonic()
    for _ in range(3):
        assert ends(line.execute(line.begin(limited))) is Ending.COMPLETED
    # The store's clock stands still, so the third waits for two turns.
    assert time.monotonic() - began >= 0.15


def test_those_who_come_late_to_their_time_still_keep_the_distance(line: Line) -> None:
    limited = line.agent(simple, rate_limit="2/s")
    line.limits = type(line.limits)(lease=LEASE, inline_wait_seconds=0.0)
    executions = [line.begin(limited) for _ in range(4)]
    for execution_id in executions:
        line.execute(execution_id)
    line.clock.advance(timedelta(hours=1))
    # All workers were away for an hour: what became due meanwhile does not start at once.
    outcomes = [ends(line.execute(execution_id)) for execution_id in executions[1:]]
    assert outcomes == [Ending.COMPLETED, Ending.PAUSED, Ending.PAUSED]
    waits = [wait_of(line, execution_id).total_seconds() for execution_id in executions[2:]]
    assert waits == [pytest.approx(0.5, abs=0.2), pytest.approx(1.0, abs=0.2)]


def test_agents_have_rates_of_their_own(line: Line) -> None:
    for name in ("one", "two"):
        limited = line.agent(simple, name=name, rate_limit="1/h")
        assert ends(line.execute(line.begin(limited))) is Ending.COMPLETED
        assert ends(line.execute(line.begin(limited))) is Ending.PAUSED


def test_a_wait_for_the_rate_gives_the_place_to_the_next_one(line: Line) -> None:
    limited = line.agent(simple, rate_limit="10/m", concurrency=1)
    first, second, third = (line.begin(limited) for _ in range(3))
    assert ends(line.execute(first)) is Ending.COMPLETED
    claim = line.store.claim(third, "host/2/0", LEASE)
    assert claim is not None
    assert ends(line.execute(second)) is Ending.PAUSED
    line.store.release(claim.lease)
    assert ends(line.execute(third)) is Ending.PAUSED
    # It waits for the rate, so its place is free.
    assert wait_of(line, third)
    assert line.rung == [second]
    assert ends(line.execute(second)) is Ending.PAUSED
    assert wait_of(line, second) > wait_of(line, third)


def test_a_promised_time_is_kept_while_others_take_the_place(line: Line) -> None:
    limited = line.agent(simple, rate_limit="10/m", concurrency=1)
    line.execute(line.begin(limited))
    execution_id, holder = line.begin(limited), line.begin(limited)
    assert ends(line.execute(execution_id)) is Ending.PAUSED
    line.clock.advance(GAP + timedelta(seconds=1))
    claim = line.store.claim(holder, "host/2/0", LEASE)
    assert claim is not None
    assert ends(line.execute(execution_id)) is Ending.PAUSED
    waiting = line.context(execution_id).waiting
    assert waiting is not None
    assert (waiting.prompt["turn"], waiting.prompt["promised"]) == ("concurrency", True)
    line.store.update_state(holder, AgentState.COMPLETED, lease=claim.lease)
    for _ in range(3):
        line.store.take_rate("simple", 10, timedelta(minutes=1))
    line.send(execution_id, SignalKind.EVENT, "agents.turn", None)
    line.clock.advance(GAP)
    assert ends(line.execute(execution_id)) is Ending.COMPLETED


def test_a_cancel_reaches_those_who_wait_for_the_rate(line: Line) -> None:
    limited = line.agent(simple, rate_limit="1/h")
    line.execute(line.begin(limited))
    execution_id = line.begin(limited)
    line.execute(execution_id)
    line.cancel(execution_id)
    assert ends(line.execute(execution_id)) is Ending.CANCELLED


def test_a_shutdown_does_not_wait_for_the_rate(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = line.agent(simple, rate_limit="1/s")
    line.execute(line.begin(limited))
    execution_id = line.begin(limited)
    take_rate = line.store.take_rate

    def shuts_down(*args: Any, **options: Any) -> Any:
        line.draining = True
        return take_rate(*args, **options)

    monkeypatch.setattr(line.store, "take_rate", shuts_down)
    outcome = line.execute(execution_id)
    assert outcome is not None
    assert (outcome.ending, outcome.ring) == (Ending.DRAINED, True)
