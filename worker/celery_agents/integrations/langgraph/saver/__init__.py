"""The threads of LangGraph in a store: `StoreSaver`, a checkpointer."""

from celery_agents.integrations.langgraph.saver.errors import ThreadChanged
from celery_agents.integrations.langgraph.saver.saver import StoreSaver

__all__ = ["StoreSaver", "ThreadChanged"]
