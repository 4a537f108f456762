"""What is known of executions before they are created: their agent, checked and found, and all but their inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from agent_statestore.checkpoint import NewExecution
from agent_statestore.records import JSONValue
from celery_agents.define import deadline as deadlines
from celery_agents.define.agent import AgentDefinition
from celery_agents.lifecycle import keys
from celery_agents.lifecycle.services import Services


@dataclass(frozen=True, slots=True)
class Plan:
    """Executions of one agent that differ in their inputs and keys. `fields` are those of `NewExecution`."""

    agent: AgentDefinition
    metadata: Mapping[str, JSONValue]
    fields: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        services: Services,
        agent: AgentDefinition | str,
        *,
        session_id: str | None,
        user_id: str | None,
        metadata: Mapping[str, JSONValue] | None,
        queue: str | None,
        priority: int | None,
        start_at: datetime | None,
        deadline: datetime | timedelta | None,
    ) -> "Plan":
        """Return the plan. Raise `UnknownAgent`, `InvalidRecord` and `TypeError`."""
        keys.check_metadata(metadata)
        if isinstance(agent, str):
            services.load_agents()
            agent = services.registry.agent(agent)
        if not isinstance(agent, AgentDefinition):
            raise TypeError(f"enqueue needs an agent, which is a function with @agent, or its name, not {agent!r:.80}")
        if metadata or deadline is not None:
            metadata = deadlines.added_to(metadata or {}, deadline)
        queue = queue or agent.queue
        services.check_queue(queue)
        fields = {
            "agent_id": agent.name,
            "session_id": session_id,
            "user_id": user_id,
            "queue": queue,
            "priority": agent.priority if priority is None else priority,
            "start_at": start_at,
            "first_ring": timedelta(seconds=services.settings.ring_seconds),
            "rings": 1 if start_at is None else 0,
        }
        return cls(agent, metadata or {}, fields)

    def new(self, value: JSONValue, idempotency_key: str | None, execution_id: str | None = None) -> NewExecution:
        """Return an execution with this input.

        Raise `InvalidInput`, `InvalidRecord` and whatever the agent's `concurrency_key` raises.
        """
        encoded = self.agent.encode_input(value)
        turns, metadata = self.agent.turns, self.metadata
        if metadata or turns.concurrency is not None:
            metadata = turns.added_to(metadata, partial(self.agent.decode_input, encoded))
        return NewExecution(
            input=encoded,
            metadata=metadata,
            idempotency_key=idempotency_key,
            execution_id=execution_id,
            **self.fields,
        )
