"""The run that code finds which is not handed it, and the threads in which no step can be taken."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from celery_agents import AsyncRun, Run, StepInThread, current_run, current_step, tool
from celery_agents.misuse import NestedStep
from tests.celery_agents.driving import Calls, Engine


def test_code_finds_the_run_of_its_agent_and_none_inside_a_step(engine: Engine) -> None:
    seen: list[Any] = []

    def work(run: Run, input: None) -> list[Any]:
        inside = run.step("look", lambda: [current_run() is None, current_step()])
        beside = run.parallel([lambda: current_run() is None, lambda: current_run() is None])
        seen.append(current_run())
        return [current_run() is run, current_step() is None, *inside, *beside]

    assert current_run() is None
    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    assert outcome.output == [True, True, True, "look", True, True]
    assert (current_run(), current_step()) == (None, None)


def test_tasks_of_an_async_agent_find_its_run(engine: Engine) -> None:
    async def look() -> list[Any]:
        return [current_run() is None, current_step()]

    async def task(run: AsyncRun) -> bool:
        await asyncio.sleep(0)
        return current_run() is run

    async def work(run: AsyncRun, input: None) -> list[Any]:
        of_tasks = await asyncio.gather(task(run), task(run))
        of_steps = await asyncio.gather(
            run.step("a", look), run.step("b", lambda: [current_run() is None, current_step()])
        )
        return [*of_tasks, *of_steps]

    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    assert outcome.output == [True, True, [True, "a"], [True, "b"]]


def test_two_executions_at_once_find_each_its_own(engine: Engine) -> None:
    met = threading.Barrier(2, timeout=60)

    def work(run: Run, input: None) -> bool:
        met.wait()
        found = current_run()
        return found is run

    agent = engine.agent(work)
    with ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(engine.execute, [engine.start(agent) for _ in range(2)]))
    assert [outcome and outcome.output for outcome in outcomes] == [True, True]


def in_a_thread(function: Callable[[], Any]) -> list[str]:
    """What the function raised, or returned, in a thread that nobody gave a context."""
    ended: list[Any] = []

    def work() -> None:
        try:
            ended.append(function())
        except StepInThread as error:
            ended.append(type(error).__name__)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return ended


@tool
def hammer(nail: int) -> int:
    return nail


def test_no_step_is_taken_in_a_thread_of_the_code_and_the_error_says_why(engine: Engine, calls: Calls) -> None:
    def work(run: Run, input: None) -> dict[str, Any]:
        return {
            "beside the agent's function": in_a_thread(lambda: run.step("a", calls, 1)),
            "a tool": in_a_thread(lambda: run.tool(hammer, 1)),
            "a question": in_a_thread(lambda: run.ask("really?")),
            "a sleep": in_a_thread(lambda: run.sleep(0)),
            "several": in_a_thread(lambda: run.parallel([lambda: 1])),
            "inside of a step": run.step("b", lambda: in_a_thread(lambda: run.step("c", calls, 2))),
            "finds": in_a_thread(lambda: current_run() is None),
        }

    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    name = StepInThread.__name__
    assert outcome.output == {what: [name] for what in outcome.output} | {"finds": [True]}
    assert calls.made == []


def test_a_step_inside_a_step_is_refused_as_such(engine: Engine) -> None:
    def work(run: Run, input: None) -> str:
        try:
            return str(run.step("outer", lambda: run.step("inner", int)))
        except NestedStep as error:
            return str(error)

    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    assert outcome.output == str(NestedStep("inner", "outer"))


def test_no_step_of_an_async_agent_is_taken_in_a_thread(engine: Engine, calls: Calls) -> None:
    async def work(run: AsyncRun, input: None) -> list[str]:
        def in_another_loop() -> str:
            try:
                asyncio.run(run.step("a", calls, 1))
            except StepInThread as error:
                return str(error)
            return "taken"

        # With a copy of the context, as frameworks call plain functions, and without.
        with_context = await asyncio.to_thread(in_another_loop)
        without = await asyncio.get_running_loop().run_in_executor(None, in_another_loop)
        return [with_context, without]

    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    assert outcome.output == [str(StepInThread("a"))] * 2
    assert "run.parallel" in outcome.output[0]
    assert calls.made == []


@pytest.mark.parametrize("is_async", [False, True])
def test_fail_ends_the_execution_whatever_the_code_around_it_catches(engine: Engine, is_async: bool) -> None:
    def work(run: Run, input: None) -> str:
        try:
            run.fail(LookupError("gone"))
        except Exception:  # noqa: BLE001 - as a framework does
            return "caught"

    async def async_work(run: AsyncRun, input: None) -> str:
        async def framework() -> str:
            try:
                run.fail(LookupError("gone"))
            except Exception:  # noqa: BLE001 - as a framework does
                return "caught"

        return (await asyncio.gather(framework(), return_exceptions=True))[0]

    outcome = engine.execute(engine.start(engine.agent(async_work if is_async else work)))
    assert outcome is not None
    assert isinstance(outcome.error, LookupError)
    assert str(outcome.error) == "gone"
