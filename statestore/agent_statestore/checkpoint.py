"""The records that are written to a store: `NewExecution` and `Checkpoint`, and `Via`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from uuid6 import uuid7

from agent_statestore.errors import InvalidRecord, LeaseLost
from agent_statestore.plain_text import require_sender
from agent_statestore.records import (
    DEFAULT_FIRST_RING,
    AgentStep,
    Checkpointed,
    ErrorInfo,
    JSONValue,
    Lease,
    Message,
    RagChunk,
    Wait,
    WaitKind,
    require_delay,
    require_name,
    require_ringable,
    require_text,
)
from agent_statestore.states import AgentState
from agent_statestore.streams.records import StreamPart

# The state of an execution that waits for nothing else.
STATE_OF_WAIT: Final = {
    WaitKind.INPUT: AgentState.WAITING_FOR_INPUT,
    WaitKind.APPROVAL: AgentState.WAITING_FOR_APPROVAL,
    WaitKind.TIMER: AgentState.WAITING,
    WaitKind.EVENT: AgentState.WAITING,
    WaitKind.CHILD: AgentState.WAITING,
}


def state_of(waits: Sequence[Wait]) -> AgentState:
    """Return the state of an execution that waits for these: that of the first for which a person is asked, if any."""
    states = [STATE_OF_WAIT[wait.kind] for wait in waits]
    return next((state for state in states if state is not AgentState.WAITING), AgentState.WAITING)


# The largest priority that a message can carry on any broker.
_HIGHEST_PRIORITY: Final = 255


def require_said(by: str | None, reason: str | None) -> None:
    """Raise `InvalidRecord` for who and why that no audit trail holds."""
    require_text("by", by)
    require_text("reason", reason)


def new_execution_id() -> str:
    """Return a UUIDv7: unique, and ordered by time of creation."""
    return str(uuid7())


def require_chosen_id(execution_id: object) -> None:
    """Raise `InvalidRecord` unless it is None, or a UUID of any version in its usual form."""
    if execution_id is None:
        return
    try:
        is_usual = isinstance(execution_id, str) and str(UUID(execution_id)) == execution_id
    except ValueError:
        is_usual = False
    if not is_usual:
        raise InvalidRecord("execution_id", f"needs a UUID as str(uuid.uuid4()) writes it, not {execution_id!r:.80}")


def new_checkpoint_id() -> str:
    """Return an id for one checkpoint, by which its repetition is recognised."""
    return os.urandom(16).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExecution:
    """Everything that is known of an execution when it is created.

    `first_ring` is the grace after which the sweeper rings the bell if the creator never published it, and `rings` is
    how often it counts as rung: a creator who publishes at once sets one ring and the time to the next, and need not
    tell the store that it has rung. An execution with a `start_at` is neither rung nor claimable before that moment.

    `execution_id` is the id that the caller has chosen: a UUID as `str(uuid)` writes it. Without it, the store chooses.
    """

    agent_id: str
    input: JSONValue = None
    session_id: str | None = None
    user_id: str | None = None
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)
    idempotency_key: str | None = None
    parent_execution_id: str | None = None
    queue: str | None = None
    priority: int | None = None
    start_at: datetime | None = None
    first_ring: timedelta = DEFAULT_FIRST_RING
    rings: int = 0
    execution_id: str | None = None

    def __post_init__(self) -> None:
        require_chosen_id(self.execution_id)
        if self.execution_id is not None and self.idempotency_key is not None:
            raise InvalidRecord("execution_id", "it does what an idempotency_key does: give one of the two")
        require_ringable("start_at", self.start_at)
        require_delay("first_ring", self.first_ring)
        if type(self.rings) is not int or self.rings not in (0, 1):
            raise InvalidRecord("rings", f"needs 0 or 1, not {self.rings!r:.80}")
        for name in ("agent_id", "session_id", "user_id", "idempotency_key", "parent_execution_id", "queue"):
            value = getattr(self, name)
            if value is not None or name == "agent_id":
                require_name(name, value)
        if not isinstance(self.metadata, Mapping):
            raise InvalidRecord("metadata", "needs a mapping")
        if self.priority is None:
            return
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise InvalidRecord("priority", "needs an integer")
        if not 0 <= self.priority <= _HIGHEST_PRIORITY:
            raise InvalidRecord("priority", f"needs 0 to {_HIGHEST_PRIORITY}, not {self.priority}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Via:
    """Through what somebody asked for something: what the asking process itself knows, whatever the caller says.

    `channel` and `os_user` are those of `Signal`.
    """

    channel: str
    os_user: str | None = None

    def __post_init__(self) -> None:
        require_name("channel", self.channel)
        for name in ("channel", "os_user"):
            require_sender(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The durable, atomic write after a step: only what changed.

    `steps` are new ones, numbered on from the last, or a result for a recorded intent (same number, same name).
    `messages`, `facts` and `rag_context` are appended; `facts_by_run` marks the facts as the agent's own.
    `working_memory` and `entities` are set by key; `forget` then removes keys of the working memory. `consumed` lists
    the ids of signals that this write takes out of the mailbox.

    `state` None leaves the state as it is. A paused state needs `waits`, any of which ends the pause; any other state
    clears them. No two of them have the same kind and key. The state is that of one of them; where a person is asked,
    it is a state that says so (`STATE_OF_WAIT`). A state that is paused or over gives the lease back in the same write.
    `output` and `error` belong to a state that is over.

    `announce_within` keeps a finished execution due for one more ring after that time, until `settle` is called, so
    that the end is announced (to a result backend, say) even when the process dies right after this write.

    `by`, `reason` and `via` go into the audit trail when the state changes: who asked for it, why, and through what.
    Without a `reason`, the reason of a failure is its error.

    `checkpoint_id` makes a repetition harmless: a checkpoint with the id of the last applied one does nothing.

    `after_checkpoint` is the id of the last checkpoint that its writer knows of ("" for none yet). With it, the write
    applies only while that is still the last one. A store that lost what it had confirmed, as in a fail-over to a
    replica that was behind, refuses it.

    `stream` are events that are appended to the execution's stream with it. Where `tells_steps` is not 0, each of its
    steps that has a result is told of as well, behind those, as a `step_recorded` event of the step's attempt; it is
    the `seq` of the first of them.
    """

    steps: tuple[AgentStep, ...] = ()
    messages: tuple[Message, ...] = ()
    working_memory: Mapping[str, JSONValue] = field(default_factory=dict)
    forget: tuple[str, ...] = ()
    facts: tuple[JSONValue, ...] = ()
    facts_by_run: bool = False
    entities: Mapping[str, JSONValue] = field(default_factory=dict)
    rag_context: tuple[RagChunk, ...] = ()
    state: AgentState | None = None
    waits: tuple[Wait, ...] = ()
    output: JSONValue = None
    error: ErrorInfo | None = None
    consumed: tuple[str, ...] = ()
    announce_within: timedelta | None = None
    by: str | None = None
    reason: str | None = None
    via: Via | None = None
    checkpoint_id: str = field(default_factory=new_checkpoint_id)
    after_checkpoint: str | None = None
    stream: StreamPart | None = None
    tells_steps: int = 0

    def __post_init__(self) -> None:
        paused = self.state is not None and self.state.is_paused
        over = self.state is not None and self.state.is_over
        if paused != bool(self.waits):
            raise InvalidRecord("waiting", "a paused state needs what it waits for, and only a paused state has it")
        if self.waits:
            self._check_waits()
        if not over and (self.output is not None or self.error is not None or self.announce_within is not None):
            raise InvalidRecord("output", "output, error and announce_within belong to a state that is over")
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if after.step_number <= before.step_number:
                raise InvalidRecord("steps", "the steps of one checkpoint come in the order of their numbers")
        if self.announce_within is not None:
            require_delay("announce_within", self.announce_within)
        if self.by is not None or self.reason is not None:
            require_text("by", self.by)
            require_text("reason", self.reason)
        require_text("after_checkpoint", self.after_checkpoint)
        if self.working_memory or self.forget or self.entities:
            for name in (*self.working_memory, *self.forget, *self.entities):
                require_name("key", name)

    def _check_waits(self) -> None:
        if len({(wait.kind, wait.key) for wait in self.waits}) < len(self.waits):
            raise InvalidRecord("waits", "of one kind and key there is one wait")
        states = {STATE_OF_WAIT[wait.kind] for wait in self.waits}
        if self.state not in (states - {AgentState.WAITING} or states):
            raise InvalidRecord("state", f"{self.state} is not the state of what it waits for")
        for wait in self.waits:
            require_ringable("wake_at", wait.wake_at)

    @property
    def waiting(self) -> Wait | None:
        """The first of `waits`; None if there are none."""
        return self.waits[0] if self.waits else None

    @property
    def gives_back_lease(self) -> bool:
        """Whether this write ends the claim: the execution pauses or is over."""
        return self.state is not None and (self.state.is_paused or self.state.is_over)


def require_lease_of(execution_id: str, lease: Lease | None) -> None:
    """Raise `LeaseLost` for a lease of another execution.

    Tokens count from one in every execution, so the number alone would often let the wrong writer in.
    """
    if lease is not None and lease.execution_id != execution_id:
        raise LeaseLost(execution_id, lease.token)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedWrite:
    """A checkpoint of the execution that this lease is on; see `Store.checkpoint_each`."""

    checkpoint: Checkpoint
    lease: Lease


class StepTransaction(Protocol):
    """An open transaction: the writes through `connection` and the one checkpoint commit together, or not at all.

    Leaving its block without a checkpoint, or with an error, rolls everything back.
    """

    @property
    def connection(self) -> Any:
        """The `sqlalchemy.Connection` of the transaction. The caller must neither commit nor roll it back."""
        ...

    @property
    def was_applied(self) -> bool:
        """Whether the checkpoint turned out to be a repetition: it was committed before, with all that belongs to it.

        The writes through `connection` since then are rolled back.
        """
        ...

    def checkpoint(self, checkpoint: Checkpoint) -> Checkpointed:
        """Apply the checkpoint under the lease and commit. Raise what `StorePrimitives.checkpoint` raises.

        After `StoreUnavailable` it is unknown whether it was committed. Doing the whole again, in a new transaction and
        with the same `checkpoint_id`, is safe: see `was_applied`.
        """
        ...
