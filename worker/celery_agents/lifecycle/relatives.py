"""The children of executions. A repetition finds them again by their keys, and their ends are looked up here."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from agent_statestore.checkpoint import NewExecution
from agent_statestore.errors import ExecutionNotFound, IdempotencyConflict
from agent_statestore.records import AgentContext, ExecutionSummary
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from celery_agents.define import deadline as deadlines
from celery_agents.define.agent import AgentDefinition
from celery_agents.define.registry import Registry
from celery_agents.engine.relatives import SPAWN, ChildEnd, ChildOptions
from celery_agents.errors import JournalMismatch, SpawnTooDeep, TooManyDescendants
from celery_agents.lifecycle import keys
from celery_agents.lifecycle.ring import CheckQueue, RingFirst
from celery_agents.lifecycle.turns import admission


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The engine's `Relatives`, on a store.

    `ring_first` publishes the first bell of a child, `check_queue` says on which queues none can be.
    """

    store: Store
    registry: Registry
    ring_first: RingFirst
    check_queue: CheckQueue
    first_ring: timedelta
    max_depth: int
    max_descendants: int
    _lineages: "dict[str, _Lineage]" = field(default_factory=dict)

    def wanted(
        self,
        parent: AgentContext,
        agent: AgentDefinition | str,
        value: object,
        key: str,
        options: ChildOptions,
        deadline: datetime | None,
    ) -> NewExecution:
        """Return the child to create; see `Relatives.wanted`."""
        found = self.registry.agent(agent) if isinstance(agent, str) else agent
        self._check_depth(parent, found.name)
        self.check_queue(options.queue or found.queue)
        encoded = found.encode_input(value)
        metadata = deadlines.added_to(options.metadata, deadline)
        return NewExecution(
            agent_id=found.name,
            input=encoded,
            session_id=options.session_id or parent.session_id,
            user_id=options.user_id or parent.user_id,
            metadata=found.turns.added_to(metadata, partial(found.decode_input, encoded)),
            idempotency_key=keys.of_child(parent.execution_id, key),
            parent_execution_id=parent.execution_id,
            queue=options.queue or found.queue,
            priority=found.priority if options.priority is None else options.priority,
            start_at=options.start_at,
            first_ring=self.first_ring,
            rings=1 if options.start_at is None else 0,
        )

    def create(self, wanted: NewExecution, step: str) -> ExecutionSummary:
        """Create the child; see `Relatives.create`."""
        found = self.registry.find(wanted.agent_id)
        try:
            return self.store.create(wanted) if found is None else admission.create(self.store, found.turns, wanted)
        except IdempotencyConflict as conflict:
            raise JournalMismatch(
                step, f"before the process died, it started execution {conflict.execution_id} with another input"
            ) from conflict

    def announce(self, child: ExecutionSummary, options: ChildOptions) -> None:
        """Ring the bell of the child; see `Relatives.announce`."""
        if options.start_at is None and child.state is AgentState.IDLE:
            self.ring_first([child])

    def end_of(self, execution_id: str) -> ChildEnd | None:
        """Return how an execution ended; see `Relatives.end_of`."""
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

    def count(self, parent: AgentContext, wanted: NewExecution) -> None:
        """Count a child; see `Relatives.count`. All descendants are counted at the oldest ancestor that is stored."""
        oldest = self._lineage(parent).oldest
        try:
            is_counted = self.store.count_descendant(oldest, self.max_descendants)
        except ExecutionNotFound:  # it was deleted, or has expired, since it was looked for
            del self._lineages[parent.execution_id]
            oldest = self._lineage(parent).oldest
            is_counted = self.store.count_descendant(oldest, self.max_descendants)
        if not is_counted:
            raise TooManyDescendants(wanted.agent_id, self.max_descendants, oldest)

    def _check_depth(self, parent: AgentContext, agent_id: str) -> None:
        """Raise `SpawnTooDeep` at the limit: a cycle of agents that spawn each other would go on for ever."""
        if self._lineage(parent).generations >= self.max_depth:
            raise SpawnTooDeep(agent_id, self.max_depth)

    def _lineage(self, parent: AgentContext) -> "_Lineage":
        found = self._lineages.get(parent.execution_id)
        if found is None:
            generations, oldest, ancestor = 1, parent.execution_id, parent.parent_execution_id
            while ancestor is not None and generations < self.max_depth:
                generations += 1
                summary = self.store.get_summary(ancestor)
                if summary is not None:
                    oldest = ancestor
                ancestor = None if summary is None else summary.parent_execution_id
            found = self._lineages[parent.execution_id] = _Lineage(generations, oldest)
        return found


class _Lineage(NamedTuple):
    """How many generations there are down to an execution, and its oldest ancestor that is stored, or itself."""

    generations: int
    oldest: str


def children_of(store: Store, execution_id: str) -> Iterator[str]:
    """Yield the ids of the executions that this one has started. Raise `StoreError`."""
    for step in store.get_steps(execution_id):
        if step.action.kind != SPAWN or step.attempt == 0:
            continue  # a step of attempt 0 was taken over from another execution, whose child it is
        if step.result is None:
            # The process died, or was cancelled, around the creation: the child may be there or not.
            child = store.get_by_idempotency_key(step.action.input, keys.of_child(execution_id, step.name))
            if child is not None and child.parent_execution_id == execution_id:
                yield child.execution_id
        elif step.result.success:
            yield step.result.output["execution_id"]
