"""Executions in this process's memory, for tests and for programs that are one process."""

from agent_statestore.memory.store import MemoryStore, open_memory

__all__ = ["MemoryStore", "open_memory"]
