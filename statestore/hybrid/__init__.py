"""Executions in two stores: active ones in a hot store, finished ones in a cold one."""

from statestore.hybrid.archiving import Archived
from statestore.hybrid.store import HybridStore

__all__ = ["Archived", "HybridStore"]
