"""Writes the checkpoints of one claim, under its lease, and stops the execution when the lease is gone."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

from agent_statestore.checkpoint import Checkpoint, new_checkpoint_id
from agent_statestore.codec import encode_checkpoint
from agent_statestore.errors import (
    CheckpointConflict,
    ExecutionNotFound,
    ExecutionOver,
    LeaseLost,
    StepConflict,
    StoreError,
    StoreUnavailable,
)
from agent_statestore.records import AgentStep, Checkpointed, Claim, ErrorInfo, JSONValue, Wait
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.transactions import StepTransaction
from celery_agents.engine.journal.memory import Pending, RunMemory
from celery_agents.engine.lease import HeldLease
from celery_agents.engine.outcome import Ending, ExecutionStopped, Outcome

log = logging.getLogger(__name__)

# The store does not have what it confirmed, as after a fail-over to a replica that was behind; or it lost a claim like
# that, and somebody else writes under the same token. The next attempt reads what is there, and goes on from that.
_CONFLICTS = (CheckpointConflict, StepConflict)

# What the store says of an execution that is not this attempt's any more.
_NOT_OURS = (LeaseLost, ExecutionNotFound, ExecutionOver, *_CONFLICTS)

_FIRST_BACKOFF_SECONDS = 0.05
_MAX_BACKOFF_SECONDS = 2.0


class _Consumed(threading.local):
    def __init__(self) -> None:
        self.ids: list[str] = []


class Recorder:
    """Applies an execution's changes to the store, one round trip each.

    While the store cannot be reached, a write waits with backoff up to the end of the lease; repeating it is harmless,
    as a checkpoint carries its own id. Then, and whenever the store says that the lease is lost, `ExecutionStopped`
    unwinds the agent, and nothing more is written.
    """

    def __init__(self, store: Store, claim: Claim, held: HeldLease, memory: RunMemory) -> None:
        self._store = store
        self._lease = claim.lease
        self._held = held
        self._memory = memory
        self._consumed = _Consumed()
        # A claim leaves what was waited for in place, for the engine to look at: the first write clears it.
        self._must_set_state = bool(claim.context.waits)
        # Under a lease nobody else writes: each write builds on the one before.
        self._last_checkpoint = claim.context.last_checkpoint
        self._now = _store_time(claim)

    def now(self) -> datetime:
        """The time on the store's clock: the time of the claim plus what has passed here since."""
        return self._now()

    @property
    def is_paused(self) -> bool:
        """Whether the store still shows what the execution was paused on before this claim."""
        return self._must_set_state

    def consume(self, signal_id: str) -> None:
        """The next write of this thread takes this signal out of the mailbox.

        Of this thread: what another one writes meanwhile says nothing of what became of the signal, which a crash in
        between would lose.
        """
        self._consumed.ids.append(signal_id)

    def record(self, step: AgentStep) -> None:
        """Records a step with everything that is pending.

        The state is `thinking` since the claim. Leaving it out of the write spares a store its indexes.
        """
        self.record_all((step,))

    def record_all(self, steps: tuple[AgentStep, ...]) -> None:
        """`record`, for several steps at once."""
        self._write(steps=steps, state=self._state_of_step())
        self._must_set_state = False

    def transaction(self) -> AbstractContextManager[StepTransaction]:
        """Opens a transaction for one step; see `StorePrimitives.transaction`."""
        return self._store.transaction(self._lease.execution_id, self._lease)

    def record_in(self, transaction: StepTransaction, step: AgentStep, checkpoint_id: str) -> AgentStep:
        """Records a step together with what it wrote in the transaction; returns what is recorded.

        That is another result of the step if an earlier try, whose answer was lost, did commit. Raises
        `StoreUnavailable`, after which the step is to be done again with the same `checkpoint_id`.
        """
        if self._held.is_lost:
            raise _lost()
        taken = self._memory.take_pending()
        try:
            checkpoint = self._checkpoint(
                taken, steps=(step,), state=self._state_of_step(), checkpoint_id=checkpoint_id
            )
            self._applied(checkpoint, transaction.checkpoint(checkpoint))
        except _NOT_OURS as error:
            raise self._lost_to(error) from error
        except BaseException:
            self._memory.put_back(taken)
            raise
        self._must_set_state = False
        if not transaction.was_applied:
            return step
        (recorded, *_) = self._store.get_steps(self._lease.execution_id, after=step.step_number - 1)
        return recorded

    def wait_for_store(self, error: StoreUnavailable, waited: int, give_up_at: float) -> None:
        """Sleeps, longer each time it is called in a row, before something is tried again.

        Stops at `give_up_at`, the end of the lease as it was at first: a store that takes renewals but never this must
        not hold us for ever.
        """
        remaining = give_up_at - time.monotonic()
        if self._held.is_lost or remaining <= 0:
            self._held.mark_lost()
            raise _lost()
        if not waited:
            log.warning(
                "execution %s: the store does not answer, trying again until the lease ends: %s",
                self._lease.execution_id,
                error,
            )
        time.sleep(min(_FIRST_BACKOFF_SECONDS * 2 ** min(waited, 10), _MAX_BACKOFF_SECONDS, remaining))

    def check_pause(self, state: AgentState, waiting: Wait, intents: tuple[AgentStep, ...] = ()) -> None:
        """Raises `InvalidRecord` for a pause that cannot be stored: its prompt is too large, say."""
        encode_checkpoint(Checkpoint(steps=intents, state=state, waits=(waiting,)), self._store.max_value_bytes)

    def pause(self, state: AgentState, waiting: Wait, intents: tuple[AgentStep, ...] = ()) -> Checkpointed:
        """Records that the execution waits, and gives the lease back."""
        return self._write(steps=intents, state=state, waits=(waiting,))

    def forget_pending(self) -> None:
        """Gives up what is pending: it cannot be stored, and the failure that says so must be."""
        self._memory.take_pending()
        self._consumed.ids.clear()

    def complete(self, output: JSONValue, announce_within: timedelta | None) -> None:
        """Records the end of a successful execution."""
        self._write(state=AgentState.COMPLETED, output=output, announce_within=announce_within)

    def fail(self, error: ErrorInfo, announce_within: timedelta | None, steps: tuple[AgentStep, ...] = ()) -> None:
        """Records the end of a failed execution."""
        self._write(steps=steps, state=AgentState.FAILED, error=error, announce_within=announce_within)

    def cancel(self, announce_within: timedelta | None) -> None:
        """Records the end of a cancelled execution."""
        self._write(state=AgentState.CANCELLED, announce_within=announce_within)

    def _checkpoint(
        self,
        pending: Pending,
        *,
        steps: tuple[AgentStep, ...] = (),
        state: AgentState | None,
        waits: tuple[Wait, ...] = (),
        output: JSONValue = None,
        error: ErrorInfo | None = None,
        announce_within: timedelta | None = None,
        checkpoint_id: str | None = None,
    ) -> Checkpoint:
        return Checkpoint(
            checkpoint_id=checkpoint_id or new_checkpoint_id(),
            steps=steps,
            messages=tuple(pending.messages),
            working_memory=pending.written(),
            forget=pending.forgotten(),
            facts=tuple(pending.facts),
            facts_by_run=True,
            state=state,
            waits=waits,
            output=output,
            error=error,
            consumed=tuple(self._consumed.ids),
            announce_within=announce_within,
            after_checkpoint=self._last_checkpoint,
        )

    def _write(self, **change: Any) -> Checkpointed:
        taken = self._memory.take_pending()
        try:
            return self._write_until_applied(self._checkpoint(taken, **change))
        except BaseException:
            self._memory.put_back(taken)
            raise

    def _write_until_applied(self, checkpoint: Checkpoint) -> Checkpointed:
        backoff, began_at, has_failed = _FIRST_BACKOFF_SECONDS, time.monotonic(), False
        # The end of the lease as it is now: a store that takes renewals but never this write must not hold us for ever.
        give_up_at = self._held.deadline
        while True:
            if self._held.is_lost or time.monotonic() >= give_up_at:
                self._held.mark_lost()
                if has_failed:
                    log.warning("execution %s: the lease ended before the store answered", self._lease.execution_id)
                raise _lost()
            try:
                applied = self._store.checkpoint(self._lease.execution_id, checkpoint, self._lease)
            except StoreUnavailable as error:
                if not has_failed:
                    log.warning(
                        "execution %s: a checkpoint could not be written, trying again until the lease ends: %s",
                        self._lease.execution_id,
                        error,
                    )
                has_failed = True
                time.sleep(min(backoff, max(give_up_at - time.monotonic(), 0.0)))
                backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)
            except _NOT_OURS as error:
                raise self._lost_to(error) from error
            else:
                if has_failed:
                    waited = time.monotonic() - began_at
                    log.info("execution %s: the checkpoint is written, after %.1f s", self._lease.execution_id, waited)
                return self._applied(checkpoint, applied)

    def _applied(self, checkpoint: Checkpoint, applied: Checkpointed) -> Checkpointed:
        self._consumed.ids.clear()
        self._last_checkpoint = checkpoint.checkpoint_id
        if applied.cancel_requested:
            self._held.mark_cancel_requested()
        return applied

    def _lost_to(self, error: StoreError) -> ExecutionStopped:
        level = logging.WARNING if isinstance(error, _CONFLICTS) else logging.INFO
        log.log(level, "execution %s: %s; stopping without a trace", self._lease.execution_id, error)
        self._held.mark_lost()
        return _lost()

    def _state_of_step(self) -> AgentState | None:
        return AgentState.THINKING if self._must_set_state else None


def _lost() -> ExecutionStopped:
    return ExecutionStopped(Outcome(ending=Ending.LOST))


def _store_time(claim: Claim) -> Callable[[], datetime]:
    claimed_at, at_claim = claim.now, time.monotonic()
    return lambda: claimed_at + timedelta(seconds=time.monotonic() - at_claim)
