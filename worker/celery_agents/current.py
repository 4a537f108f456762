"""Starting executions and finding them again."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial

from agent_statestore.checkpoint import NewExecution
from agent_statestore.errors import ExecutionNotFound
from agent_statestore.records import JSONValue
from agent_statestore.states import AgentState
from celery_agents.client.execution import Execution
from celery_agents.define import deadline as deadlines
from celery_agents.define.agent import Agent
from celery_agents.host.runtime import Runtime, current_runtime
from celery_agents.lifecycle import turns


def enqueue(
    agent: Agent | str,
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
    runtime: Runtime | None = None,
) -> Execution:
    """Starts an execution of an agent, given as such or by name.

    The input is held against the agent's schema before anything is stored. A second call with the same
    `idempotency_key` returns the first one's execution. With `start_at` nothing runs before that moment; an execution
    that is not over by its `deadline` fails, or with the agent's `on_limit="ask"` asks. If the broker
    cannot be reached, the execution is stored nevertheless, and a sweeper starts it as soon as it can.

    Raises `UnknownAgent`, `InvalidInput`, `SessionBusy`, `NotSerialisable`, `ValueTooLarge`, `InvalidRecord`,
    `StoreUnavailable`, and what the agent's `concurrency_key` raises; after any of them nothing is stored.
    """
    runtime = runtime or current_runtime()
    settings = runtime.settings
    if isinstance(agent, str):
        _load_agents(runtime)
        agent = runtime.registry.agent(agent)
    if not isinstance(agent, Agent):
        raise TypeError(f"enqueue needs an agent, which is a function with @agent, or its name, not {agent!r:.80}")
    encoded = agent.encode_input(input)
    metadata = deadlines.added_to(metadata or {}, deadline)
    context = turns.create(
        runtime.store,
        agent.turns,
        NewExecution(
            agent_id=agent.name,
            input=encoded,
            session_id=session_id,
            user_id=user_id,
            metadata=agent.turns.added_to(metadata, partial(agent.decode_input, encoded)),
            idempotency_key=idempotency_key,
            queue=queue or agent.queue,
            priority=priority,
            start_at=start_at,
            first_ring=timedelta(seconds=settings.publish_grace_seconds),
        ),
    )
    execution = Execution(context.execution_id, runtime)
    if start_at is None and context.state is AgentState.IDLE:
        runtime.ring(context)
    return execution


def get_execution(execution_id: str, *, runtime: Runtime | None = None) -> Execution:
    """The handle of an existing execution. Raises `ExecutionNotFound`."""
    runtime = runtime or current_runtime()
    if runtime.store.get_summary(execution_id) is None:
        raise ExecutionNotFound(execution_id)
    return Execution(execution_id, runtime)


def _load_agents(runtime: Runtime) -> None:
    """Imports the modules that the app is configured to import: there the agents are defined."""
    runtime.app.loader.import_default_modules()
