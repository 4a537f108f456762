"""What an execution needs of the outside to have children: the store, the registry, and somebody who rings bells."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from agent_statestore.checkpoint import Checkpoint, NewExecution
from agent_statestore.errors import ExecutionNotFound, ExecutionOver, LeaseHeld, StoreError, StoreUnavailable
from agent_statestore.records import AgentContext, ExecutionSummary, JSONValue, Signal, SignalKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from celery_agents.define import deadline
from celery_agents.define.registry import Registry
from celery_agents.errors import SpawnTooDeep
from celery_agents.lifecycle import turns

if TYPE_CHECKING:
    from celery_agents.define.agent import Agent
    from celery_agents.engine.attempt import Attempt

log = logging.getLogger(__name__)

SPAWN: Final = "spawn"

# What a parent is told of a child that did not come to an end of its own, in the place of the state.
_DELETED: Final = "deleted"

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
    """Starts children, and tells each side of the other's end, and the next in line. `ring` publishes a bell."""

    store: Store
    registry: Registry
    ring: Ring
    first_ring: timedelta
    max_depth: int
    announce_within: timedelta | None = None
    _generations: dict[str, int] = field(default_factory=dict)

    def wanted(
        self, attempt: "Attempt", agent: "Agent | str", value: object, key: str, options: ChildOptions
    ) -> NewExecution:
        """The child that the step of this key starts.

        Raises `UnknownAgent`, `InvalidInput`, `SpawnTooDeep`, `InvalidRecord`.
        """
        parent = attempt.context
        found = self.registry.agent(agent) if isinstance(agent, str) else agent
        self._check_depth(parent, found.name)
        encoded = found.encode_input(value)
        metadata = deadline.added_to(options.metadata, attempt.limits.deadline)
        return NewExecution(
            agent_id=found.name,
            input=encoded,
            session_id=options.session_id or parent.session_id,
            user_id=options.user_id or parent.user_id,
            metadata=found.turns.added_to(metadata, partial(found.decode_input, encoded)),
            idempotency_key=_key_of(parent.execution_id, key),
            parent_execution_id=parent.execution_id,
            queue=options.queue or found.queue,
            priority=options.priority,
            start_at=options.start_at,
            first_ring=self.first_ring,
        )

    def create(self, wanted: NewExecution) -> ExecutionSummary:
        """Creates a child, or finds the one of the same step. Raises `InvalidRecord`, `SessionBusy`."""
        found = self.registry.find(wanted.agent_id)
        return self.store.create(wanted) if found is None else turns.create(self.store, found.turns, wanted)

    def announce(self, child: ExecutionSummary, options: ChildOptions) -> None:
        """Rings the bell of a child that may run at once."""
        if options.start_at is None and child.state is AgentState.IDLE:
            self.ring(child)

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

        May be repeated. Raises `StoreError`, after which it is to be repeated: one relative that cannot be told does
        not keep the others waiting.
        """
        tellings: list[Callable[[], None]] = []
        if summary.parent_execution_id is not None:
            tellings.append(partial(self._tell_parent, summary, summary.parent_execution_id, summary.state.value))
        if summary.state is AgentState.CANCELLED:
            children = self._children_of(summary.execution_id)
            tellings.extend(partial(self._cancel, child_id, summary.execution_id) for child_id in children)
        tellings.append(partial(self.pass_turn_on, summary, datetime.now(UTC)))
        fault: StoreError | None = None
        for tell in tellings:
            try:
                tell()
            except StoreUnavailable:
                raise
            except StoreError as error:
                fault = error
        if fault is not None:
            raise fault

    def tell_of_deletion(self, summary: ExecutionSummary) -> None:
        """Tells whoever waits for an execution that it was deleted before its end: its parent, and the next in line.

        Its children go on, as they do when it fails. May be repeated. Raises `StoreError`.
        """
        self.pass_turn_on(summary, datetime.now(UTC))
        if summary.parent_execution_id is not None:
            self._tell_parent(summary, summary.parent_execution_id, _DELETED)

    def pass_turn_on(self, left: ExecutionSummary, now: datetime) -> None:
        """Wakes those whose turn it is since this execution ended or paused; see `lifecycle.turns`. May be repeated."""
        agent = self.registry.find(left.agent_id)
        if agent is None or not agent.turns.has_lines:
            return
        try:
            turns.Line(self.store, agent.turns).pass_on(left, now, self.ring)
        except StoreError as error:
            log.warning(
                "execution %s: those who wait behind it look by themselves, later: %s", left.execution_id, error
            )

    def _tell_parent(self, summary: ExecutionSummary, parent_id: str, end: str) -> None:
        signal = Signal(
            signal_id=f"end of {summary.execution_id}",
            kind=SignalKind.CHILD,
            key=summary.execution_id,
            payload=end,
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
        children: list[str] = []
        for step in self.store.get_steps(execution_id):
            if step.action.kind != SPAWN or step.attempt == 0:
                continue  # a step of attempt 0 was taken over from another execution, whose child it is
            if step.result is None:
                # The process died, or was cancelled, around the creation: the child may be there or not.
                key = _key_of(execution_id, step.name)
                child = self.store.get_by_idempotency_key(step.action.input, key)
                if child is not None:
                    children.append(child.execution_id)
            elif step.result.success:
                children.append(step.result.output["execution_id"])
        return children

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
        # Not left to a worker, whose slots may all be taken by these very descendants.
        for grandchild_id in self._children_of(child_id):
            self._cancel(grandchild_id, child_id)
        child = self.store.get_summary(child_id)
        if child is not None:
            self.ring(child)

    def _check_depth(self, parent: AgentContext, agent_id: str) -> None:
        """A cycle of agents that spawn each other would go on for ever."""
        generations = self._generations.get(parent.execution_id)
        if generations is None:
            generations, ancestor = 1, parent.parent_execution_id
            while ancestor is not None and generations < self.max_depth:
                generations += 1
                summary = self.store.get_summary(ancestor)
                ancestor = None if summary is None else summary.parent_execution_id
            self._generations[parent.execution_id] = generations
        if generations >= self.max_depth:
            raise SpawnTooDeep(agent_id, self.max_depth)


def name_of(agent: object) -> str:
    """The name of an agent that is given by its name, or as such. Raises `TypeError`."""
    name = agent if isinstance(agent, str) else getattr(agent, "name", None)
    if not isinstance(name, str):
        raise TypeError(f"spawn takes an agent or its name, not {agent!r:.80}")
    return name


def _key_of(parent_id: str, step: str) -> str:
    return f"{parent_id}/{step}"
