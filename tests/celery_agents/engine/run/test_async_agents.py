"""Async agents and tools: one event loop per process, steps at once, the same journal."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState
from celery_agents import AsyncRun, MemoryInParallel, NestedStep, Retry, Run, StepTimeout, tool
from celery_agents.engine.executor import Defaults
from celery_agents.engine.outcome import Ending
from celery_agents.engine.run import event_loop
from tests.celery_agents.driving import Calls, Crash, Engine


async def double(number: int) -> int:
    await asyncio.sleep(0.001)
    return number * 2


def test_an_async_agent_awaits_its_steps(engine: Engine) -> None:
    async def work(run: AsyncRun, input: int) -> list[int]:
        first = await run.step("first", double, input)
        second = await run.step("second", lambda: first + 1)  # a plain function, in a thread
        run.say("agent", second)
        run.memory["second"] = second
        third: int = await run.tool(tool(registry=engine.registry)(double), second)
        return [first, second, third]

    execution_id = engine.start(engine.agent(work), 1)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [2, 3, 6]
    context = engine.context(execution_id)
    assert [step.name for step in context.steps] == ["first", "second", "double"]
    assert [message.content for message in context.memory.conversation_history] == [3]
    assert context.memory.working_memory == {"second": 3}


def test_steps_run_at_once_and_keep_the_places_of_the_code(engine: Engine) -> None:
    together = threading.Barrier(3, timeout=60)

    async def meet(number: int) -> int:
        await asyncio.sleep(0.01 * (3 - number))
        await asyncio.to_thread(together.wait)
        return number

    async def work(run: AsyncRun, input: None) -> list[Any]:
        return await asyncio.gather(*(run.step("meet", meet, number) for number in range(3)))

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [0, 1, 2]
    steps = {step.name: step for step in engine.context(execution_id).steps}
    assert [steps[name].result.output for name in ("meet", "meet#2", "meet#3")] == [0, 1, 2]  # type: ignore[union-attr]


def test_a_crash_repeats_only_the_unfinished(engine: Engine, calls: Calls) -> None:
    die = True

    async def look(number: int) -> int:
        calls(number)
        if number == 2 and die:
            await asyncio.sleep(0.05)
            raise Crash
        return number

    async def work(run: AsyncRun, input: None) -> list[Any]:
        return await asyncio.gather(*(run.step("look", look, number) for number in range(3)))

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    die = False
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [0, 1, 2]
    assert sorted(calls.made) == [0, 1, 2, 2]


def test_a_pause_waits_for_what_is_in_flight(engine: Engine, calls: Calls) -> None:
    async def slow() -> str:
        await asyncio.sleep(0.1)
        calls("slow")
        return "done"

    async def work(run: AsyncRun, input: None) -> list[str]:
        return list(await asyncio.gather(run.step("slow", slow), run.ask("Which?")))

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.PAUSED
    assert [step.name for step in engine.context(execution_id).steps] == ["slow"]

    engine.answer(execution_id, "this")
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == ["done", "this"]
    assert calls.made == ["slow"]


def test_questions_at_once_keep_their_keys(engine: Engine) -> None:
    async def work(run: AsyncRun, input: None) -> list[str]:
        return list(await asyncio.gather(*(run.ask(f"{number}?") for number in range(3))))

    execution_id = engine.start(engine.agent(work))
    asked = []
    for _ in range(3):
        engine.execute(execution_id)
        waiting = engine.context(execution_id).waiting
        assert waiting is not None
        asked.append((waiting.key, waiting.prompt))
        engine.answer(execution_id, f"to {waiting.prompt}", waiting.key)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == ["to 0?", "to 1?", "to 2?"]
    assert sorted(asked) == [("ask", "0?"), ("ask#2", "1?"), ("ask#3", "2?")]


def test_an_async_tool_is_awaited_by_a_plain_agent(engine: Engine) -> None:
    fetch = tool(registry=engine.registry)(double)

    def work(run: Run, input: None) -> list[int]:
        fetched: Any = run.tool(fetch, 2)
        again: Any = run.step("again", double, 3)
        return [*run.parallel([lambda: 1, lambda: 2]), fetched, again]

    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    assert outcome.output == [1, 2, 4, 6]


def test_the_loop_is_one_and_its_clients_outlive_an_execution(engine: Engine) -> None:
    seen: list[object] = []

    async def where() -> None:
        seen.append(asyncio.get_running_loop())

    async def work(run: AsyncRun, input: None) -> None:
        seen.append(asyncio.get_running_loop())
        await run.step("where", where)

    agent = engine.agent(work)
    for _ in range(2):
        engine.execute(engine.start(agent))
    assert len(seen) == 4
    assert set(seen) == {event_loop.event_loop()}


def test_a_step_inside_a_step_is_refused(engine: Engine) -> None:
    async def work(run: AsyncRun, input: None) -> None:
        async def inner() -> None:
            await run.step("inner", double, 1)

        await run.step("outer", inner)

    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    assert isinstance(outcome.error, NestedStep)


def test_memory_cannot_change_inside_steps(engine: Engine) -> None:
    async def work(run: AsyncRun, input: None) -> None:
        async def remember() -> None:
            run.memory["x"] = 1

        await run.step("remember", remember)

    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    assert isinstance(outcome.error, MemoryInParallel)


def test_a_timeout_cancels_the_coroutine_before_the_retry(engine: Engine, calls: Calls) -> None:
    async def slow() -> str:
        calls("begin")
        try:
            await asyncio.sleep(0.05 if len(calls.made) > 3 else 10)
        finally:
            calls("end")
        return "done"

    async def work(run: AsyncRun, input: None) -> str:
        patient = run.options(
            timeout=timedelta(seconds=0.2), retry=Retry(retries=3, first_delay=timedelta(milliseconds=1))
        )
        done: str = await patient.step("slow", slow)
        return done

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == "done"
    assert calls.made == ["begin", "end"] * 3
    assert engine.context(execution_id).steps[0].tries == 3


def test_a_timeout_without_retries_is_raised(engine: Engine) -> None:
    async def work(run: AsyncRun, input: None) -> None:
        await run.options(timeout=timedelta(milliseconds=50)).step("sleep", asyncio.sleep, 10)

    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    assert isinstance(outcome.error, StepTimeout)
    assert not outcome.error.still_running


def test_a_cancel_ends_an_awaiting_step_at_once(engine: Engine, calls: Calls) -> None:
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            calls("cancelled")
            raise

    async def work(run: AsyncRun, input: None) -> None:
        await run.step("wait", wait)

    engine.limits = Defaults(lease=timedelta(seconds=0.6))
    execution_id = engine.start(engine.agent(work))

    def cancel() -> None:
        assert begun.wait(5)
        engine.cancel(execution_id)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    outcome = engine.execute(execution_id)
    canceller.join()
    assert outcome is not None
    assert outcome.ending is Ending.CANCELLED
    assert calls.made == ["cancelled"]
    assert engine.context(execution_id).state is AgentState.CANCELLED


class Overtime(Exception):
    """Stands for Celery's soft time limit."""


def test_an_interrupt_from_outside_ends_the_coroutine(engine: Engine, calls: Calls) -> None:
    engine.interrupts = (Overtime,)

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            calls("ended")

    def overtime() -> None:
        raise Overtime

    async def work(run: AsyncRun, input: None) -> None:
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.01)
        try:
            await run.step("overtime", overtime)
        finally:
            waiting.cancel()
            await asyncio.wait({waiting})

    execution_id = engine.start(engine.agent(work))
    with pytest.raises(Overtime):
        engine.execute(execution_id)
    assert calls.made == ["ended"]
    assert engine.context(execution_id).steps == ()
