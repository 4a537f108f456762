"""What `create` answers when the idempotency key, or the chosen id, is taken; of one execution or of many."""

import json
from collections.abc import Callable, Sequence

from agent_statestore.checkpoint import NewExecution, new_execution_id
from agent_statestore.codec import encode_new
from agent_statestore.envelope import dump, load
from agent_statestore.errors import ExecutionIdTaken, IdempotencyConflict, StoreError
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


def create_each(
    news: Sequence[NewExecution],
    create: Callable[[NewExecution], AgentContext],
    at_once: Callable[[], Sequence[AgentContext | None]] | None = None,
) -> tuple[AgentContext, ...]:
    """Create many executions: as many as possible by `at_once`, and by `create` those for which it returns None.

    Raise the first refusal when all have been tried.
    """
    made = list(at_once() if at_once is not None and news else [None] * len(news))
    refusal: StoreError | None = None
    for number, context in enumerate(made):
        if context is None:
            try:
                made[number] = create(news[number])
            except (IdempotencyConflict, ExecutionIdTaken) as error:
                refusal = refusal or error
    if refusal is not None:
        raise refusal
    return tuple(context for context in made if context is not None)


def check_each(news: Sequence[NewExecution], max_bytes: int) -> None:
    """Raise `NotSerialisable` or `ValueTooLarge` if one of them cannot be stored."""
    for new in news:
        encode_new(new.execution_id or new_execution_id(), new, None, max_bytes)


def _text(value: JSONValue) -> str:
    """Return one text for all values that are the same in JSON, in whatever order their names stand."""
    return json.dumps(load(dump(value, "input")), sort_keys=True)
