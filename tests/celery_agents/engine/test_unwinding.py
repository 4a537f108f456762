"""What could keep an attempt from ending, or have the next one come to another place: the odd ways out of an agent."""

import asyncio
import concurrent.futures
import ctypes
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pydantic
import pytest

from agent_statestore import Checkpoint, Lease, SignalKind
from agent_statestore.records import Checkpointed, WaitKind
from agent_statestore.states import AgentState
from celery_agents import AsyncRun, Retry, Run
from celery_agents.engine.outcome import Ending, Outcome
from celery_agents.engine.run import desk, event_loop
from celery_agents.engine.steps import calling
from tests.celery_agents.driving import Calls, Crash, Engine

SOON = timedelta(seconds=60)


class Overtime(Exception):
    """Stands for a time limit, which is an Exception, too."""


class Amount(pydantic.BaseModel):
    """Has a validator that raises what pydantic lets pass."""

    euros: int

    @pydantic.field_validator("euros")
    @classmethod
    def _known(cls, euros: int) -> int:
        return {1: 1, 2: 2}[euros]


def executed(engine: Engine, execution_id: str) -> Outcome:
    """The outcome of one claim, in a thread that is left behind if it comes to no end."""
    done: concurrent.futures.Future[Outcome | None] = concurrent.futures.Future()
    threading.Thread(target=lambda: done.set_result(engine.execute(execution_id)), daemon=True).start()
    outcome = done.result(10)
    assert outcome is not None
    return outcome


def _by_step(run: Run, function: Callable[[], Any]) -> Any:
    return run.step("slow", function)


def _in_parallel(run: Run, function: Callable[[], Any]) -> Any:
    return run.parallel({"slow": function, "beside": int})["slow"]


def _with_exceptions_as_results(run: Run, function: Callable[[], Any]) -> Any:
    return run.parallel({"slow": function, "beside": int}, return_exceptions=True)["slow"]


@pytest.mark.parametrize("take", [_by_step, _in_parallel, _with_exceptions_as_results])
def test_a_time_limit_that_the_agent_catches_ends_the_attempt_all_the_same(
    engine: Engine, calls: Calls, take: Callable[[Run, Callable[[], Any]], Any]
) -> None:
    engine.interrupts = (Overtime,)

    def slow() -> str:
        calls("slow")
        if len(calls.made) == 1:
            raise Overtime
        return "done"

    def work(run: Run, input: None) -> Any:
        try:
            return take(run, slow)
        except Exception:  # noqa: BLE001 - as careless agents do
            return run.step("instead", lambda: "something else")

    execution_id = engine.start(engine.agent(work))
    with pytest.raises(Overtime):
        engine.execute(execution_id)
    context = engine.context(execution_id)
    assert "instead" not in [step.name for step in context.steps]
    assert (context.owner, context.crashes) == (None, 1)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "done"


def test_an_agent_that_waits_for_tasks_which_are_unwound_gives_its_slot_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "_UNWIND_SECONDS", 0.1)

    async def work(run: AsyncRun, input: None) -> str:
        jobs: asyncio.Queue[int] = asyncio.Queue()

        async def serve() -> None:
            while True:
                await run.sleep(3600, name=f"sleep {await jobs.get()}")
                jobs.task_done()

        jobs.put_nowait(1)
        serving = asyncio.create_task(serve())
        await jobs.join()
        serving.cancel()
        return "done"

    execution_id = engine.start(engine.agent(work))
    assert executed(engine, execution_id).ending is Ending.PAUSED
    engine.clock.advance(timedelta(hours=2))

    assert executed(engine, execution_id).output == "done"


def test_where_no_more_threads_are_to_be_had_the_attempt_ends_and_the_next_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short() -> int:
        time.sleep(0.01)
        return 1

    async def work(run: AsyncRun, input: None) -> int:
        return sum(await asyncio.gather(*(run.step(f"step {number}", short) for number in range(3))))

    def no_more(pool: object) -> None:
        raise RuntimeError("can't start new thread")

    execution_id = engine.start(engine.agent(work))
    with monkeypatch.context() as patched:
        patched.setattr(concurrent.futures.ThreadPoolExecutor, "_adjust_thread_count", no_more)
        assert executed(engine, execution_id).ending is Ending.LOST
    engine.clock.advance(engine.limits.lease)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == 3


def test_an_event_loop_whose_thread_could_not_be_started_is_started_the_next_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def work(run: AsyncRun, input: None) -> str:
        return "done"

    agent = engine.agent(work)
    with monkeypatch.context() as patched:
        patched.setattr(event_loop, "_loop", None)
        patched.setattr(event_loop, "_thread", None)
        with monkeypatch.context() as without_threads:
            without_threads.setattr(threading.Thread, "start", no_more)
            with pytest.raises(RuntimeError, match="new thread"):
                event_loop.event_loop()
        outcome = executed(engine, engine.start(agent))
        event_loop.event_loop().call_soon_threadsafe(event_loop.event_loop().stop)

    assert outcome.output == "done"


def test_a_step_that_is_to_be_tried_again_does_not_wait_for_an_event_that_it_may_bring_about(
    engine: Engine, calls: Calls
) -> None:
    def flaky() -> str:
        calls("flaky")
        if len(calls.made) == 1:
            raise ConnectionError
        return "begun"

    async def work(run: AsyncRun, input: None) -> list[Any]:
        trying = run.options(retry=Retry(retries=1, first_delay=SOON))
        return await asyncio.gather(run.wait_for("done"), trying.step("begin", flaky))

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    engine.clock.advance(SOON)
    (due,) = engine.store.take_due(10, timedelta(seconds=1))
    outcome = engine.execute(due.execution_id)

    assert outcome is not None
    assert outcome.waiting is not None
    assert (outcome.waiting.kind, outcome.waiting.wake_at) == (WaitKind.EVENT, None)
    assert len(calls.made) == 2


def test_a_step_that_is_to_be_tried_again_does_not_wait_for_a_person_who_is_asked_about_another(
    engine: Engine, calls: Calls
) -> None:
    def dying() -> None:
        if not calls.made:
            calls("dying")
            raise Crash

    def flaky() -> str:
        calls("flaky")
        if len(calls.made) < 3:
            raise ConnectionError
        return "begun"

    def work(run: Run, input: None) -> None:
        patient = run.options(retry=Retry(retries=5, first_delay=SOON), on_crash="ask")
        patient.parallel({"die": dying, "flaky": flaky}, limit=1)

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.state is AgentState.WAITING_FOR_INPUT
    engine.clock.advance(SOON)
    (due,) = engine.store.take_due(10, timedelta(seconds=1))
    outcome = engine.execute(due.execution_id)

    assert outcome is not None
    assert outcome.state is AgentState.WAITING_FOR_INPUT
    assert calls.made == ["dying", "flaky", "flaky"]


def test_an_event_that_the_users_own_validator_cannot_cope_with_is_passed_over(engine: Engine, calls: Calls) -> None:
    def die() -> None:
        calls("die")
        if len(calls.made) == 1:
            raise Crash

    def work(run: Run, input: None) -> str:
        paid = run.wait_for("paid", schema=Amount)
        run.step("die", die)
        return str(paid.euros)

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    engine.send(execution_id, SignalKind.EVENT, "paid", {"euros": 3})
    engine.execute(execution_id)
    (waiting,) = engine.context(execution_id).waits
    assert waiting.refused == "an event: KeyError: 3"
    engine.send(execution_id, SignalKind.EVENT, "paid", {"euros": 2})
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "2"


def test_what_tasks_say_is_neither_lost_nor_doubled_where_a_replay_has_another_order(
    engine: Engine, calls: Calls
) -> None:
    said_first = threading.Event()

    async def first() -> str:
        return "first"

    async def second() -> str:
        await asyncio.to_thread(said_first.wait, 10)
        return "second"

    def die() -> None:
        calls("die")
        if len(calls.made) == 1:
            raise Crash

    async def work(run: AsyncRun, input: None) -> None:
        async def tell(function: Callable[[], Any]) -> None:
            text = await run.step(function.__name__, function)
            run.say("assistant", text)
            run.remember({"text": text})
            said_first.set()

        await asyncio.gather(tell(second), tell(first))
        await run.step("die", die)

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.execute(execution_id)
    memory = engine.context(execution_id).memory

    assert sorted(message.content for message in memory.conversation_history) == ["first", "second"]
    assert sorted(fact["text"] for fact in memory.run_facts) == ["first", "second"]


def test_a_call_that_ends_while_it_is_told_to_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, raising = threading.Event(), ctypes.pythonapi.PyThreadState_SetAsyncExc

    def work() -> str:
        may_end.wait(10)
        return "done"

    called = calling._ThreadedCall(partial(work), "call")

    def raise_late(*args: Any) -> int:
        """By now the gate is shut for the thread: it ends, and stands there."""
        may_end.set()
        while called._value is calling._NOTHING:
            pass
        return raising(*args)

    monkeypatch.setattr(ctypes.pythonapi, "PyThreadState_SetAsyncExc", raise_late)
    called.begin()

    assert called.stop()
    assert not called.was_stopped
    assert called.result() == "done"


def test_what_a_write_may_have_stored_that_was_broken_off_is_not_stored_again(engine: Engine) -> None:
    engine.interrupts = (Overtime,)
    checkpoint = engine.store.checkpoint

    def broken_off(execution_id: str, change: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        written = checkpoint(execution_id, change, lease)
        if change.steps:
            raise Overtime
        return written

    async def work(run: AsyncRun, input: None) -> None:
        run.say("user", "hello")
        await asyncio.gather(run.wait_for("never"), run.step("beside", asyncio.sleep, 0.05))

    execution_id = engine.start(engine.agent(work))
    engine.store.checkpoint = broken_off  # type: ignore[method-assign]
    with pytest.raises(Overtime):
        engine.execute(execution_id)
    engine.store.checkpoint = checkpoint  # type: ignore[method-assign]
    engine.execute(execution_id)

    assert [message.content for message in engine.context(execution_id).memory.conversation_history] == ["hello"]
