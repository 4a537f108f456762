"""The familiar operations on a context, built once on the primitives; every backend inherits them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property

from agent_statestore.checkpoint import Checkpoint, LeasedWrite, NewExecution, Via
from agent_statestore.codec.streams import decode_stream, encode_part
from agent_statestore.contract import StorePrimitives
from agent_statestore.documents.holding import Hold, expect_no_holder, take_hold
from agent_statestore.documents.places import Namespace
from agent_statestore.documents.records import Expect
from agent_statestore.documents.sessions import Session
from agent_statestore.errors import (
    ExecutionNotFound,
    ExecutionUnreadable,
    FormatTooNew,
    InvalidRecord,
    StepConflict,
    StoreError,
    StoreUnavailable,
)
from agent_statestore.query import Query, check_limit
from agent_statestore.recall.vectors import DocumentVectors, VectorIndex
from agent_statestore.records import (
    DEFAULT_FIRST_RING,
    Action,
    AgentContext,
    AgentStep,
    Checkpointed,
    ErrorInfo,
    JSONValue,
    Lease,
    Message,
    RagChunk,
    Result,
    Wait,
)
from agent_statestore.rules.creating import check_each, create_each
from agent_statestore.states import AgentState
from agent_statestore.stats import Activity, Stats, StepTiming, collect_stats
from agent_statestore.streams.records import MOST_READ, Appended, StreamAppend, StreamPage


class Store(StorePrimitives):
    """A state store: the primitives of the backend and the familiar operations on top.

    Every operation that writes takes the writer's `lease`, and raises what `checkpoint` raises. Without a lease it is
    refused while a worker holds one.
    """

    def create_context(
        self,
        agent_id: str,
        input: JSONValue = None,  # noqa: A002 - the field's standard name
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        metadata: Mapping[str, JSONValue] | None = None,
        idempotency_key: str | None = None,
        parent_execution_id: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        start_at: datetime | None = None,
        first_ring: timedelta = DEFAULT_FIRST_RING,
        execution_id: str | None = None,
    ) -> AgentContext:
        """Store a new execution; see `create`."""
        return self.create(
            NewExecution(
                agent_id=agent_id,
                input=input,
                session_id=session_id,
                user_id=user_id,
                metadata=metadata or {},
                idempotency_key=idempotency_key,
                parent_execution_id=parent_execution_id,
                queue=queue,
                priority=priority,
                start_at=start_at,
                first_ring=first_ring,
                execution_id=execution_id,
            )
        )

    def create_many(self, news: Sequence[NewExecution]) -> tuple[AgentContext, ...]:
        """Call `create` for each, and return their contexts in this order; in as few round trips as the backend can.

        Raise `NotSerialisable` or `ValueTooLarge` with nothing stored. Otherwise each is stored, or found, or refused
        as if it were alone, and the first `IdempotencyConflict` or `ExecutionIdTaken` is raised when all were tried.
        After `StoreUnavailable` any of them may be stored: those with keys or chosen ids are found by a repetition.
        """
        check_each(news, self.max_value_bytes)
        return create_each(news, self.create)

    def checkpoint_each(self, writes: Sequence[LeasedWrite]) -> list[Checkpointed | StoreError]:
        """Call `checkpoint` for each of several executions; in as few round trips as the backend can.

        Each has the outcome that it would have alone: what `checkpoint` returns, or the `StoreError` that it raises.
        They are not atomic together. After `StoreUnavailable` any of them may be stored, and may be repeated as it is.
        At most one write of each execution.
        """
        outcomes: list[Checkpointed | StoreError] = []
        for write in writes:
            try:
                outcomes.append(self.checkpoint(write.lease.execution_id, write.checkpoint, write.lease))
            except StoreUnavailable as error:
                # Each would wait as long for the same answer.
                return outcomes + [error] * (len(writes) - len(outcomes))
            except StoreError as error:
                outcomes.append(error)
        return outcomes

    def update_state(
        self,
        execution_id: str,
        state: AgentState,
        *,
        waits: Sequence[Wait] = (),
        output: JSONValue = None,
        error: ErrorInfo | None = None,
        by: str | None = None,
        reason: str | None = None,
        via: Via | None = None,
        lease: Lease | None = None,
    ) -> None:
        """Move the execution to `state`; `by`, `reason` and `via` go into the audit trail."""
        change = Checkpoint(state=state, waits=tuple(waits), output=output, error=error, by=by, reason=reason, via=via)
        self.checkpoint(execution_id, change, lease)

    def requeue(
        self, execution_id: str, *, by: str | None = None, reason: str | None = None, via: Via | None = None
    ) -> None:
        """Release a failed execution (a dead letter, say): it is `idle` again and due at once, and keeps its steps."""
        self.checkpoint(execution_id, Checkpoint(state=AgentState.IDLE, by=by, reason=reason, via=via))

    def add_step(
        self,
        execution_id: str,
        name: str,
        action: Action | None = None,
        result: Result | None = None,
        *,
        duration: timedelta = timedelta(0),
        lease: Lease | None = None,
    ) -> AgentStep:
        """Append a step under the next free number; without a `result` it is an intent.

        Concurrent callers get a number each; nothing is lost.
        """
        while True:
            summary = self.get_summary(execution_id)
            if summary is None:
                raise ExecutionNotFound(execution_id)
            step = AgentStep(
                step_number=summary.step_count + 1,
                name=name,
                action=action or Action(kind="step"),
                result=result,
                attempt=summary.attempt,
                timestamp=self.now(),
                duration=duration,
            )
            try:
                self.checkpoint(execution_id, Checkpoint(steps=(step,)), lease)
            except StepConflict:
                continue  # somebody else took the number: each round of this loop is another writer's success
            return step

    def update_last_step(
        self,
        execution_id: str,
        result: Result,
        *,
        duration: timedelta | None = None,
        lease: Lease | None = None,
    ) -> AgentStep:
        """Give the last step, an intent, its result. Raise `StepConflict` if it has one, or if there is no step."""
        summary = self.get_summary(execution_id)
        if summary is None:
            raise ExecutionNotFound(execution_id)
        steps = self.get_steps(execution_id, after=summary.step_count - 1)
        if not steps or steps[-1].result is not None:
            raise StepConflict(execution_id, summary.step_count, summary.step_count)
        intent = steps[-1]
        step = AgentStep(
            step_number=intent.step_number,
            name=intent.name,
            action=intent.action,
            result=result,
            attempt=intent.attempt,
            tries=intent.tries,
            timestamp=intent.timestamp,
            duration=self.now() - intent.timestamp if duration is None else duration,
        )
        self.checkpoint(execution_id, Checkpoint(steps=(step,)), lease)
        return step

    def add_message(
        self,
        execution_id: str,
        role: str,
        content: JSONValue,
        *,
        metadata: Mapping[str, JSONValue] | None = None,
        lease: Lease | None = None,
    ) -> Message:
        """Append a message to the conversation history."""
        message = Message(role=role, content=content, timestamp=self.now(), metadata=metadata or {})
        self.checkpoint(execution_id, Checkpoint(messages=(message,)), lease)
        return message

    def set_working_memory(self, execution_id: str, key: str, value: JSONValue, *, lease: Lease | None = None) -> None:
        """Set one value of the working memory."""
        self.checkpoint(execution_id, Checkpoint(working_memory={key: value}), lease)

    def get_working_memory(self, execution_id: str, key: str, default: JSONValue = None) -> JSONValue:
        """Return one value of the working memory. Raise `ExecutionNotFound`."""
        return self._context(execution_id).memory.working_memory.get(key, default)

    def add_fact(self, execution_id: str, fact: JSONValue, *, lease: Lease | None = None) -> None:
        """Append a fact to the memory."""
        self.checkpoint(execution_id, Checkpoint(facts=(fact,)), lease)

    def set_entity(self, execution_id: str, name: str, value: JSONValue, *, lease: Lease | None = None) -> None:
        """Set what is known of one entity."""
        self.checkpoint(execution_id, Checkpoint(entities={name: value}), lease)

    def add_rag_context(self, execution_id: str, chunks: Iterable[RagChunk], *, lease: Lease | None = None) -> None:
        """Append retrieved passages."""
        self.checkpoint(execution_id, Checkpoint(rag_context=tuple(chunks)), lease)

    def can_continue(self, execution_id: str, max_steps: int | None = None) -> bool:
        """Return whether the execution exists, may go on, and has taken fewer than `max_steps` steps.

        An execution that is over or whose cancel was asked for may not go on.
        """
        summary = self.get_summary(execution_id)
        return (
            summary is not None
            and not summary.state.is_over
            and not summary.cancel_requested
            and (max_steps is None or summary.step_count < max_steps)
        )

    def get_session_contexts(self, session_id: str, *, limit: int = 100) -> tuple[AgentContext, ...]:
        """Return the contexts of a session, newest first, at most `limit`; use `find` for summaries and pages."""
        page = self.find(Query(session_id=session_id, limit=limit))
        contexts = (self.get_context(summary.execution_id) for summary in page.items)
        return tuple(context for context in contexts if context is not None)

    def hold_namespace(self, namespace: Namespace, lease: Lease) -> Hold:
        """Make an execution the one writer of a namespace of documents, until it is over; see `documents.holding`.

        Raise `NamespaceHeld` while another active execution is, and `LeaseLost` if a later attempt of this one is.
        """
        return take_hold(self.documents, namespace, lease, self._is_active)

    @cached_property
    def vectors(self) -> VectorIndex:
        """The index of the vectors of facts; see `agent_statestore.recall`."""
        return DocumentVectors(self.documents)

    def session(self, session_id: str) -> Session:
        """Return the conversation of a session, which need not have one. Raise `InvalidRecord` for an invalid id."""
        return Session(self.documents, session_id, self._is_active)

    def expect_no_holder(self, namespace: Namespace) -> Expect:
        """Return what a write without a lease expects that no execution may be in the way of; see `documents.holding`.

        Raise `NamespaceHeld` while an active execution holds the namespace.
        """
        return expect_no_holder(self.documents, namespace, self._is_active)

    def append_events(self, appends: Sequence[StreamAppend]) -> Sequence[Appended]:
        """Append events to the streams of several executions, in one round trip; see `append_streams`.

        Raise `NotSerialisable` or `ValueTooLarge` with nothing stored.
        """
        if not appends:
            return ()
        return self.append_streams([(one.lease, encode_part(one.part, self.max_value_bytes)) for one in appends])

    def read_events(self, execution_id: str, after: int = 0, limit: int = 100) -> StreamPage | None:
        """Return the events of a stream with numbers above `after`; None for an unknown execution.

        An event that cannot be read is a `gap`. Raise `InvalidRecord` for a limit that is not 1 to 1000.
        """
        check_limit(limit)
        if limit > MOST_READ:
            raise InvalidRecord("limit", f"needs 1 to {MOST_READ}, not {limit}")
        stored = self.read_streams({execution_id: after}, limit).get(execution_id)
        return None if stored is None else decode_stream(stored)

    def get_activity(self, execution_ids: Sequence[str]) -> Mapping[str, Activity]:
        """Return the step timings and the audit trails of these executions, from which statistics are made.

        An execution whose steps or trail are damaged, or of a newer format, has none.
        """
        return {execution_id: self._activity_of(execution_id) for execution_id in execution_ids}

    def stats(
        self, *, since: datetime | None = None, until: datetime | None = None, agent_id: str | None = None
    ) -> Stats:
        """Return what the executions that were created in this span of time did; see `agent_statestore.stats`."""
        return collect_stats(self, since=since, until=until, agent_id=agent_id)

    def _activity_of(self, execution_id: str) -> Activity:
        try:
            steps, audit = self.get_steps(execution_id), self.get_audit(execution_id)
        except (ExecutionUnreadable, FormatTooNew):
            return Activity()
        timings = (
            StepTiming(
                name=step.name, success=None if step.result is None else step.result.success, duration=step.duration
            )
            for step in steps
        )
        return Activity(steps=tuple(timings), audit=audit)

    def _is_active(self, execution_id: str) -> bool:
        summary = self.get_summary(execution_id)
        return summary is not None and not summary.state.is_over

    def _context(self, execution_id: str) -> AgentContext:
        context = self.get_context(execution_id)
        if context is None:
            raise ExecutionNotFound(execution_id)
        return context
