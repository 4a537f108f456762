"""Writes the checkpoints of one claim, under its lease, and stops the execution when the lease is gone."""

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agent_statestore.checkpoint import Checkpoint, LeasedWrite, StepTransaction
from agent_statestore.envelope import OUTBOX_KEY
from agent_statestore.errors import (
    CheckpointConflict,
    ExecutionNotFound,
    ExecutionOver,
    InvalidRecord,
    LeaseLost,
    StepConflict,
    StoreError,
    StoreUnavailable,
)
from agent_statestore.plain_text import line_logger
from agent_statestore.records import (
    Action,
    AgentContext,
    AgentStep,
    Checkpointed,
    Claim,
    JSONValue,
    Result,
    StepChanges,
)
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from celery_agents.engine.course import Course
from celery_agents.engine.journal.journal import Journal
from celery_agents.engine.journal.memory import RunMemory
from celery_agents.engine.journal.outgoing import Outgoing
from celery_agents.engine.journal.paused_on import NOWHERE, PausedOn
from celery_agents.engine.journal.pending import NOTHING, Pending
from celery_agents.engine.lease import HeldLease
from celery_agents.engine.mailbox import Mailbox
from celery_agents.engine.outcome import Ending, ExecutionStopped, Outcome
from celery_agents.engine.steps.scope import Opened
from celery_agents.engine.stream.outlet import Outlet
from celery_agents.engine.stream.telling import told_by

log = line_logger(__name__)

# The store does not have what it confirmed, as after a fail-over to a replica that was behind; or it lost a claim like
# that, and somebody else writes under the same token. The next attempt reads what is there, and goes on from that.
_CONFLICTS = (CheckpointConflict, StepConflict)

# What the store says of an execution that is not this attempt's any more.
_NOT_OURS = (LeaseLost, ExecutionNotFound, ExecutionOver, *_CONFLICTS)


@dataclass(frozen=True, slots=True)
class Writing:
    """The record of a step that is being written together with those of other executions."""

    step: AgentStep
    taken: Pending
    write: LeasedWrite


class Recorder:
    """Records the steps of one attempt: in the store, one round trip each, and then in the journal.

    While the store cannot be reached, a write waits with backoff up to the end of the lease; repeating it is harmless,
    as a checkpoint carries its own id. Then, and whenever the store says that the lease is lost, `ExecutionStopped`
    unwinds the agent, and nothing more is written.
    """

    def __init__(
        self,
        store: Store,
        claim: Claim,
        context: AgentContext,
        *,
        held: HeldLease,
        course: Course,
        journal: Journal,
        memory: RunMemory,
        mailbox: Mailbox,
        outgoing: Outgoing,
        now: Callable[[], datetime],
        outlet: Outlet | None = None,
    ) -> None:
        """`context` is that of the claim, as the agent's code is to see it."""
        self.store = store
        self._lease = claim.lease
        self._attempt = context.attempt
        self._held = held
        self._course = course
        self._journal = journal
        self._memory = memory
        self._mailbox = mailbox
        self.outgoing = outgoing
        self._now = now
        self._outlet = outlet
        self._asked_before = {(wait.kind, wait.key) for wait in context.waits} if context.waits else ()
        # Called with each step that is recorded, in that order, by the thread that recorded it.
        self.listeners: list[Callable[[AgentStep], object]] = []
        # What the store still shows that the execution was paused on before this claim. A claim leaves it in place, for
        # the engine to look at: a write that sets the state clears it.
        self.paused_on = PausedOn(context.waits, context.steps) if context.waits else NOWHERE
        self._was_paused = self._must_set_state = bool(claim.context.waits)
        # Nobody waits any more for something that the store shows.
        self._is_withdrawn = False
        # Under a lease nobody else writes: each write builds on the one before.
        self._last_checkpoint = claim.context.last_checkpoint
        # A write to which the store did not answer. The next one repeats it first, which is harmless.
        self.unknown: Writing | None = None

    # -- steps ---------------------------------------------------------------------------------------------------------

    def make_step(
        self,
        key: str,
        action: Action,
        result: Result | None,
        *,
        started: datetime,
        tries: int = 1,
        changes: StepChanges | None = None,
        in_flight: bool = False,
        number: int | None = None,
    ) -> AgentStep:
        """Return the record of a step, or (no result) of an intent. Its number is free until `Course.lock` is let go.

        What the code has said and remembered up to here is counted with it.
        """
        if self.unknown is not None:
            self._course.write(self._find_out)
        journal = self._journal
        conversation, duration = self._memory.conversation, max(self._now() - started, timedelta(0))
        return AgentStep(
            step_number=number or journal.number_for(key),
            name=key,
            action=action,
            result=result,
            attempt=self._attempt,
            tries=tries,
            timestamp=started,
            duration=duration,
            changes=changes,
            in_flight=in_flight,
            said=len(conversation.messages),
            remembered=len(conversation.facts),
            within=journal.within.get(key, ()) if journal.within else (),
            spent=journal.spent_on(key) if journal.has_spent else {},
        )

    def record(self, step: AgentStep) -> None:
        """Record a step, and everything that is pending, in one round trip.

        One that has no result is an intent: it is about to be done, or waits to be.
        """
        self.record_all((step,))

    def record_all(self, steps: tuple[AgentStep, ...]) -> None:
        """Record several steps in one round trip."""
        with self._course.lock:
            # Few are taken by an attempt that comes from a pause, so that most are spared a call.
            self._course.write(self.write, steps=steps, state=self._state_after(steps) if self._was_paused else None)
            self._is_recorded(steps)

    def withdraw(self, opened: Iterable[Opened] = ()) -> None:
        """Something is not waited for any more: what is sent for it after the next write is refused.

        The execution was paused on `opened`, which whoever waited for it has left.
        """
        self._is_withdrawn = True
        for step, wait in opened:
            self.paused_on.forget(wait.kind, wait.key, step)

    def _state_after(self, steps: tuple[AgentStep, ...]) -> AgentState | None:
        """Return the state to write with these steps. It clears what the execution was paused on.

        The state is `thinking` since the claim. Leaving it out of the write spares a store its indexes.
        """
        self.paused_on.leave(steps)
        is_cleared = self._must_set_state and (self._is_withdrawn or self.paused_on.is_left)
        return AgentState.THINKING if is_cleared else None

    def transaction(self) -> AbstractContextManager[StepTransaction]:
        """Open a transaction for one step; see `StorePrimitives.transaction`."""
        return self.store.transaction(self._lease.execution_id, self._lease)

    def record_in(self, transaction: StepTransaction, step: AgentStep, checkpoint_id: str) -> AgentStep:
        """Record a step together with what it wrote in the transaction; return what is recorded.

        That is another result of the step if an earlier try, whose answer was lost, did commit. Raise
        `StoreUnavailable`, after which the step is to be done again with the same `checkpoint_id`.
        """
        state = self._state_after((step,)) if self._was_paused else None
        recorded = self._course.write(self._write_in, transaction, step, checkpoint_id, state)
        self._is_recorded((recorded,))
        return recorded

    def _is_recorded(self, steps: tuple[AgentStep, ...]) -> None:
        if self._was_paused and (self._is_withdrawn or self.paused_on.is_left):
            self._must_set_state, self._was_paused = False, not self.paused_on.is_left
        for step in steps:
            self._journal.add(step)
            if step.result is not None:
                for listener in self.listeners:
                    listener(step)

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, **change: Any) -> Checkpointed:
        """Apply a change, with everything that is pending. Call it through `Course.write`, or `write_last`.

        `change` are fields of `Checkpoint`.
        """
        if self.unknown is not None:
            self._find_out()
        memory, outgoing = self._memory, self.outgoing
        if change.get("state") is not None and change["state"] is not AgentState.THINKING:
            # The lease goes with this write: documents come before it.
            if memory.outbox.pending.goes_out:
                self.write()
            if outgoing.waiting:
                _write_documents(outgoing, self._course, self._held)
        taken = NOTHING if memory.outbox.is_empty else memory.outbox.take()
        try:
            checkpoint = self._checkpoint(taken, change)
            applied = self._applied(checkpoint, self._apply(checkpoint))
        except BaseException:
            memory.outbox.put_back(taken)
            if self._outlet is not None:
                self._outlet.put_back()
            raise
        if outgoing.waiting:
            _write_documents(outgoing, self._course, self._held)
        return applied

    # -- writing with others -------------------------------------------------------------------------------------------

    def start_writing(self, step: AgentStep) -> "Writing":
        """Begin to record a step with its result, by a write that somebody else makes, together with others.

        `Course.lock` is held from before this until `end_writing` or `undo_writing`, or until `unknown` is set to what
        this returns. Raise `ExecutionStopped` if nothing can be written any more.
        """
        if self._held.is_lost or self._course.is_written:
            raise _lost()
        taken = NOTHING if self._memory.outbox.is_empty else self._memory.outbox.take()
        state = self._state_after((step,)) if self._was_paused else None
        try:
            checkpoint = self._checkpoint(taken, {"steps": (step,), "state": state})
        except BaseException:
            self._memory.outbox.put_back(taken)
            if self._outlet is not None:
                self._outlet.put_back()
            raise
        return Writing(step, taken, LeasedWrite(checkpoint=checkpoint, lease=self._lease))

    def end_writing(self, writing: "Writing", applied: Checkpointed) -> None:
        """The step is in the store."""
        # Not `_applied`: the signals that this thread has taken come with a write of its own.
        self._last_checkpoint = writing.write.checkpoint.checkpoint_id
        if self.outgoing.is_stored or writing.taken.goes_out:  # said on the loop while this was begun
            self.outgoing.is_recorded_with(writing.write.checkpoint)
        if applied.cancel_requested:
            self._held.mark_cancel_requested()
        if self._outlet is not None:
            self._outlet.carried(is_watched=applied.is_watched)
        self._is_recorded((writing.step,))

    def undo_writing(self, writing: "Writing") -> None:
        """The store has refused it, or was not asked: what was pending is pending again."""
        self._memory.outbox.put_back(writing.taken)
        if self._outlet is not None:
            self._outlet.put_back()

    def record_found_out(self, step: AgentStep) -> AgentStep:
        """Record the step, unless a write that was left unknown has recorded it. Return what is recorded."""
        if self._journal.has(step.name):
            return self._journal.step(step.name)
        self.record_all((step,))
        return step

    def _find_out(self) -> None:
        """Repeat the write of which nobody knows whether it was stored, with patience."""
        writing = self.unknown
        assert writing is not None
        try:
            applied = self._apply(writing.write.checkpoint)
        except InvalidRecord:  # it is refused to whoever wanted to record it, and comes again
            self.unknown = None
            self.undo_writing(writing)
            return
        self.unknown = None
        self.end_writing(writing, applied)

    # ------------------------------------------------------------------------------------------------------------------

    def forget_pending(self) -> None:
        """Give up what is pending: it cannot be stored, and the failure that says so must be."""
        self._memory.outbox.take()
        self._mailbox.taken.__dict__.clear()

    def _write_in(
        self, transaction: StepTransaction, step: AgentStep, checkpoint_id: str, state: AgentState | None
    ) -> AgentStep:
        if self._held.is_lost:
            raise _lost()
        if self.unknown is not None:
            self._find_out()
        taken = self._memory.outbox.take()
        try:
            checkpoint = self._checkpoint(taken, {"steps": (step,), "state": state, "checkpoint_id": checkpoint_id})
            applied = transaction.checkpoint(checkpoint)
            if self._outlet is not None and transaction.was_applied:
                self._outlet.leave_open()  # an earlier try has brought what it had to tell
            self._applied(checkpoint, applied)
        except _NOT_OURS as error:
            raise _lost_to(self._held, error) from error
        except BaseException:
            self._memory.outbox.put_back(taken)
            if self._outlet is not None:
                self._outlet.leave_open()
            raise
        if self.outgoing.waiting:
            _write_documents(self.outgoing, self._course, self._held)
        if not transaction.was_applied:
            return step
        (recorded, *_) = self.store.get_steps(self._lease.execution_id, after=step.step_number - 1)
        return recorded

    def _checkpoint(self, pending: Pending, change: dict[str, Any]) -> Checkpoint:
        if pending is not NOTHING:  # most steps bring nothing along
            change |= {
                "messages": tuple(pending.messages),
                "working_memory": pending.written(),
                "forget": pending.forgotten(),
                "facts": tuple(pending.facts),
                "facts_by_run": True,
            }
        outgoing = self.outgoing
        if pending.goes_out:
            outbox: JSONValue = [*outgoing.carried(pending.messages, pending.documents)]
            change["working_memory"] = change["working_memory"] | {OUTBOX_KEY: outbox}
        elif outgoing.is_stored and not outgoing.waiting:
            change["forget"] = (*change.get("forget", ()), OUTBOX_KEY)
        taken = self._mailbox.taken.__dict__.get("ids")
        if taken:
            change["consumed"] = tuple(taken)
        if self._outlet is not None:
            has_state = change.get("state") is not None
            self._outlet.carry(change, told_by(change, self._asked_before, self._now()) if has_state else ())
        return Checkpoint(after_checkpoint=self._last_checkpoint, **change)

    def _apply(self, checkpoint: Checkpoint) -> Checkpointed:
        execution_id, lease = self._lease.execution_id, self._lease
        if self._held.is_lost:
            self._held.mark_lost()
            raise _lost()
        try:
            try:
                return self.store.checkpoint(execution_id, checkpoint, lease)
            except StoreUnavailable as error:
                patience = self._course.patience("a checkpoint", "could not be written")
                patience.wait(error)
                return patience.ask(lambda: self.store.checkpoint(execution_id, checkpoint, lease))
        except _NOT_OURS as error:
            raise _lost_to(self._held, error) from error

    def _applied(self, checkpoint: Checkpoint, applied: Checkpointed) -> Checkpointed:
        self._mailbox.taken.__dict__.clear()
        self._last_checkpoint = checkpoint.checkpoint_id
        if OUTBOX_KEY in checkpoint.working_memory or self.outgoing.is_stored:
            self.outgoing.is_recorded_with(checkpoint)
        if applied.cancel_requested:
            self._held.mark_cancel_requested()
        if self._outlet is not None:
            self._outlet.carried(is_watched=applied.is_watched)
        return applied


def store_clock(claim: Claim) -> Callable[[], datetime]:
    """Return the store's clock: the time of the claim plus what has passed here since."""
    claimed_at, at_claim = claim.now, time.monotonic()
    return lambda: claimed_at + timedelta(seconds=time.monotonic() - at_claim)


def _write_documents(outgoing: Outgoing, course: Course, held: HeldLease) -> None:
    """Do what is recorded for documents, with patience."""
    try:
        course.patience("a document", "could not be written").ask(outgoing.write)
    except LeaseLost as error:
        raise _lost_to(held, error) from error


def _lost_to(held: HeldLease, error: StoreError) -> ExecutionStopped:
    level = logging.WARNING if isinstance(error, _CONFLICTS) else logging.INFO
    log.log(level, "execution %s: %s; stopping without a trace", held.lease.execution_id, error)
    held.mark_lost()
    return _lost()


def _lost() -> ExecutionStopped:
    return ExecutionStopped(Outcome(ending=Ending.LOST))
