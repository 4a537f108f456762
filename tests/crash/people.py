"""Agents that wait for people, and for time, for weeks."""

import asyncio
from datetime import timedelta
from typing import Final

from celery_agents import ApprovalExpired, AsyncRun, Run, ToolContext, agent, tool
from tests.crash.effects import Outside

# Longer than the time that passes in the tests, and shorter.
LONG: Final = timedelta(weeks=4)
SHORT: Final = timedelta(weeks=2)


def _transfer(to: str, cents: int, this: ToolContext) -> str:
    with Outside.of_this_worker().effect(this.idempotency_key, f"{cents} to {to}"):
        return f"transferred {cents} to {to}"


transfer = tool(name="crash.transfer", requires_approval=True, approval_timeout=LONG)(_transfer)
hasty_transfer = tool(name="crash.hasty_transfer", requires_approval=True, approval_timeout=SHORT)(_transfer)


@agent(name="crash.paying")
def paying(run: Run, input: int) -> str:
    """Asks to whom, and then whether it may."""
    to = run.ask("To whom?", schema=str)
    return run.step("transfer", transfer, to, input)


@agent(name="crash.paying_in_haste")
def paying_in_haste(run: Run, input: int) -> str:
    """Asks whether it may, and takes no answer for a refusal."""
    try:
        return run.step("transfer", hasty_transfer, "nobody", input)
    except ApprovalExpired as error:
        return type(error).__name__


@agent(name="crash.hibernating")
def hibernating(run: Run, input: None) -> str:
    """Sleeps, and then waits for an event that does not come."""
    run.sleep(SHORT)
    return str(run.wait_for("spring", timeout=timedelta(days=1), default="no spring"))


@agent(name="crash.deciding")
async def deciding(run: AsyncRun, input: int) -> list[str]:
    """Asks whether it may, as often as it is told to, and from which account: all at once."""

    def transfer_to(number: int, cents: int) -> str:
        with Outside.of_this_worker().effect(f"{run.execution_id}/{number}", f"{cents}"):
            return f"transferred {cents}"

    async def one(number: int) -> str:
        allowed = await run.approve("transfer", {"number": number, "cents": 100}, name=f"allow {number}")
        return await run.step(f"transfer {number}", transfer_to, number, allowed["cents"])

    return list(await asyncio.gather(*map(one, range(input)), run.ask("From which account?", name="account")))
