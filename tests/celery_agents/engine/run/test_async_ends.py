"""Async agents: what outlives an await or the agent itself, and what is written beside each other."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest

import celery_agents
from agent_statestore import AgentState, Checkpoint, Lease, Signal, SignalKind
from agent_statestore.records import Checkpointed
from celery_agents import AsyncRun, Retry
from celery_agents.engine.mailbox import Mailbox
from celery_agents.engine.outcome import Ending
from tests.celery_agents.driving import Calls, Crash, Engine


async def double(number: int) -> int:
    await asyncio.sleep(0.001)
    return number * 2


class Overtime(Exception):
    """Stands for Celery's soft time limit."""


async def expire(limit: asyncio.Timeout, begun: threading.Event) -> None:
    """Lets the time run out once something has begun, however long that takes."""
    while not begun.is_set():
        await asyncio.sleep(0.005)
    limit.reschedule(asyncio.get_running_loop().time())


# -- what outlives an await, and what outlives the agent ---------------------------------------------------------------


def test_a_step_that_nobody_awaits_any_more_is_recorded_all_the_same(engine: Engine, calls: Calls) -> None:
    begun = threading.Event()

    async def slow() -> str:
        begun.set()
        await asyncio.sleep(0.1)
        calls("slow")
        return "slow"

    async def work(run: AsyncRun, input: None) -> str:
        try:
            async with asyncio.timeout(None) as limit:
                expiring = asyncio.create_task(expire(limit, begun))
                return str(await run.step("slow", slow))
        except TimeoutError:
            await expiring
            return "gave up"

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "gave up"
    assert calls.made == ["slow"]
    (step,) = engine.context(execution_id).steps
    assert step.result is not None
    assert step.result.output == "slow"


def test_a_task_that_outlives_the_agent_takes_no_step_and_holds_nothing_up(engine: Engine, calls: Calls) -> None:
    ended, left_over = threading.Event(), threading.Event()
    states: list[bool] = []

    async def work(run: AsyncRun, input: None) -> str:
        async def linger() -> None:
            try:
                while not ended.is_set():
                    await asyncio.sleep(0.005)
                await run.step("late", calls, "late")
            except asyncio.CancelledError:
                states.append(True)
                raise
            finally:
                left_over.set()

        tasks.append(asyncio.create_task(linger()))
        await run.step("first", calls, "first")
        return "done"

    tasks: list[asyncio.Task[None]] = []
    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)
    ended.set()
    assert left_over.wait(5)

    assert outcome is not None
    assert outcome.output == "done"
    assert states == [True]
    assert calls.made == ["first"]


def test_a_pause_is_told_from_a_cancel_that_comes_from_somewhere_else(engine: Engine) -> None:
    seen: list[type[BaseException]] = []

    async def note_what_ends(waiting: Coroutine[Any, Any, Any]) -> None:
        try:
            await waiting
        except asyncio.CancelledError as cancelled:
            seen.append(type(cancelled))
            raise

    async def work(run: AsyncRun, input: None) -> str:
        other = asyncio.create_task(note_what_ends(asyncio.sleep(60)))
        await run.step("first", double, 1)
        other.cancel()
        await asyncio.wait((other,))
        await note_what_ends(run.ask("?"))
        return "done"

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.PAUSED
    assert seen == [asyncio.CancelledError, celery_agents.ExecutionUnwound]
    assert issubclass(celery_agents.ExecutionUnwound, asyncio.CancelledError)


def test_an_agent_that_goes_on_after_a_pause_takes_no_step(engine: Engine, calls: Calls) -> None:
    async def work(run: AsyncRun, input: None) -> str:
        try:
            async with asyncio.timeout(0.3):
                await run.ask("?")
        except TimeoutError:
            await asyncio.sleep(0.02)
        await run.step("after", calls, 1)
        return "done"

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.PAUSED
    assert engine.context(execution_id).state is AgentState.WAITING_FOR_INPUT
    assert calls.made == []


def test_a_pause_that_is_still_to_be_written_is_the_outcome_also_if_the_agent_returns(
    engine: Engine, calls: Calls
) -> None:
    begun, asking = threading.Event(), threading.Event()

    async def slow() -> None:
        begun.set()
        await asyncio.sleep(0.5)
        calls("slow")

    async def work(run: AsyncRun, input: None) -> str:
        course = run._attempt.course
        question = asyncio.create_task(run.ask("?"))
        while not course.open_waits:
            await asyncio.sleep(0)
        step = asyncio.create_task(run.step("slow", slow))  # begun since, so that it holds nothing up
        while course.stopped is None:
            await asyncio.sleep(0.005)
        question.cancel()
        asking.set()
        del step
        return "never mind"

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert begun.is_set()
    assert asking.is_set()
    assert outcome is not None
    assert outcome.ending is Ending.PAUSED
    context = engine.context(execution_id)
    assert context.state is AgentState.WAITING_FOR_INPUT
    assert [step.name for step in context.steps] == ["slow"]


def test_an_interrupt_is_not_lost_though_the_agent_has_returned(engine: Engine) -> None:
    engine.interrupts = (Overtime,)
    begun, returned = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        returned.wait(5)
        raise Overtime

    async def work(run: AsyncRun, input: None) -> str:
        try:
            async with asyncio.timeout(None) as limit:
                expiring = asyncio.create_task(expire(limit, begun))
                await run.step("slow", slow)
        except TimeoutError:
            await expiring
            asyncio.get_running_loop().call_later(0.05, returned.set)
        return "done"

    execution_id = engine.start(engine.agent(work))
    with pytest.raises(Overtime):
        engine.execute(execution_id)
    assert not engine.context(execution_id).state.is_over


def test_a_step_that_raises_stop_iteration_fails_the_same_way_before_and_after_a_crash(engine: Engine) -> None:
    seen: list[str] = []

    async def work(run: AsyncRun, input: None) -> None:
        try:
            await run.step("next", next, iter(()))
        except RuntimeError as error:
            seen.append(type(error).__name__)
        if len(seen) == 1:
            raise Crash

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.COMPLETED
    assert seen == ["RuntimeError", "RuntimeError"]


def test_a_task_group_unwinds_like_anything_else(engine: Engine, calls: Calls) -> None:
    async def work(run: AsyncRun, input: None) -> list[object]:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(run.ask("?"))
            done = group.create_task(run.step("step", calls, 1))
        return [asked.result(), done.result()]

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.PAUSED
    engine.answer(execution_id, "yes")
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == ["yes", 1]
    assert calls.made == [1]


# -- what is written beside each other ---------------------------------------------------------------------------------


def test_what_was_remembered_beside_a_recorded_step_is_not_lost_by_a_crash(engine: Engine) -> None:
    """The first attempt dies before anything is written after the memory: the second finds another step recorded."""
    die = True

    async def work(run: AsyncRun, input: None) -> None:
        other_done = asyncio.Event()

        async def remembering() -> None:
            await other_done.wait()
            run.memory["note"] = "ü"
            run.say("agent", "hello")
            run.remember("fact")
            if die:
                raise Crash
            await run.step("after", double, 1)

        async def other() -> None:
            await run.step("other", double, 2)
            other_done.set()
            if not die:
                await run.step("another", double, 3)

        await asyncio.gather(remembering(), other())

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    die = False
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.COMPLETED
    memory = engine.context(execution_id).memory
    assert memory.working_memory == {"note": "ü"}
    assert [message.content for message in memory.conversation_history] == ["hello"]
    assert memory.facts == ("fact",)


def test_memory_before_a_step_that_an_earlier_attempt_recorded_beside_it_is_kept(engine: Engine) -> None:
    die = True

    async def work(run: AsyncRun, input: None) -> None:
        recorded = asyncio.Event()

        async def first() -> None:
            if die:
                await recorded.wait()
            run.memory["note"] = "kept"
            run.say("agent", "kept")
            if die:
                raise Crash

        async def second() -> None:
            await run.step("second", double, 2)
            recorded.set()

        await asyncio.gather(first(), second())

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    die = False
    engine.execute(execution_id)

    memory = engine.context(execution_id).memory
    assert memory.working_memory == {"note": "kept"}
    assert [message.content for message in memory.conversation_history] == ["kept"]


def test_a_crash_loses_no_event_that_another_steps_checkpoint_came_before(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are in the mailbox, and taken. The process dies when the first of them is recorded."""
    write, take = engine.store.checkpoint, Mailbox.take
    both = threading.Barrier(2, timeout=60)

    async def work(run: AsyncRun, input: None) -> list[object]:
        return list(await asyncio.gather(run.wait_for("left"), run.wait_for("right")))

    def take_both(mailbox: Mailbox, kind: SignalKind, key: str, *more: int) -> Signal | None:
        taken = take(mailbox, kind, key, *more)
        both.wait()
        return taken

    def die_after_one(execution_id: str, checkpoint: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        engine.store.checkpoint = dead  # type: ignore[method-assign]
        write(execution_id, checkpoint, lease)
        raise Crash

    def dead(*args: object, **kwargs: object) -> Checkpointed:
        raise Crash

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    for side in ("left", "right"):
        engine.send(execution_id, SignalKind.EVENT, side, side)
    with monkeypatch.context() as patch:
        patch.setattr(Mailbox, "take", take_both)
        patch.setattr(engine.store, "checkpoint", die_after_one)
        engine.crash(execution_id)
    assert engine.context(execution_id).step_count == 1
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == ["left", "right"]


# -- many at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_many_steps_timeouts_crashes_and_pauses_at_once_leave_one_consistent_journal(
    engine: Engine, calls: Calls, seed: int
) -> None:
    """Each step's effect happens as often as its record says, and nothing hangs."""
    chance = random.Random(seed)
    plan = [
        (chance.choice(["plain", "async", "hurried", "flaky", "nested"]), chance.uniform(0, 0.01)) for _ in range(120)
    ]
    dying = iter(range(2))
    lock = threading.Lock()
    effects: Counter[str] = Counter()
    failed: set[str] = set()

    def effect(name: str, seconds: float) -> str:
        time.sleep(seconds / 4)
        with lock:
            effects[name] += 1
            if len(effects) == 60 and next(dying, None) is not None:
                raise Crash
        return name

    async def effect_async(name: str, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return effect(name, 0)

    def flaky(name: str, seconds: float) -> str:
        if name not in failed:
            failed.add(name)
            raise OSError(name)
        return effect(name, seconds)

    async def work(run: AsyncRun, input: None) -> int:
        async def one(number: int, kind: str, seconds: float) -> str | None:
            name = f"step {number}"
            if kind == "plain":
                return str(await run.step(name, effect, name, seconds))
            if kind == "async":
                return str(await run.step(name, effect_async, name, seconds))
            if kind == "flaky":
                patient = run.options(retry=Retry(retries=1, first_delay=timedelta(milliseconds=2)))
                return str(await patient.step(name, flaky, name, seconds))
            if kind == "nested":
                first, _ = await asyncio.gather(
                    run.step(name, effect_async, name, seconds), run.step(f"{name} too", effect, f"{name} too", 0)
                )
                return str(first)
            try:
                async with asyncio.timeout(seconds / 2):
                    return str(await run.step(name, effect_async, name, seconds))
            except TimeoutError:
                return None

        results = await asyncio.gather(*(one(number, *how) for number, how in enumerate(plan)))
        for number, (kind, _) in enumerate(plan):
            assert results[number] == f"step {number}" or (kind == "hurried" and results[number] is None)
        answer = await run.ask("done?")
        assert answer == "yes"
        return len(results)

    execution_id = engine.start(engine.agent(work))
    crashes = 0
    while True:
        try:
            outcome = engine.execute(execution_id)
        except Crash:
            crashes += 1
            continue
        assert outcome is not None
        if outcome.ending is not Ending.PAUSED:
            break
        engine.answer(execution_id, "yes")

    assert outcome.output == len(plan)
    assert 1 <= crashes <= 2
    steps = engine.context(execution_id).steps
    assert [step.step_number for step in steps] == list(range(1, len(steps) + 1))
    recorded = {step.name for step in steps if step.result is not None}
    assert len(recorded) == len(steps)
    for name, times in effects.items():
        assert name in recorded
        assert 1 <= times <= 1 + crashes
