"""Many executions of an async agent, in flight on one event loop."""

import asyncio

from celery_agents import AsyncRun, agent
from tests.crash.ledger import RETURNED, Ledger

STEPS = 4


@agent(name="crash.many_async")
async def many_async(run: AsyncRun, input: int) -> list[int]:
    """Take steps that each take a while, and note each that has returned."""
    return [await run.step("step", slow, run.execution_id, number) for number in range(input)]


async def slow(execution_id: str, number: int) -> int:
    """Wait, and say so outside."""
    await asyncio.sleep(0.1)
    Ledger.of_this_worker().note(RETURNED, execution_id, number, 1)
    return number
