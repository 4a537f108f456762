"""The current app's runtime, and executions started on it, for a caller without an app at hand."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from celery import current_app

from agent_statestore.documents.sessions import Session
from agent_statestore.errors import ExecutionNotFound
from agent_statestore.records import JSONValue
from celery_agents.client.execution import Execution
from celery_agents.define.agent import AgentDefinition
from celery_agents.errors import ConfigurationError
from celery_agents.host.runtime import Runtime, find_runtime, installed_runtimes, runtime_of
from celery_agents.lifecycle.create import create
from celery_agents.lifecycle.create_many import create_many
from celery_agents.lifecycle.services import Services


def current_runtime() -> Runtime:
    """Return the runtime of Celery's current app, else of the only installed app, else of `celery_agents.celery`.

    Raise `ConfigurationError` where several apps are installed and none is current.
    """
    found = find_runtime(current_app._get_current_object())
    if found is not None:
        return found
    installed = installed_runtimes()
    if not installed:
        from celery_agents.celery import app  # here, because it makes an app of Celery's

        return runtime_of(app)
    if len(installed) > 1:
        raise ConfigurationError("app", "several apps are installed and none is current: call app.set_current()")
    return installed[0]


def enqueue(
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
    runtime: Services | None = None,
) -> Execution:
    """Start an execution of an agent, which is given as an object or by name.

    The input is checked against the agent's schema before anything is stored. A second call with the same
    `idempotency_key` and the same input returns the first call's execution; with another input it raises
    `IdempotencyConflict`. With `start_at`, nothing runs before that moment. An execution that does not end by its
    `deadline` fails, or asks if the agent has `on_limit="ask"`. If the broker cannot be reached, the execution is
    stored nevertheless, and a sweeper starts it as soon as it can.

    `execution_id` is an id that the caller has chosen, a UUID as text; it does what an `idempotency_key` does.

    `connection` is the caller's connection to the store's own SQL database (Django's, or a connection or session of
    SQLAlchemy): the execution is stored in the caller's transaction, or with a rollback never was. Until the commit,
    nobody sees it, and the methods of the handle raise `ExecutionNotFound`. `on_commit` works with any store: it is
    such a connection, or a function that calls a function after the commit (`django.db.transaction.on_commit`), and the
    execution is stored then. If the process dies in between, it is lost. Either is refused for an agent with
    `session_policy="reject"` and a session, and `on_commit` with an `idempotency_key`.

    Raises `UnknownAgent`, `InvalidInput`, `SessionBusy`, `IdempotencyConflict`, `ExecutionIdTaken`,
    `ForeignConnection`, `NotSerialisable`, `ValueTooLarge`, `InvalidRecord` (also for an `idempotency_key` that begins
    with "agents:"), `StoreUnavailable`, and whatever the agent's `concurrency_key` raises. After any of them nothing is
    stored.
    """
    services = runtime or current_runtime()
    created = create(
        services,
        agent,
        input,
        session_id=session_id,
        user_id=user_id,
        metadata=metadata,
        idempotency_key=idempotency_key,
        queue=queue,
        priority=priority,
        start_at=start_at,
        deadline=deadline,
        execution_id=execution_id,
        connection=connection,
        on_commit=on_commit,
    )
    return Execution(created, services)


def enqueue_many(
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
    runtime: Services | None = None,
) -> list[Execution]:
    """Start an execution of an agent for each of the inputs, and return their handles in this order.

    For each this is `enqueue` with the same options, and with its key of `idempotency_keys`, which has as many. But
    store and broker are asked once for 500 of them. All inputs are checked before anything is stored. An
    `IdempotencyConflict` is raised when all were tried, and the others run. After `StoreUnavailable`, or if this
    process dies, any of them may have been stored, and will run: repeat the call with the same `idempotency_keys` to
    start exactly the others.

    Raises what `enqueue` raises, and `InvalidRecord` if the number of keys is another.
    """
    services = runtime or current_runtime()
    ids = create_many(
        services,
        agent,
        inputs,
        idempotency_keys=idempotency_keys,
        session_id=session_id,
        user_id=user_id,
        metadata=metadata,
        queue=queue,
        priority=priority,
        start_at=start_at,
        deadline=deadline,
    )
    return [Execution(execution_id, services) for execution_id in ids]


def get_execution(execution_id: str, *, runtime: Services | None = None) -> Execution:
    """Return the handle of an existing execution. Raise `ExecutionNotFound`."""
    services = runtime or current_runtime()
    if services.store.get_summary(execution_id) is None:
        raise ExecutionNotFound(execution_id)
    return Execution(execution_id, services)


def get_session(session_id: str, *, runtime: Services | None = None) -> Session:
    """Return the conversation of a session: to read, to sum up, to rewind, to fork, to erase. It need not have one.

    Raise `InvalidRecord` for an invalid id.
    """
    return (runtime or current_runtime()).store.session(session_id)
