"""The creation of an execution together with a transaction of the application: in it, or after its commit."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final

from agent_statestore.checkpoint import NewExecution, new_execution_id
from agent_statestore.errors import InvalidRecord, StoreError
from agent_statestore.plain_text import line_logger
from agent_statestore.records import AgentContext
from agent_statestore.sql.callers import Hook, UnfitConnection, caller_of
from agent_statestore.states import AgentState
from celery_agents.define.turns import Turns
from celery_agents.lifecycle.services import Services
from celery_agents.lifecycle.turns.displacing import try_to_displace

log = line_logger(__name__)

# When a sweeper rings for an execution whose creator was lost between the commit and the bell. The time counts from the
# creation, so that after a long transaction it is due at once.
_FIRST_RING: Final = timedelta(seconds=1)


def create(services: Services, turns: Turns, new: NewExecution, connection: Any, on_commit: Any) -> str:
    """Create an execution in the transaction of `connection`, or after the commit that `on_commit` tells of.

    Return its id at once. Raise `InvalidRecord` for what cannot be known before the commit.
    """
    given = "connection" if on_commit is None else "on_commit"
    if connection is not None and on_commit is not None:
        raise InvalidRecord(given, "give a connection or on_commit, not both")
    if new.session_id is not None and turns.rejects(new.session_id):
        raise InvalidRecord(
            given,
            f"agent {turns.agent_id!r} rejects a second execution in a session, and whether there is one is only known "
            "after the commit: enqueue it then",
        )
    new = replace(new, first_ring=min(new.first_ring, _FIRST_RING), rings=0)
    if connection is not None:
        return _create_in(services, turns, new, connection)
    if new.idempotency_key is not None:
        raise InvalidRecord(
            given, "the id is known at once, and an idempotency_key may lead to another one: choose the execution_id"
        )
    new = replace(new, execution_id=new.execution_id or new_execution_id())
    assert new.execution_id is not None
    _after(on_commit, partial(_create_now, services, turns, new))
    return new.execution_id


def _create_in(services: Services, turns: Turns, new: NewExecution, connection: Any) -> str:
    context = services.store.create_in(connection, new)
    if _is_ready(context, new):
        services.after_commit(connection, partial(_ring, services, turns, context))
    return context.execution_id


def _create_now(services: Services, turns: Turns, new: NewExecution) -> None:
    context = services.store.create(new)
    if _is_ready(context, new):
        _ring(services, turns, context)


def _is_ready(context: AgentContext, new: NewExecution) -> bool:
    return new.start_at is None and context.state is AgentState.IDLE


def _ring(services: Services, turns: Turns, context: AgentContext) -> None:
    """Ring, after a commit that no fault of ours may seem to have undone."""
    if turns.displaces:
        try_to_displace(services.store, turns, context, services.ring)
    try:
        services.ring(context)
    except StoreError as error:
        log.warning("execution %s: a sweeper rings its bell once more: %s", context.execution_id, error)


def _after(on_commit: Any, hook: Hook) -> None:
    if callable(on_commit) and not type(on_commit).__module__.startswith("sqlalchemy."):
        on_commit(hook)
        return
    try:
        caller_of(on_commit).after_commit(hook)
    except UnfitConnection as unfit:
        raise InvalidRecord("on_commit", f"{unfit}; or a function that calls a function after the commit") from unfit
