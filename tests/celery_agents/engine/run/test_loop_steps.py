"""Steps that are called on the event loop, and recorded together with those of other executions."""

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, Checkpointed, MemoryStore, StoreError, StoreUnavailable
from agent_statestore.checkpoint import Checkpoint, LeasedWrite
from agent_statestore.records import Lease
from celery_agents import AsyncRun, Retry, StepTimeout
from celery_agents.engine.executor import Defaults
from celery_agents.engine.outcome import Ending
from celery_agents.engine.run import event_loop
from tests.celery_agents.driving import Calls, Engine

MANY = 50


class Together(MemoryStore):
    """Notes the batches that it is given. The next one waits for `gate`, and `fails` says how the next ones end."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(clock=engine.clock)
        self.batches: list[int] = []
        self.alone: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.waits = threading.Event()
        self.fails: list[str] = []

    def checkpoint_each(self, writes: Sequence[LeasedWrite]) -> list[Checkpointed | StoreError]:
        self.waits.set()
        self.gate.wait(60)
        self.batches.append(len(writes))
        how = self.fails.pop() if self.fails else ""
        if how == "before":
            return [StoreUnavailable(self.url, "away")] * len(writes)
        outcomes = super().checkpoint_each(writes)
        if how == "after":
            return [StoreUnavailable(self.url, "away")] * len(writes)
        if how == "broken":
            raise ZeroDivisionError
        return outcomes

    def checkpoint(self, execution_id: str, checkpoint: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        if threading.current_thread().name != "agents-scribe" and checkpoint.steps:
            self.alone.append(execution_id)
        return super().checkpoint(execution_id, checkpoint, lease)


@pytest.fixture
def store(engine: Engine) -> Together:
    store = engine.store = Together(engine)
    return store


async def soon(number: int = 1) -> int:
    await asyncio.sleep(0.001)
    return number


async def in_turn(run: AsyncRun, input: int) -> list[int]:
    return [await run.step("step", soon, number) for number in range(input)]


def together(engine: Engine, ids: Sequence[str]) -> list[Any]:
    with ThreadPoolExecutor(len(ids)) as pool:
        return list(pool.map(engine.execute, ids))


class TestHandOvers:
    """What is between the event loop and other threads, counted: each costs a wake-up and a fight for the GIL."""

    def test_a_step_wakes_the_loop_at_most_once_and_no_thread_of_a_task(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps, wakings, jobs = 20, [], []
        loop = event_loop.event_loop()
        call_soon, submit = loop.call_soon_threadsafe, event_loop.start
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args, **_: (wakings.append(1), call_soon(*args))[1])
        monkeypatch.setattr(event_loop, "start", lambda coroutine: (jobs.append(1), submit(coroutine))[1])
        execution_id = engine.start(engine.agent(in_turn), steps)
        outcome = engine.execute(execution_id)
        assert outcome is not None
        assert outcome.ending is Ending.COMPLETED
        # One more starts the agent, and the watch of the loop may ask it whether it lives.
        assert len(wakings) <= steps + 3
        assert len(jobs) == 1

    def test_many_records_that_wait_are_one_write_and_one_waking(self, engine: Engine, store: Together) -> None:
        agent = engine.agent(in_turn)
        ids = [engine.start(agent, 1) for _ in range(MANY)]
        store.gate.clear()
        with ThreadPoolExecutor(MANY) as pool:
            executed = [pool.submit(engine.execute, one) for one in ids]
            assert store.waits.wait(60)
            deadline = time.monotonic() + 60
            while len(engine.events) < 2 * MANY and time.monotonic() < deadline:  # claimed, and the step begun
                time.sleep(0.01)
            time.sleep(0.1)
            store.gate.set()
            for one in executed:
                outcome = one.result(60)
                assert outcome is not None
                assert outcome.output == [0]
        assert sum(store.batches) == MANY
        assert len(store.batches) <= 10, "one for those that came first, one for all that waited"
        assert store.alone == []


class TestWhatDoesNotGoWell:
    """It is left to the thread of the task, which goes on from the call that was made."""

    @pytest.mark.parametrize("how", ["before", "after", "broken"])
    def test_a_store_that_does_not_answer_is_asked_again_and_no_function_called_twice(
        self, engine: Engine, store: Together, calls: Calls, how: str
    ) -> None:
        async def call(number: int) -> int:
            calls(number)
            return await soon(number)

        async def work(run: AsyncRun, input: int) -> list[int]:
            return [await run.step("step", call, number) for number in (input, input + 1)]

        agent = engine.agent(work)
        ids = [engine.start(agent, 10 * number) for number in range(MANY)]
        store.fails = [how] * 5
        outcomes = together(engine, ids)
        assert [outcome.output for outcome in outcomes] == [[10 * number, 10 * number + 1] for number in range(MANY)]
        assert sorted(calls.made) == sorted(10 * number + more for number in range(MANY) for more in (0, 1))
        for one in ids:
            context = engine.context(one)
            assert [(step.step_number, step.name, step.tries) for step in context.steps] == [
                (1, "step", 1),
                (2, "step#2", 1),
            ]
        assert not store.fails

    def test_a_record_that_was_left_unknown_comes_before_that_of_a_step_beside_it(
        self, engine: Engine, store: Together
    ) -> None:
        async def work(run: AsyncRun, input: None) -> list[int]:
            return await asyncio.gather(
                *(run.step("async", soon, number) for number in range(5)),
                *(run.step("plain", lambda number=number: number) for number in range(5)),
            )

        store.fails = ["after", "before", "after", "before"]
        execution_id = engine.start(engine.agent(work))
        outcome = engine.execute(execution_id)
        assert outcome is not None
        assert outcome.output == [*range(5), *range(5)]
        assert [step.step_number for step in engine.context(execution_id).steps] == [*range(1, 11)]

    def test_a_lease_that_is_lost_while_a_record_waits_leaves_no_trace(self, engine: Engine, store: Together) -> None:
        agent = engine.agent(in_turn)
        lost, kept = engine.start(agent, 1), engine.start(agent, 1)
        store.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(engine.execute, lost)
            assert store.waits.wait(60)
            engine.clock.advance(engine.limits.lease)
            successor = store.claim(lost, "another/1/0", engine.limits.lease)
            assert successor is not None
            second = pool.submit(engine.execute, kept)
            time.sleep(0.05)
            store.gate.set()
            one, other = first.result(60), second.result(60)
        assert one is not None
        assert one.ending is Ending.LOST
        assert other is not None
        assert other.output == [0]
        assert engine.context(lost).steps == ()

    def test_a_result_that_is_too_large_fails_alone(self, engine: Engine, store: Together) -> None:
        async def large(number: int) -> str:
            await asyncio.sleep(0.01)
            return "x" * (2_000 if number == 3 else 10)

        async def work(run: AsyncRun, input: int) -> int:
            return len(await run.step("step", large, input))

        agent = engine.agent(work)
        ids = [engine.start(agent, number) for number in range(6)]
        store.max_value_bytes = 1_000
        outcomes = together(engine, ids)
        assert [outcome.ending for outcome in outcomes].count(Ending.FAILED) == 1
        assert outcomes[3].ending is Ending.FAILED

    @pytest.mark.usefixtures("store")
    def test_a_failure_is_tried_again_as_its_policy_says(self, engine: Engine, calls: Calls) -> None:
        async def second_time() -> int:
            calls(1)
            await asyncio.sleep(0)
            if len(calls.made) == 1:
                raise OSError("once")
            return 5

        async def work(run: AsyncRun, input: None) -> int:
            return await run.options(retry=Retry(retries=2, first_delay=timedelta(0))).step("step", second_time)

        execution_id = engine.start(engine.agent(work))
        outcome = engine.execute(execution_id)
        assert outcome is not None
        assert outcome.output == 5
        assert [step.tries for step in engine.context(execution_id).steps] == [2]

    def test_an_event_loop_that_is_blocked_holds_up_no_record(self, engine: Engine, store: Together) -> None:
        store.gate.clear()

        async def work(run: AsyncRun, input: None) -> int:
            step = asyncio.ensure_future(run.step("step", soon))
            while not store.waits.is_set():
                await asyncio.sleep(0.001)
            store.gate.set()
            deadline = time.monotonic() + 30
            while not engine.context(run.execution_id).steps and time.monotonic() < deadline:
                time.sleep(0.01)  # blocks the loop
            assert engine.context(run.execution_id).steps
            return await step

        outcome = engine.execute(engine.start(engine.agent(work)))
        assert outcome is not None
        assert outcome.output == 1


@pytest.mark.usefixtures("store")
class TestEnds:
    """A step that has begun goes on to its end."""

    def test_it_is_recorded_where_nobody_awaits_it_any_more(self, engine: Engine) -> None:
        async def long() -> int:
            await asyncio.sleep(0.1)
            return 7

        async def work(run: AsyncRun, input: None) -> str:
            try:
                async with asyncio.timeout(0.01):
                    await run.step("long", long)
            except TimeoutError:
                return "went on"
            return "waited"

        execution_id = engine.start(engine.agent(work))
        outcome = engine.execute(execution_id)
        assert outcome is not None
        assert outcome.output == "went on"
        assert [step.result.output for step in engine.context(execution_id).steps if step.result] == [7]

    @pytest.mark.parametrize("fails", [False, True])
    def test_it_is_recorded_after_the_agents_function_has_returned(self, engine: Engine, fails: bool) -> None:
        async def long() -> int:
            await asyncio.sleep(0.1)
            if fails:
                raise ValueError("late")
            return 7

        tasks = []

        async def work(run: AsyncRun, input: None) -> str:
            tasks.append(asyncio.ensure_future(run.step("long", long)))
            await asyncio.sleep(0.01)
            return "first"

        execution_id = engine.start(engine.agent(work))
        outcome = engine.execute(execution_id)
        assert outcome is not None
        assert outcome.output == "first"
        (step,) = engine.context(execution_id).steps
        assert step.result is not None
        assert step.result.success is not fails

    def test_a_timeout_cancels_it(self, engine: Engine) -> None:
        async def long() -> None:
            await asyncio.sleep(30)

        async def work(run: AsyncRun, input: None) -> str:
            try:
                await run.options(timeout=timedelta(seconds=0.05)).step("long", long)
            except StepTimeout as error:
                return f"still running: {error.still_running}"
            return "ended"

        outcome = engine.execute(engine.start(engine.agent(work)))
        assert outcome is not None
        assert outcome.output == "still running: False"

    def test_a_cancel_interrupts_it(self, engine: Engine) -> None:
        engine.limits = Defaults(lease=timedelta(seconds=0.3))
        begun, ended = threading.Event(), []

        async def long() -> None:
            begun.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        async def work(run: AsyncRun, input: None) -> None:
            await run.step("long", long)

        execution_id = engine.start(engine.agent(work))
        with ThreadPoolExecutor(1) as pool:
            executed = pool.submit(engine.execute, execution_id)
            assert begun.wait(60)
            engine.cancel(execution_id)
            outcome = executed.result(60)
        assert outcome is not None
        assert outcome.ending is Ending.CANCELLED
        assert ended == ["cancelled"]
        assert engine.context(execution_id).state is AgentState.CANCELLED
