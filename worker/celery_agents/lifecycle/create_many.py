"""The creation of many executions at once: few round trips to the store and to the broker, whatever their number."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import AgentContext, JSONValue
from agent_statestore.states import AgentState
from celery_agents.define.agent import AgentDefinition
from celery_agents.lifecycle import keys
from celery_agents.lifecycle.plan import Plan
from celery_agents.lifecycle.services import Services
from celery_agents.lifecycle.turns import admission
from celery_agents.lifecycle.turns.displacing import try_to_displace

# How many are stored, and then published, at once: a process that dies in between delays no more by a ring interval.
_AT_ONCE: Final = 500


def create_many(
    services: Services,
    agent: AgentDefinition | str,
    inputs: Iterable[JSONValue],
    *,
    idempotency_keys: Iterable[str] | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
    metadata: Mapping[str, JSONValue] | None = None,
    queue: str | None = None,
    priority: int | None = None,
    start_at: datetime | None = None,
    deadline: datetime | timedelta | None = None,
) -> list[str]:
    """Create executions, ring their bells, and return their ids. `celery_agents.enqueue_many` describes the rest."""
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
    values = list(inputs)
    given: list[str | None] = [None] * len(values) if idempotency_keys is None else list(idempotency_keys)
    if len(given) != len(values):
        raise InvalidRecord("idempotency_keys", f"needs one for each of {len(values)} inputs, not {len(given)}")
    for key in given:
        keys.check_given(key)
    # All are checked before any is stored.
    news = iter([plan.new(value, key) for value, key in zip(values, given, strict=True)])
    turns, created = plan.agent.turns, list[AgentContext]()
    while some := list(islice(news, _AT_ONCE)):
        if session_id is not None and turns.rejects(session_id):
            made = tuple(admission.create(services.store, turns, new) for new in some)
        else:
            made = services.store.create_many(some)
        if turns.displaces:  # the newest of them, all before it
            newest = max(made, key=lambda context: (context.created_at, context.execution_id))
            try_to_displace(services.store, turns, newest, services.ring)
        if start_at is None:
            services.ring_first([context for context in made if context.state is AgentState.IDLE])
        created += made
    return [context.execution_id for context in created]
