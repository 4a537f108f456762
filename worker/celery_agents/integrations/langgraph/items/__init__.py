"""What graphs remember across threads, in a store: `GraphStore`, LangGraph's `BaseStore`."""

from celery_agents.integrations.langgraph.items.graph_store import GraphStore

__all__ = ["GraphStore"]
