"""`run.parallel` when it is ended from outside: cancel, drain, a lost lease, a store that is away."""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from agent_statestore import AgentState
from agent_statestore.errors import StoreUnavailable
from agent_statestore.records import Action, Result
from celery_agents import Run
from celery_agents.engine.executor import Defaults
from celery_agents.engine.lease import HeldLease
from celery_agents.engine.outcome import Ending, Outcome
from celery_agents.engine.steps import parallel
from tests.celery_agents.driving import LEASE, Calls, Crash, Engine


def square(number: int) -> int:
    return number * number


def beside(engine: Engine, calls: Calls, *, meanwhile: Callable[[str], None]) -> tuple[str, Outcome]:
    """Starts an agent with more calls than run at once; `meanwhile` is called when some are in flight."""
    started = threading.Barrier(3, timeout=60)
    struck = threading.Event()

    def strike() -> None:
        started.wait()
        meanwhile(execution_id)
        struck.set()

    def slow(number: int) -> int:
        calls(number)
        if number < 2 and not struck.is_set():
            started.wait()
            struck.wait(5)
        return number

    def work(run: Run, input: None) -> dict[str, int]:
        return run.parallel({f"step {number}": partial(slow, number) for number in range(6)}, limit=2)

    execution_id = engine.start(engine.agent(work))
    striker = threading.Thread(target=strike)
    striker.start()
    outcome = engine.execute(execution_id)
    striker.join()
    assert outcome is not None
    return execution_id, outcome


def test_a_cancel_ends_it_when_what_is_in_flight_is_recorded(
    engine: Engine, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.limits = Defaults(lease=timedelta(seconds=0.6))  # the keeper learns of it at a renewal
    learned, mark = threading.Event(), HeldLease.mark_cancel_requested

    def mark_and_tell(held: HeldLease) -> None:
        mark(held)
        learned.set()

    monkeypatch.setattr(HeldLease, "mark_cancel_requested", mark_and_tell)

    def cancel(execution_id: str) -> None:
        engine.cancel(execution_id)
        assert learned.wait(5)

    execution_id, outcome = beside(engine, calls, meanwhile=cancel)

    assert outcome.ending is Ending.CANCELLED
    assert engine.context(execution_id).state is AgentState.CANCELLED
    assert sorted(calls.made) == [0, 1]
    assert sorted(step.name for step in engine.context(execution_id).steps) == ["step 0", "step 1"]


def test_a_drain_ends_it_when_what_is_in_flight_is_recorded_and_the_rest_goes_on_elsewhere(
    engine: Engine, calls: Calls
) -> None:
    def drain(execution_id: str) -> None:
        engine.draining = True

    execution_id, outcome = beside(engine, calls, meanwhile=drain)

    assert outcome.ending is Ending.DRAINED
    assert outcome.ring
    assert sorted(calls.made) == [0, 1]
    engine.draining = False
    again = engine.execute(execution_id)
    assert again is not None
    assert sorted(again.output.values()) == [0, 1, 2, 3, 4, 5]
    assert sorted(calls.made) == [0, 1, 2, 3, 4, 5]


def test_a_lost_lease_ends_it_and_nothing_is_written(engine: Engine, calls: Calls) -> None:
    def lose(execution_id: str) -> None:
        engine.clock.advance(LEASE)
        claim = engine.store.claim(execution_id, "another/1/0", LEASE)
        assert claim is not None

    execution_id, outcome = beside(engine, calls, meanwhile=lose)

    assert outcome.ending is Ending.LOST
    assert sorted(calls.made) == [0, 1]
    assert engine.context(execution_id).steps == ()


def test_an_outage_of_the_store_delays_what_is_recorded_and_loses_nothing(engine: Engine, calls: Calls) -> None:
    checkpoint = engine.store.checkpoint
    failures = iter(range(3))
    both = threading.Barrier(2, timeout=60)

    def flaky(*args: Any, **kwargs: Any) -> Any:
        if next(failures, None) is not None:
            raise StoreUnavailable("memory", "down for a moment")
        return checkpoint(*args, **kwargs)

    def meet(number: int) -> int:
        both.wait()
        return int(calls(number))

    def work(run: Run, input: None) -> list[int]:
        engine.store.checkpoint = flaky  # type: ignore[method-assign]
        return run.parallel([partial(meet, number) for number in range(2)])

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [0, 1]
    assert sorted(calls.made) == [0, 1]
    assert [step.step_number for step in engine.context(execution_id).steps] == [1, 2]


def test_an_outage_that_outlasts_the_lease_ends_it_and_says_nothing_is_done(engine: Engine, calls: Calls) -> None:
    engine.limits = Defaults(lease=timedelta(seconds=0.3))
    checkpoint = engine.store.checkpoint

    def down(*args: Any, **kwargs: Any) -> Any:
        raise StoreUnavailable("memory", "down for long")

    def work(run: Run, input: None) -> list[int]:
        if run.attempt == 1:
            engine.store.checkpoint = down  # type: ignore[method-assign]
        return run.parallel([partial(calls, number) for number in range(3)])

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.LOST

    engine.store.checkpoint = checkpoint  # type: ignore[method-assign]
    engine.clock.advance(timedelta(seconds=1))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == [0, 1, 2]
    assert set(calls.made) == {0, 1, 2}
    assert max(map(calls.made.count, range(3))) == 2


def test_many_steps_at_once_are_numbered_without_gaps(engine: Engine) -> None:
    async def wait(number: int) -> int:
        await asyncio.sleep(0.001 * (number % 3))
        return number

    def work(run: Run, input: None) -> int:
        functions: list[Callable[[int], Any]] = [square, wait]
        results: list[int] = run.parallel([partial(functions[number % 2], number) for number in range(200)], limit=16)
        return sum(number % 2 for number in results)

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == 100
    steps = engine.context(execution_id).steps
    assert [step.step_number for step in steps] == list(range(1, 201))
    assert len({step.name for step in steps}) == 200


def test_records_are_written_one_after_the_other(engine: Engine) -> None:
    checkpoint, writing = engine.store.checkpoint, threading.Lock()

    def write(*args: Any, **kwargs: Any) -> Any:
        assert writing.acquire(blocking=False), "two writes at once"
        try:
            time.sleep(0.001)
            return checkpoint(*args, **kwargs)
        finally:
            writing.release()

    engine.store.checkpoint = write  # type: ignore[method-assign]

    def work(run: Run, input: None) -> list[int]:
        return run.options(on_crash="fail").parallel([partial(square, number) for number in range(40)])

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == [number * number for number in range(40)]


def test_an_exit_in_one_branch_ends_the_coroutines_of_the_others(
    engine: Engine, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "STOP_SECONDS", 0.05)
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            calls("cancelled")
            raise
        finally:
            ended.set()

    def leave() -> None:
        begun.wait(5)
        raise Crash

    def work(run: Run, input: None) -> Any:
        wanted: dict[str, Callable[[], Any]] = {"wait": wait, "leave": leave}
        return run.parallel(wanted)

    execution_id = engine.start(engine.agent(work))
    with pytest.raises(Crash):
        engine.execute(execution_id)
    assert ended.wait(5)
    assert calls.made == ["cancelled"]
    assert engine.context(execution_id).steps == ()


def test_what_comes_after_a_pause_was_written_changes_nothing_about_the_outcome(engine: Engine) -> None:
    """A thread that was about to record something when another one paused finds the lease given back."""

    def work(run: Run, input: None) -> None:
        attempt = run._attempt
        recorder = attempt.recorder
        late = recorder.make_step("late", Action(kind="step"), Result(success=True), started=attempt.now())
        try:
            run.ask("?")
        finally:
            recorder.record(late)

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.PAUSED
    context = engine.context(execution_id)
    assert context.state is AgentState.WAITING_FOR_INPUT
    assert context.steps == ()
