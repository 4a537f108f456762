"""The creation of an execution from the outside: check the input, store the execution, ring its bell."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from agent_statestore.records import JSONValue
from agent_statestore.states import AgentState
from celery_agents.define.agent import AgentDefinition
from celery_agents.lifecycle import keys
from celery_agents.lifecycle.plan import Plan
from celery_agents.lifecycle.services import Services
from celery_agents.lifecycle.turns import admission
from celery_agents.lifecycle.turns.displacing import try_to_displace


def create(
    services: Services,
    agent: AgentDefinition | str,
    input: JSONValue = None,  # noqa: A002 - the field's standard name
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    metadata: Mapping[str, JSONValue] | None = None,
    idempotency_key: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    start_at: datetime | None = None,
    deadline: datetime | timedelta | None = None,
    execution_id: str | None = None,
    connection: Any = None,
    on_commit: Any = None,
    tick_key: str | None = None,
) -> str:
    """Create an execution, ring its bell, and return its id. `celery_agents.enqueue` describes parameters and errors.

    `tick_key` is the key of a schedule's tick (`keys.of_tick`), in place of a user's `idempotency_key`.
    """
    keys.check_given(idempotency_key)
    plan = Plan.of(
        services,
        agent,
        session_id=session_id,
        user_id=user_id,
        metadata=metadata,
        queue=queue,
        priority=priority,
        start_at=start_at,
        deadline=deadline,
    )
    new = plan.new(input, idempotency_key if tick_key is None else tick_key, execution_id)
    turns = plan.agent.turns
    if connection is not None or on_commit is not None:
        from celery_agents.lifecycle import committing  # only those who have a transaction need it

        return committing.create(services, turns, new, connection, on_commit)
    if session_id is not None and turns.rejects(session_id):
        context = admission.create(services.store, turns, new)
    else:
        context = services.store.create(new)
    if turns.displaces and context.state is AgentState.IDLE:
        try_to_displace(services.store, turns, context, services.ring)
    if start_at is None and context.state is AgentState.IDLE:
        services.ring_first([context])
    return context.execution_id
