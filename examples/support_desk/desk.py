"""The agent, as any agent of Pydantic AI, and two lines that make it durable."""

import os
import sys
from datetime import timedelta
from pathlib import Path

from fastmcp.client.transports import StdioTransport
from pydantic import BaseModel
from pydantic_ai import Agent, RunContext
from pydantic_ai.exceptions import CallDeferred
from pydantic_ai.mcp import MCPToolset

from celery_agents.integrations.pydantic_ai import CeleryDurability, durable
from examples.support_desk.models import chosen
from examples.support_desk.orders import Orders

ROOT = Path(__file__).parents[2]


class Resolution(BaseModel):
    """How a case ended."""

    summary: str
    refunded: float


warehouse = MCPToolset(
    StdioTransport(
        command=sys.executable,
        args=["-m", "examples.support_desk.warehouse"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ),
    id="warehouse",
    init_timeout=60,
)

agent = Agent(
    chosen(),
    name="support-desk",
    deps_type=Orders,
    output_type=Resolution,
    instructions="You work at the support desk of a shop. Look at the order and the stock before you decide anything.",
    toolsets=[warehouse],
    capabilities=[CeleryDurability(approval_timeout=timedelta(days=7))],
)


@agent.tool
def find_order(context: RunContext[Orders], number: int) -> str:
    """Find an order by its number."""
    order = context.deps.find(number)
    return "there is no such order" if order is None else str(order)


@agent.tool_plain
def ask_customer(question: str) -> str:  # noqa: ARG001 - it is shown to the customer
    """Ask the customer something, and wait for the answer, however long it takes."""
    raise CallDeferred(kind="question")


@agent.tool(requires_approval=True)
def refund(context: RunContext[Orders], number: int, amount: float, reason: str) -> str:
    """Pay money back for an order. A person has to agree, and may change the amount."""
    context.deps.refund(str(context.tool_call_id), number, amount, reason)
    return f"refunded {amount} euros"


def orders() -> Orders:
    """Return what an attempt works with."""
    return Orders(Path(os.environ["SUPPORT_DESK_ORDERS"]))


support_desk = durable(agent, deps=orders, max_cost=0.5, max_steps=50, deadline=timedelta(days=30))
