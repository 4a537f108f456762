"""Agents of the OpenAI Agents SDK as durable executions; needs the extra `openai-agents`.

    agent = Agent(name="support", instructions="...", tools=[...])
    support = durable(agent)

    support.enqueue("Where is my order?")

Each request to a model and each call of a tool is a step of the execution: made once, recorded, and after a crash taken
from the record.
"""

from celery_agents.integrations.openai_agents.durable import durable
from celery_agents.integrations.openai_agents.runner import DurableRunner
from celery_agents.integrations.step_options import StepOptions

__all__ = ["DurableRunner", "StepOptions", "durable"]
