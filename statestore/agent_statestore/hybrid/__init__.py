"""Executions in two stores: active ones in a hot store, finished ones in a cold one."""

from agent_statestore.hybrid.archiver import Archived
from agent_statestore.hybrid.store import HybridStore

__all__ = ["Archived", "HybridStore"]
