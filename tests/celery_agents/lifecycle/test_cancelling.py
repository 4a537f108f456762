"""Cancel in every situation: final, within seconds, and only what was in flight is still done.

First on the engine, with a clock that stands still; then with a real worker, where it matters how it is told.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from agent_statestore import AgentState
from agent_statestore.errors import ExecutionOver
from agent_statestore.query import Query
from celery_agents import AsyncRun, ExecutionCancelled, Retry, Run
from celery_agents.client.execution import Execution
from celery_agents.engine.executor import Defaults
from celery_agents.engine.outcome import Ending
from celery_agents.host.runtime import Runtime
from tests.celery_agents.driving import LEASE, Calls
from tests.celery_agents.household import Household
from tests.celery_agents.their_workers import client_of, start, worker
from tests.services.commands import wait_until
from tests.services.machine import scaled

HOUR = timedelta(hours=1)
SECONDS = 5.0

# -- during a step -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("catches", [False, True])
def test_a_step_in_flight_is_recorded_and_none_after_it(calls: Calls, catches: bool) -> None:
    home, ids = Household(), []

    def work(run: Run, input: None) -> str:
        run.step("in flight", lambda: home.cancel(ids[0]))
        try:
            run.step("after", calls, 1)
        except BaseException:
            if not catches:
                raise
            run.step("and after", calls, 2)
        return "done"

    ids.append(home.start(home.agent(work)))
    outcome = home.execute(ids[0])

    assert outcome is not None
    assert outcome.ending is Ending.CANCELLED
    assert [step.name for step in home.context(ids[0]).steps] == ["in flight"]
    assert calls.made == []


def test_parallel_steps_in_flight_are_recorded_and_those_that_have_not_begun_do_not(calls: Calls) -> None:
    home, ids = Household(), []

    def slow(number: int) -> int:
        if number == 0:
            home.cancel(ids[0])
        calls(number)
        return number

    def work(run: Run, input: None) -> None:
        run.step("one", lambda: 1)
        run.parallel({f"part {number}": lambda n=number: slow(n) for number in range(8)}, limit=1)  # type: ignore[misc]

    ids.append(home.start(home.agent(work)))
    home.execute(ids[0])

    context = home.context(ids[0])
    assert context.state is AgentState.CANCELLED
    assert calls.made == [0]
    assert [step.name for step in context.steps] == ["one", "part 0"]


def test_a_coroutine_in_flight_is_interrupted(calls: Calls) -> None:
    home, ids = Household(), []
    home.limits = Defaults(lease=timedelta(seconds=0.6), announce_within=LEASE)

    async def endless() -> None:
        calls("begun")
        home.cancel(ids[0])
        try:
            await asyncio.sleep(600)
        finally:
            calls("interrupted")

    async def work(run: AsyncRun, input: None) -> None:
        await run.step("endless", endless)

    ids.append(home.start(home.agent(work)))
    began = time.monotonic()
    outcome = home.execute(ids[0])

    assert outcome is not None
    assert outcome.ending is Ending.CANCELLED
    assert time.monotonic() - began < SECONDS
    assert calls.made == ["begun", "interrupted"]
    assert home.context(ids[0]).steps == ()


def test_a_cancel_while_the_agents_last_line_runs_still_cancels() -> None:
    home, ids = Household(), []

    def work(run: Run, input: None) -> str:
        run.step("one", lambda: home.cancel(ids[0]))
        return "done"

    ids.append(home.start(home.agent(work)))
    home.execute(ids[0])

    assert home.context(ids[0]).state is AgentState.CANCELLED
    assert home.context(ids[0]).output is None


# -- during a pause ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [
        lambda run: run.ask("?"),
        lambda run: run.ask("?", timeout=HOUR, default="nobody"),
        lambda run: run.sleep(HOUR),
        lambda run: run.wait_for("event"),
        lambda run: run.gather(run.spawn("asks")),
    ],
)
def test_a_cancel_ends_every_kind_of_pause_at_once_and_a_late_signal_is_refused(wait: Any, calls: Calls) -> None:
    home = Household()

    def asks(run: Run, input: None) -> Any:
        return run.ask("?")

    def work(run: Run, input: None) -> None:
        wait(run)
        run.step("after", calls, 1)

    home.agent(asks)
    execution_id = home.start(home.agent(work))
    home.work()
    assert home.context(execution_id).state.is_paused
    home.cancel(execution_id)
    home.work()

    assert home.context(execution_id).state is AgentState.CANCELLED
    assert home.context(execution_id).waiting is None
    with pytest.raises(ExecutionOver):
        home.event(execution_id, "event")
    home.work(within=2 * HOUR)
    assert calls.made == []


def test_a_cancel_and_an_answer_at_once_is_a_cancel(calls: Calls) -> None:
    home = Household()

    def work(run: Run, input: None) -> None:
        run.step("after", calls, run.ask("?"))

    execution_id = home.start(home.agent(work))
    home.work()
    home.answer(execution_id, "yes")
    home.cancel(execution_id)
    home.work()

    assert home.context(execution_id).state is AgentState.CANCELLED
    assert calls.made == []


# -- during a retry wait -----------------------------------------------------------------------------------------------


def fails(calls: Calls) -> Any:
    def call() -> None:
        calls(1)
        raise OSError("down")

    return call


def test_a_cancel_during_a_long_retry_wait_tries_no_more(calls: Calls) -> None:
    home = Household()

    def work(run: Run, input: None) -> None:
        run.options(retry=Retry(retries=5, first_delay=HOUR)).step("call", fails(calls))

    execution_id = home.start(home.agent(work))
    home.work()
    assert home.context(execution_id).state is AgentState.WAITING
    home.cancel(execution_id)
    home.work(within=24 * HOUR)

    assert home.context(execution_id).state is AgentState.CANCELLED
    assert calls.made == [1]


def test_a_cancel_during_a_retry_wait_in_place_ends_it_within_seconds(calls: Calls) -> None:
    home, ids = Household(), []
    home.limits = Defaults(lease=timedelta(seconds=0.9), announce_within=LEASE, inline_wait_seconds=60)

    def work(run: Run, input: None) -> None:
        threading.Timer(0.2, home.cancel, ids).start()
        slow = Retry(retries=5, first_delay=timedelta(seconds=50))
        run.options(retry=slow).step("call", fails(calls))

    ids.append(home.start(home.agent(work)))
    began = time.monotonic()
    outcome = home.execute(ids[0])

    assert outcome is not None
    assert outcome.ending is Ending.CANCELLED
    assert time.monotonic() - began < SECONDS
    assert calls.made == [1]


# -- before the start, after the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("start_in", [None, 24 * HOUR])
def test_a_cancel_before_the_start_runs_nothing(calls: Calls, start_in: timedelta | None) -> None:
    home = Household()

    def work(run: Run, input: None) -> None:
        run.step("work", calls, 1)

    options = {} if start_in is None else {"start_at": home.now() + start_in}
    execution_id = home.start(home.agent(work), **options)
    home.cancel(execution_id)
    home.work()
    assert home.context(execution_id).state is AgentState.CANCELLED
    home.work(within=48 * HOUR)

    assert calls.made == []
    assert home.context(execution_id).steps == ()


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_a_cancel_after_the_end_is_refused_and_changes_nothing(end: str) -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        if end == "failed":
            raise ValueError
        return run.ask("?") if end == "cancelled" else "done"

    execution_id = home.start(home.agent(work))
    home.work()
    if end == "cancelled":
        home.cancel(execution_id)
        home.work()
    before = home.context(execution_id)
    assert before.state.value == end
    with pytest.raises(ExecutionOver):
        home.cancel(execution_id)

    assert home.context(execution_id) == before


def test_cancelling_twice_is_as_good_as_once() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        return run.ask("?")

    execution_id = home.start(home.agent(work))
    home.work()
    home.cancel(execution_id)
    home.cancel(execution_id)
    home.work()

    assert home.context(execution_id).state is AgentState.CANCELLED


# -- with a real worker ------------------------------------------------------------------------------------------------

AGENTS = """
import asyncio, time
from datetime import timedelta
from pathlib import Path
from celery_agents import Retry, agent

def mark(path: str) -> str:
    Path(path).touch()
    return path

@agent
def steps(run, input: str) -> None:
    for number in range(200):
        run.step("short", lambda: (mark(input), time.sleep(0.3))[0])

@agent
async def awaits(run, input: str) -> None:
    async def endless() -> None:
        mark(input)
        await asyncio.sleep(600)
    await run.step("endless", endless)

@agent
def retries(run, input: str) -> None:
    def fails() -> None:
        mark(input)
        raise OSError("down")
    run.options(retry=Retry(retries=9, first_delay=timedelta(seconds=60))).step("call", fails)

@agent
def retries_in_place(run, input: str) -> None:
    def fails() -> None:
        mark(input)
        raise OSError("down")
    run.options(retry=Retry(retries=9, first_delay=timedelta(seconds=4))).step("call", fails)

@agent
def asks(run, input: str) -> str:
    mark(input)
    return run.ask("?")

@agent
def has_a_child(run, input: str) -> list:
    return run.gather(run.spawn("has_no_child", input))

@agent
def has_no_child(run, input: str) -> None:
    for number in range(200):
        run.step("short", lambda: (mark(input), time.sleep(0.3))[0])

@agent
def pid(run, input: None) -> int:
    import os
    return run.step("pid", os.getpid)
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    with client_of(tmp_path, AGENTS, monkeypatch) as client:
        yield client


# In threads, `tests/crash/test_cancel.py` shows the same.
@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.full)])
def test_a_worker_ends_what_is_cancelled_within_seconds_and_is_free_again(
    tmp_path: Path, client: Runtime, pool: str
) -> None:
    with worker(tmp_path, f"-P {pool} -c 1", AGENTS_LEASE_SECONDS="3"):
        for name in ("steps", "awaits", "retries", "retries_in_place", "asks", "has_a_child"):
            mark = tmp_path / f"{name}.mark"
            execution = start(client, name, str(mark))
            wait_until(f"{name} to begin", mark.exists)
            if name in ("retries", "asks"):
                wait_until(f"{name} to pause", lambda execution=execution: execution.state.is_paused)  # type: ignore[misc]
            began = time.monotonic()
            assert execution.cancel(sender="ada", reason="changed my mind") is True
            with pytest.raises(ExecutionCancelled):
                execution.wait(scaled(SECONDS))
            assert time.monotonic() - began < scaled(SECONDS), name
            with pytest.raises(TaskRevokedError):
                AsyncResult(execution.id, app=client.app).get(timeout=scaled(30))
            assert execution.cancel() is False
        (child,) = client.store.find(Query(agent_id="has_no_child")).items
        with pytest.raises(ExecutionCancelled):
            Execution(child.execution_id, client).wait(scaled(30))
        assert start(client, "pid", None).wait(scaled(30)) is not None


def test_a_cancel_that_no_worker_has_seen_yet_runs_nothing(tmp_path: Path, client: Runtime) -> None:
    mark = tmp_path / "mark"
    execution = start(client, "asks", str(mark))
    assert execution.cancel() is True
    assert execution.state is AgentState.CANCELLED
    with worker(tmp_path, "-P threads -c 1", AGENTS_LEASE_SECONDS="3"):
        with pytest.raises(TaskRevokedError):
            AsyncResult(execution.id, app=client.app).get(timeout=scaled(30))
        assert start(client, "pid", None).wait(scaled(30)) is not None
    assert not mark.exists()
