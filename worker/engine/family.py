"""What an execution needs of the outside to have children: the store, the registry, and somebody who rings bells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from statestore.checkpoint import Checkpoint, NewExecution
from statestore.errors import ExecutionNotFound, ExecutionOver, LeaseHeld
from statestore.operations import Store
from statestore.records import AgentContext, ExecutionSummary, JSONValue, Signal, SignalKind
from statestore.states import AgentState
from worker import deadline
from worker.errors import SpawnTooDeep
from worker.registry import Registry

if TYPE_CHECKING:
    from worker.agent import Agent
    from worker.engine.attempt import Attempt

SPAWN: Final = "spawn"

Ring = Callable[[ExecutionSummary], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnd:
    """How a child ended: in `state`, with an output or an error. A child that is gone has no state."""

    state: AgentState | None
    output: JSONValue = None
    error_type: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildOptions:
    """What a parent may choose for a child; the session and the user are the parent's unless given."""

    session_id: str | None = None
    user_id: str | None = None
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)
    queue: str | None = None
    priority: int | None = None
    start_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Starts children, and tells each side of the other's end. `ring` publishes a bell."""

    store: Store
    registry: Registry
    ring: Ring
    first_ring: timedelta
    max_depth: int
    announce_within: timedelta | None = None

    def start(
        self, attempt: "Attempt", agent: "Agent | str", value: object, key: str, options: ChildOptions
    ) -> tuple[str, str]:
        """Creates a child, or finds the one of this key, and rings its bell; returns (execution id, agent id).

        Raises `UnknownAgent`, `InvalidInput`, `SpawnTooDeep`.
        """
        parent = attempt.context
        found = self.registry.agent(agent) if isinstance(agent, str) else agent
        self._check_depth(parent, found.name)
        child = self.store.create(
            NewExecution(
                agent_id=found.name,
                input=found.encode_input(value),
                session_id=options.session_id or parent.session_id,
                user_id=options.user_id or parent.user_id,
                metadata={**options.metadata, **deadline.as_metadata(attempt.limits.deadline)},
                idempotency_key=f"{parent.execution_id}/{key}",
                parent_execution_id=parent.execution_id,
                queue=options.queue or found.queue,
                priority=options.priority,
                start_at=options.start_at,
                first_ring=self.first_ring,
            )
        )
        if options.start_at is None and child.state is AgentState.IDLE:
            self.ring(child)
        return child.execution_id, found.name

    def end_of(self, execution_id: str) -> ChildEnd | None:
        """How a child ended; None while it has not."""
        summary = self.store.get_summary(execution_id)
        if summary is None:
            return ChildEnd(state=None, error_type="gone", message="it was deleted")
        if not summary.state.is_over:
            return None
        if summary.state is AgentState.CANCELLED:
            return ChildEnd(state=summary.state, error_type="cancelled", message="it was cancelled")
        if summary.error is not None:
            return ChildEnd(state=summary.state, error_type=summary.error.type, message=summary.error.message)
        context = self.store.get_context(execution_id)
        if context is None:
            return ChildEnd(state=None, error_type="gone", message="it was deleted")
        return ChildEnd(state=summary.state, output=context.output)

    def tell(self, summary: ExecutionSummary) -> None:
        """Tells the relatives of the end of an execution: its parent, and if it was cancelled its children.

        May be repeated. Raises `StoreUnavailable`, after which it is to be repeated.
        """
        if summary.parent_execution_id is not None:
            self._tell_parent(summary, summary.parent_execution_id)
        if summary.state is AgentState.CANCELLED:
            for child_id in self._children_of(summary.execution_id):
                self._cancel(child_id, summary.execution_id)

    def _tell_parent(self, summary: ExecutionSummary, parent_id: str) -> None:
        signal = Signal(
            signal_id=f"end of {summary.execution_id}",
            kind=SignalKind.CHILD,
            key=summary.execution_id,
            payload=summary.state.value,
            sent_at=summary.ended_at or summary.updated_at,
        )
        try:
            sent = self.store.send(parent_id, signal)
        except (ExecutionNotFound, ExecutionOver):
            return  # nobody waits any more
        if sent.woke:
            parent = self.store.get_summary(parent_id)
            if parent is not None:
                self.ring(parent)

    def _children_of(self, execution_id: str) -> list[str]:
        steps = self.store.get_steps(execution_id)
        results = [step.result for step in steps if step.action.kind == SPAWN]
        return [result.output["execution_id"] for result in results if result is not None and result.success]

    def _cancel(self, child_id: str, parent_id: str) -> None:
        cancel = Signal(
            signal_id=f"cancel of {parent_id}",
            kind=SignalKind.CANCEL,
            sender=f"execution {parent_id}",
            reason="its parent was cancelled",
            sent_at=datetime.now().astimezone(),
        )
        try:
            self.store.send(child_id, cancel)
            self.store.checkpoint(
                child_id, Checkpoint(state=AgentState.CANCELLED, announce_within=self.announce_within)
            )
        except (ExecutionNotFound, ExecutionOver):
            return
        except LeaseHeld:
            return  # whoever works on it ends it at its next step boundary
        child = self.store.get_summary(child_id)
        if child is not None:
            self.ring(child)

    def _check_depth(self, parent: AgentContext, agent_id: str) -> None:
        """A cycle of agents that spawn each other would go on for ever."""
        depth, ancestor = 1, parent.parent_execution_id
        while ancestor is not None:
            depth += 1
            if depth > self.max_depth:
                raise SpawnTooDeep(agent_id, self.max_depth)
            summary = self.store.get_summary(ancestor)
            ancestor = None if summary is None else summary.parent_execution_id
