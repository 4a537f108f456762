"""`SystemExit` and `KeyboardInterrupt` of the agent's own code are its failures; the process goes on."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState
from agent_statestore.testing.kit.matrix import cells
from celery_agents import AsyncRun, Finished, Retry, Run, StepFailed
from celery_agents.engine.outcome import Ending
from tests.celery_agents.driving import Calls, Crash, Engine

SOON = timedelta(seconds=30)


@pytest.fixture(autouse=True)
def as_in_a_worker() -> Iterator[None]:
    """Nobody's SIGINT raises `KeyboardInterrupt`."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


def step(run: Run, leave: Callable[[], Any]) -> Any:
    return run.step("leave", leave)


def with_timeout(run: Run, leave: Callable[[], Any]) -> Any:
    return run.options(timeout=SOON).step("leave", leave)


def with_retries(run: Run, leave: Callable[[], Any]) -> Any:
    return run.options(retry=Retry(retries=5)).step("leave", leave)


def with_intent(run: Run, leave: Callable[[], Any]) -> Any:
    return run.options(on_crash="fail").step("leave", leave)


def parallel(run: Run, leave: Callable[[], Any]) -> Any:
    return run.parallel({"leave": leave, "beside": lambda: 1})


def coroutine(run: Run, leave: Callable[[], Any]) -> Any:
    async def leave_later() -> None:
        await asyncio.sleep(0)
        leave()

    return run.step("leave", leave_later)


def poll(run: Run, leave: Callable[[], Any]) -> Any:
    def look(_: Any) -> Finished | None:
        leave()
        return None

    return run.wait_job("leave", lambda: 1, poll=look, every=SOON)


def arguments_of_a_program() -> None:
    """As an argument parser does it that is given nonsense."""
    sys.exit(2)


def interrupted() -> None:
    raise KeyboardInterrupt("mine")


WAYS = {way.__name__: way for way in (step, with_timeout, with_retries, with_intent, parallel, coroutine, poll)}


@cells(
    way=WAYS,
    leave={"SystemExit: 2": arguments_of_a_program, "KeyboardInterrupt: mine": interrupted},
)
def test_an_exit_in_a_step_is_its_failure_by_name(
    engine: Engine, way: Callable[[Run, Callable[[], Any]], Any], leave: Callable[[], None]
) -> None:
    calls, seen = Calls(), []

    def once() -> None:
        calls("left")
        leave()

    def work(run: Run, input: None) -> str:
        try:
            way(run, once)
        except StepFailed as error:
            seen.append(str(error))
        if len(seen) == 1:
            raise Crash
        return "went on"

    execution_id = engine.start(engine.agent(work, name=f"agent{len(engine.registry.agents)}"))
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "went on"
    name = "SystemExit: 2" if leave is arguments_of_a_program else "KeyboardInterrupt: mine"
    assert seen == [f"builtins:{name}"] * 2
    assert calls.made == ["left"]
    assert engine.context(execution_id).crashes <= 1  # the planned one


async def in_async_step(run: AsyncRun, input: None) -> None:
    await run.step("leave", arguments_of_a_program)


async def in_async_agent(run: AsyncRun, input: None) -> None:
    await run.step("quick", lambda: 1)
    sys.exit(2)


def in_agent(run: Run, input: None) -> None:
    run.step("quick", lambda: 1)
    sys.exit(2)


def in_step(run: Run, input: None) -> None:
    run.step("leave", arguments_of_a_program)


@cells(work={one.__name__: one for one in (in_step, in_agent, in_async_step, in_async_agent)})
def test_an_exit_that_nobody_catches_fails_the_execution_once(engine: Engine, work: Callable[..., Any]) -> None:
    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.FAILED
    context = engine.context(execution_id)
    assert context.state is AgentState.FAILED
    assert context.error is not None
    assert (context.error.type, context.error.message) == ("builtins:SystemExit", "2")
    assert context.error.fields == {"code": 2}


@cells(work={one.__name__: one for one in (in_step, in_agent, in_async_agent)})
def test_an_exit_while_the_process_is_asked_to_end_is_not_the_agents(engine: Engine, work: Callable[..., Any]) -> None:
    engine.exiting = True
    execution_id = engine.start(engine.agent(work))
    with pytest.raises(SystemExit):
        engine.execute(execution_id)

    context = engine.context(execution_id)
    assert context.state is AgentState.THINKING
    assert context.owner is None
    assert context.crashes == (work is in_step)  # the others have recorded a step before
    assert "leave" not in [step.name for step in context.steps]


def test_ctrl_c_in_a_script_is_not_the_agents(engine: Engine) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def work(run: Run, input: None) -> None:
        run.step("leave", signal.raise_signal, signal.SIGINT)

    execution_id = engine.start(engine.agent(work))
    with pytest.raises(KeyboardInterrupt):
        engine.execute(execution_id)
    assert engine.context(execution_id).owner is None
    assert engine.context(execution_id).steps == ()
