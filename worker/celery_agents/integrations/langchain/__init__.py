"""Agents of LangChain as durable executions; needs the extra `langchain`.

    agent = create_agent("anthropic:claude-sonnet-5", tools=[...], name="support", middleware=[DurabilityMiddleware()])
    support = durable_graph(agent)

    support.enqueue("Where is my order?")

Each call of a model and each call of a tool is a step of the execution: made once, recorded, and after a crash taken
from the record. `VectorStoreIndex` keeps the vectors of facts in a vector store of LangChain.
"""

from celery_agents.integrations.langchain.durability import DurabilityMiddleware
from celery_agents.integrations.langchain.vectors import GivenVectors, VectorStoreIndex
from celery_agents.integrations.langgraph.durable import durable_graph
from celery_agents.integrations.step_options import StepOptions

__all__ = ["DurabilityMiddleware", "GivenVectors", "StepOptions", "VectorStoreIndex", "durable_graph"]
