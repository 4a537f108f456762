"""A tool call that a person must approve.

The execution pauses before the call, for days if need be. The person who decides sees the exact arguments, and may
change them: `execution.approve(arguments={...})`, `execution.reject(reason=...)`.
"""

from datetime import timedelta

from pydantic import BaseModel, PositiveInt

from celery_agents import ApprovalDenied, ApprovalExpired, Run, ToolContext, agent, tool


class Claim(BaseModel):
    """The money that a customer wants back."""

    customer: str
    amount: PositiveInt


def is_large(arguments: dict[str, int]) -> bool:
    """Return whether the amount is so large that somebody must approve it."""
    return arguments["amount"] > 100


@tool(requires_approval=is_large, approval_timeout=timedelta(days=3))
def pay_back(context: ToolContext, customer: str, amount: int) -> str:
    """Pay a customer back."""
    # A payment provider that gets this key pays once, however often it is asked.
    return f"{amount} to {customer} ({context.idempotency_key.rpartition('/')[2]})"


@agent
def refund(run: Run, claim: Claim) -> str:
    """Refund a customer, if somebody agrees."""
    try:
        return run.tool(pay_back, customer=claim.customer, amount=claim.amount)
    except ApprovalDenied as denied:
        return f"refused: {denied.reason}"
    except ApprovalExpired:
        return "nobody has decided in time"
