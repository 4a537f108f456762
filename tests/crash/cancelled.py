"""An agent that is cancelled while it does one thing or another."""

import asyncio
import time
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from celery_agents import AsyncRun, Retry, Run, agent
from tests.crash.ledger import STARTED, Ledger
from tests.services.machine import scaled

INTERRUPTED: Final = "interrupted"
# Longer than any test waits.
LONG_SECONDS: Final = 600.0
# The longest wait that happens in the worker: what the setting may be at most.
MOST_IN_PLACE_SECONDS: Final = 300.0


class Doing(StrEnum):
    """What it does when the cancel comes."""

    STEP = "a step"
    ASYNC_STEP = "an async step"
    ASYNC_AGENT = "a step of an async agent"
    PARALLEL = "parallel async steps"
    RETRY_IN_PLACE = "a short wait before a retry"
    RETRY_PAUSED = "a long wait before a retry"
    SLEEP_IN_PLACE = "a short sleep"
    SLEEP_PAUSED = "a long sleep"
    QUESTION = "a question"
    EVENT = "a wait for an event"
    CHILD = "a wait for a child"


BUSY: Final = (
    Doing.STEP,
    Doing.ASYNC_STEP,
    Doing.ASYNC_AGENT,
    Doing.PARALLEL,
    Doing.RETRY_IN_PLACE,
    Doing.SLEEP_IN_PLACE,
)


@agent(name="crash.cancelled")
def cancelled(run: Run, input: Doing) -> str:
    """Does it, and then takes one more step, which nobody should see."""
    do(run, input)
    run.step("after", note, run.execution_id, 2)
    return "done"


def do(run: Run, doing: Doing) -> None:
    """The one thing."""
    execution_id = run.execution_id
    match doing:
        case Doing.STEP:
            run.step("held", hold, execution_id)
        case Doing.ASYNC_STEP:
            run.step("long", stay, execution_id, 1)
        case Doing.PARALLEL:
            run.parallel([lambda: stay(execution_id, 1), lambda: stay(execution_id, 1)])
        case Doing.RETRY_IN_PLACE:
            run.options(retry=_retry(in_place_seconds())).step("failing", fail, execution_id)
        case Doing.RETRY_PAUSED:
            run.options(retry=_retry(LONG_SECONDS)).step("failing", fail, execution_id)
        case _:
            run.step("begun", note, execution_id, 1)
            wait(run, doing)


def wait(run: Run, doing: Doing) -> None:
    """The one thing, where that is no step."""
    match doing:
        case Doing.SLEEP_IN_PLACE:
            run.sleep(in_place_seconds())
        case Doing.SLEEP_PAUSED:
            run.sleep(LONG_SECONDS)
        case Doing.QUESTION:
            run.ask("Well?")
        case Doing.EVENT:
            run.wait_for("nothing")
        case Doing.CHILD:
            run.gather(run.spawn(cancelled, Doing.ASYNC_STEP), run.spawn(cancelled, Doing.QUESTION))
        case _:
            raise AssertionError(doing)


@agent(name="crash.cancelled_async")
async def cancelled_async(run: AsyncRun, input: Doing) -> str:
    """The same by an async agent."""
    await run.step("long", stay, run.execution_id, 1)
    await run.step("after", note, run.execution_id, 2)
    return "done"


@agent(name="crash.brief")
def brief(run: Run, input: None) -> str:
    """Is over at once."""
    run.step("begun", note, run.execution_id, 1)
    return "done"


def note(execution_id: str, number: int) -> None:
    """A step function that only tells the ledger."""
    Ledger.of_this_worker().note(STARTED, execution_id, number, 1)


def hold(execution_id: str) -> None:
    """One that nothing can interrupt: it stays until the test lets it go."""
    note(execution_id, 1)
    Ledger.of_this_worker().wait_at_gate(execution_id, 1)


async def stay(execution_id: str, number: int) -> None:
    """One that stays, and tells when it is interrupted."""
    note(execution_id, number)
    try:
        await asyncio.sleep(LONG_SECONDS)
    except asyncio.CancelledError:
        Ledger.of_this_worker().note(INTERRUPTED, execution_id, number, 1)
        raise


def fail(execution_id: str) -> Any:
    """One that fails."""
    note(execution_id, 1)
    raise TimeoutError(f"at {time.time()}")


def in_place_seconds() -> float:
    """Longer than a cancel may take on this machine, and short enough for the wait to happen in the worker."""
    return min(scaled(30.0), MOST_IN_PLACE_SECONDS)


def _retry(seconds: float) -> Retry:
    return Retry(retries=3, first_delay=timedelta(seconds=seconds), max_delay=timedelta(seconds=seconds))
