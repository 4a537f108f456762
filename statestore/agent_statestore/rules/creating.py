"""What `create` answers when the idempotency key, or the chosen id, is taken."""

import json

from agent_statestore.checkpoint import NewExecution
from agent_statestore.envelope import dump, load
from agent_statestore.errors import ExecutionIdTaken, IdempotencyConflict
from agent_statestore.records import AgentContext, JSONValue


def same_execution(existing: AgentContext, new: NewExecution) -> AgentContext:
    """Return the execution that has the key, if it is the one that is to be created.

    Raise `IdempotencyConflict` if it has another input or another parent.
    """
    if existing.parent_execution_id != new.parent_execution_id or _text(existing.input) != _text(new.input):
        raise IdempotencyConflict(existing.agent_id, existing.idempotency_key or "", existing.execution_id)
    return existing


def same_id(existing: AgentContext | None, new: NewExecution) -> AgentContext:
    """Return the execution that has the chosen id, if it is the one that is to be created.

    Raise `ExecutionIdTaken` if it is another agent's, or has another input or another parent, or is deleted (None).
    """
    assert new.execution_id is not None
    if (
        existing is None
        or existing.agent_id != new.agent_id
        or existing.parent_execution_id != new.parent_execution_id
        or _text(existing.input) != _text(new.input)
    ):
        raise ExecutionIdTaken(new.execution_id)
    return existing


def _text(value: JSONValue) -> str:
    """Return one text for all values that are the same in JSON, in whatever order their names stand."""
    return json.dumps(load(dump(value, "input")), sort_keys=True)
