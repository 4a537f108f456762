"""Agents of Pydantic AI as durable executions; needs the extra `pydantic-ai`.

    agent = Agent("anthropic:claude-sonnet-5-5", name="support", tools=[...], capabilities=[CeleryDurability()])
    support = durable(agent)

    support.enqueue("Where is my order?")

Each request to a model and each call of a tool is a step of the execution: made once, recorded, and after a crash taken
from the record.
"""

from celery_agents.integrations.pydantic_ai.durability import CeleryDurability
from celery_agents.integrations.pydantic_ai.durable import durable
from celery_agents.integrations.step_options import StepOptions

__all__ = ["CeleryDurability", "StepOptions", "durable"]
