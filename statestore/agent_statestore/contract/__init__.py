"""The store contract: the primitives that every backend implements."""

from agent_statestore.contract.duties import Duty
from agent_statestore.contract.primitives import DEFAULT_MAX_MAILBOX, StorePrimitives

__all__ = ["DEFAULT_MAX_MAILBOX", "Duty", "StorePrimitives"]
