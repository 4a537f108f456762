"""The current app's runtime, and executions started on it, for a caller without an app at hand."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from celery import current_app

from agent_statestore.errors import ExecutionNotFound
from agent_statestore.records import JSONValue
from celery_agents.client.execution import Execution
from celery_agents.define.agent import AgentDefinition
from celery_agents.errors import ConfigurationError
from celery_agents.host.runtime import Runtime, find_runtime, installed_runtimes, runtime_of
from celery_agents.lifecycle.create import create
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
    runtime: Services | None = None,
) -> Execution:
    """Start an execution of an agent, which is given as an object or by name.

    The input is checked against the agent's schema before anything is stored. A second call with the same
    `idempotency_key` and the same input returns the first call's execution; with another input it raises
    `IdempotencyConflict`. With `start_at`, nothing runs before that moment. An execution that does not end by its
    `deadline` fails, or asks if the agent has `on_limit="ask"`. If the broker cannot be reached, the execution is
    stored nevertheless, and a sweeper starts it as soon as it can.

    Raises `UnknownAgent`, `InvalidInput`, `SessionBusy`, `IdempotencyConflict`, `NotSerialisable`, `ValueTooLarge`,
    `InvalidRecord` (also for an `idempotency_key` that begins with "agents:"), `StoreUnavailable`, and whatever the
    agent's `concurrency_key` raises. After any of them nothing is stored.
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
    )
    return Execution(created.execution_id, services)


def get_execution(execution_id: str, *, runtime: Services | None = None) -> Execution:
    """Return the handle of an existing execution. Raise `ExecutionNotFound`."""
    services = runtime or current_runtime()
    if services.store.get_summary(execution_id) is None:
        raise ExecutionNotFound(execution_id)
    return Execution(execution_id, services)
