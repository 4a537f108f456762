"""An agent that holds two questions open at once; on an older version, one after the other."""

import asyncio
import os

from celery_agents import AsyncRun, agent
from tests.crash.ledger import RETURNED, STARTED, Ledger
from tests.crash.older import VARIABLE

STEPS = 3


@agent(name="crash.asking_two")
async def asking_two(run: AsyncRun, input: str) -> list[str]:
    """Take steps, ask two people, take steps again."""
    before = [await run.step("before", noted, run.execution_id, run.attempt, number) for number in range(STEPS)]
    first, second = run.ask("First?", name="first", schema=str), run.ask("Second?", name="second", schema=str)
    answers = [await first, await second] if os.environ.get(VARIABLE) else await asyncio.gather(first, second)
    after = [await run.step("after", noted, run.execution_id, run.attempt, STEPS + number) for number in range(STEPS)]
    return [input, *before, *answers, *after]


async def noted(execution_id: str, attempt: int, number: int) -> str:
    """Take a moment, and say so outside."""
    ledger = Ledger.of_this_worker()
    ledger.note(STARTED, execution_id, number, attempt)
    await asyncio.sleep(0.02)
    ledger.note(RETURNED, execution_id, number, attempt)
    return str(number)


def undisturbed(input: str, first: str, second: str) -> list[str]:
    """What it returns."""
    numbers = [str(number) for number in range(2 * STEPS)]
    return [input, *numbers[:STEPS], first, second, *numbers[STEPS:]]
