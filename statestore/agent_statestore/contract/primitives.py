"""The store contract: the primitives that every backend implements. Their docstrings are the specification.

`agent_statestore.testing` tests any backend against it; `agent_statestore.store` builds the familiar operations on it.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from agent_statestore.checkpoint import Checkpoint, NewExecution, StepTransaction, Via
from agent_statestore.codec.checkpoints import DEFAULT_MAX_CONTEXT_BYTES
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.contract.duties import DutyPrimitives
from agent_statestore.contract.mail import MailPrimitives
from agent_statestore.contract.streams import StreamPrimitives
from agent_statestore.contract.watch import PollingWatch, Watch
from agent_statestore.errors import ForeignConnection, NoTransactions
from agent_statestore.query import EVERYTHING, Query, check_limit
from agent_statestore.records import (
    AgentContext,
    AgentStep,
    AuditEntry,
    Checkpointed,
    Claim,
    Due,
    ExecutionSummary,
    Lease,
    Page,
    Renewed,
    Sent,
    Signal,
    Turn,
)
from agent_statestore.states import AgentState

DEFAULT_MAX_MAILBOX: Final = 1000


class StorePrimitives(DutyPrimitives, MailPrimitives, StreamPrimitives):
    """Executions and their contexts, stored so that any worker can continue them.

    Invariants, for every backend:

    * Each method is atomic for each execution that it touches: it happens as a whole or not at all, and concurrent
      calls from any number of threads and processes have the outcome of some serial order. Methods on many executions
      (`renew`, `take_due`, `mark_rung`, `find`, `clear`) need not be atomic across them. No method reads in one round
      trip and then writes, from what it read, in a second one.
    * An instance is safe to share between threads, and to use on both sides of a `fork`.
    * Time is the store's clock (see `agent_statestore.clock`), never the caller's.
    * A *live lease* ends after now. The tokens of one execution grow by one with each claim, for ever.
    * Returned records share nothing with what is stored.
    * What is damaged (no JSON, a field missing) is a state of that one execution: reading it raises
      `ExecutionUnreadable`, lists show it (`ExecutionSummary.unreadable`), and no other execution notices.
    * A driver's errors become `StoreUnavailable`, chained; a call that raised it may be repeated.
    * The audit trail of an execution grows in the same atomic step as the change that it records. It gets one entry for
      each creation, claim, accepted answer, approval or cancel, accepted event that names its sender, deletion, and
      checkpoint that changes the state.
    * `due_at` drives all recovery: when it has passed, `take_due` hands the execution to a sweeper, which rings its
      bell (publishes a message). Each method below says how it changes `due_at`.

    Attributes:
        url: the store's address, with any password masked; for messages.
        is_shared: whether other processes see the same data. False only for the in-memory store.
        keeps_deleted: whether `delete_context` hides an execution and leaves it to `purge`; otherwise it purges.
        has_transactions: whether `transaction` works.
        holds_finished: see `hold_finished`.
        writes_together: whether one thread that calls `Store.checkpoint_each` writes as fast as many with `checkpoint`.
        max_value_bytes: limit of one JSON value; a larger one is refused with `ValueTooLarge` before anything is sent.
            A failure may be larger by `codec.ERROR_ROOM_BYTES`, so that it can always be recorded.
        max_mailbox: how many signals an execution's mailbox holds; see `send`. It may be set at any time.
        max_context_bytes: how many bytes of text an execution keeps: its input and metadata, steps, messages, memory,
            facts, entities, passages and mailbox, with the names of values; see `checkpoint`. It may be set any time.
    """

    url: str
    is_shared: bool = True
    keeps_deleted: bool = False
    has_transactions: bool = False
    holds_finished: bool = False
    writes_together: bool = False
    max_value_bytes: int
    max_mailbox: int = DEFAULT_MAX_MAILBOX
    max_context_bytes: int = DEFAULT_MAX_CONTEXT_BYTES

    # -- creating and reading ------------------------------------------------------------------------------------------

    @abstractmethod
    def create(self, new: NewExecution) -> AgentContext:
        """Store a new execution in state `idle` and return its context.

        If this agent has used the `idempotency_key` before, nothing is written. The existing context is returned if its
        input is the same JSON value and its parent the same; otherwise raise `IdempotencyConflict`
        (`rules.creating.same_execution`). Exactly one of several concurrent calls with one key creates. `due_at`
        becomes now + `first_ring`, or `start_at`.

        Likewise, if an execution has the chosen `execution_id`, nothing is written. It is returned if its agent, input
        and parent are the same; otherwise, and if it is deleted but kept, raise `ExecutionIdTaken`. Raise
        `NotSerialisable` or `ValueTooLarge` with nothing stored.
        """

    def create_in(self, connection: Any, new: NewExecution) -> AgentContext:
        """Call `create` as a part of the caller's transaction on this store's database.

        Others see the execution once the caller commits, and never after a rollback. An error leaves the transaction as
        it was. `agent_statestore.sql.callers` describes `connection`. Raise `ForeignConnection` if it leads elsewhere;
        stores outside of SQL databases always do.
        """
        del connection, new
        raise ForeignConnection(self.url, "only a store in a SQL database takes part in a transaction of yours")

    @abstractmethod
    def get_context(self, execution_id: str) -> AgentContext | None:
        """Return the whole context in one consistent look, or None. Raise `FormatTooNew` or `ExecutionUnreadable`."""

    @abstractmethod
    def get_summary(self, execution_id: str) -> ExecutionSummary | None:
        """Return the header alone, or None: cheap, whatever the number of steps. Raise `FormatTooNew`.

        Of a damaged header it returns what can be read.
        """

    @abstractmethod
    def get_steps(self, execution_id: str, after: int = 0, limit: int | None = None) -> tuple[AgentStep, ...]:
        """Return the steps numbered above `after`, in order; with a limit, at most so many of them, the first ones.

        The result is empty for an unknown execution. The cost is that of the steps returned. Raise
        `ExecutionUnreadable`, and `InvalidRecord` for a limit below 1.
        """

    @abstractmethod
    def find(self, query: Query = EVERYTHING) -> Page:
        """Return the executions that match the query, newest first (`created_at`, then `execution_id`, descending).

        `oldest_first` returns them in the opposite order. A cursor belongs to its order: pages neither repeat nor miss
        an execution that existed when the first page was read, however many are added meanwhile. Raise `InvalidRecord`
        for a cursor that this store did not make.
        """

    @abstractmethod
    def get_by_idempotency_key(self, agent_id: str, idempotency_key: str) -> AgentContext | None:
        """Return the context that `create` would return instead of a new one for this key, or None."""

    @abstractmethod
    def get_audit(self, execution_id: str) -> tuple[AuditEntry, ...]:
        """Return the audit trail, oldest entry first, also of a deleted execution.

        An unknown or purged execution has none: the result is empty.
        """

    @abstractmethod
    def find_ended(
        self,
        before: datetime,
        *,
        after: datetime | None = None,
        states: Iterable[AgentState] | None = None,
        limit: int = 100,
    ) -> tuple[str, ...]:
        """Return the ids of at most `limit` executions that were over before that time, the longest over first.

        Only executions count whose end needs no more announcing (no `due_at`) and that can still be archived or purged:
        not those that `drop_archived` has accepted. `after` leaves out those that were over earlier, `states` those in
        others. The cost is that of the ids returned, as far as the backend can. Raise `InvalidRecord` for a bad limit.
        """

    # -- the lease -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def claim(self, execution_id: str, owner: str, ttl: timedelta) -> Claim | None:
        """Take the lease and read the context, in one round trip.

        Return None if the execution is unknown or over, while a lease on it lives, or before its `not_before` (a start
        time, or a pause that nothing has ended yet). Otherwise the token grows by one, `crashes` grows by one, the
        state becomes `thinking`, `rings` becomes 0, and the lease and `due_at` end at now + ttl. Its `waits` and its
        mailbox stay, for the engine to look at; the returned context shows the new state. `version` stays. Raise
        `FormatTooNew` with nothing changed. Raise `ExecutionUnreadable` if the context is damaged: with its `lease` the
        execution can be ended, unless the damage is in what a claim itself needs. Not repeatable: a claim that has
        succeeded without its answer arriving holds the execution until the ttl has passed.
        """

    @abstractmethod
    def renew(self, leases: Sequence[Lease], ttl: timedelta) -> Renewed:
        """Move the end of many leases, and `due_at` with it, to now + ttl, in one round trip.

        A lease that is stale or has run out is not renewed, even if nobody else has claimed since; it is returned as
        lost. Repeating is safe. An empty sequence does nothing.
        """

    @abstractmethod
    def release(self, lease: Lease, *, crashed: bool = False) -> bool:
        """Give the lease up, or (`crashed`) break the lease of a process that is seen to be dead.

        `due_at` becomes now and `rings` becomes 0; unless `crashed`, the claim is taken back from `crashes`. The state
        stays. Return False, and change nothing, if the lease is stale, has run out or was given back already.
        """

    @abstractmethod
    def forgive(self, lease: Lease, crashes: int) -> bool:
        """Lower the `crashes` of a leased execution to at most this number, and change nothing else.

        The holder calls it with what it found before its own claim when its process may be killed for no fault of the
        execution (a deploy that does not wait for a long step): the claim then counts as no crash. A `release` after it
        is made with `crashed`, as the claim must not be taken back twice. Return False, and change nothing, if the
        lease is stale, has run out or was given back. Repeating is safe.
        """

    @abstractmethod
    def find_leases(self, owner_prefix: str) -> tuple[Lease, ...]:
        """Return the live leases whose owner starts with `owner_prefix`; `ttl` is the time that is left of them."""

    # -- writing -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def checkpoint(self, execution_id: str, checkpoint: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        """Apply one checkpoint, all or nothing, in one round trip, and bump `version`.

        Checked in this order, with no change when one fails:

        1. `ExecutionNotFound`, and (without a lease) `FormatTooNew`.
        2. The id of the last applied checkpoint: success without any effect (a repetition after a lost answer).
        3. With a lease: `LeaseLost` unless the token is the current one and the lease lives.
        4. `ExecutionOver`, unless the write releases a dead letter (`failed` to `idle`).
        5. Without a lease: `LeaseHeld` while a lease lives.
        6. `CheckpointConflict`: the last checkpoint is not `after_checkpoint`.
        7. `IllegalTransition`.
        8. `StepConflict`: a new step must be numbered on from the highest; a step number that exists must be a recorded
           intent (no result) of the same name, which the step then replaces.
        9. `ContextTooLarge`: the write makes the context larger, beyond `max_context_bytes`. A write that does not make
           it larger is accepted, and so is the end of an execution that failed or was cancelled.

        A lease of another execution is `LeaseLost`, whatever its token, before anything is sent. The header's `format`
        becomes at least that of what is written, so that older versions refuse a claim.

        A write that adds or replaces a step or pauses sets `crashes` to 0. A paused state sets `waits`; `due_at` and
        `not_before` become the earliest `wake_at` of them, or never; but if the mailbox holds an unconsumed signal for
        any of them, or a cancel, they become now, and `due_now` is returned. Any other state clears `waits`; a write
        that leaves the state leaves them open. A working state that is written without a lease makes the execution due
        at once and claimable, because its writer does not hold it. A state that is over clears `due_at`, or sets it to
        now + `announce_within`, and sets `ended_at`. Both a paused state and one that is over give the lease back.
        `failed` to `idle` clears the error, `ended_at`, `crashes` and `rings` and makes the execution due at once.
        Consuming an unknown signal is harmless. Raise `NotSerialisable` or `ValueTooLarge` before anything is sent.
        """

    @abstractmethod
    def send(self, execution_id: str, signal: Signal) -> Sent:
        """Put a signal into the mailbox, with the store's time as its `sent_at`.

        Checked in this order, with no change when one fails: `ExecutionNotFound`; `FormatTooNew`; a signal id that was
        sent before (success without any effect); `ExecutionOver`; for an event or saying, `MailboxFull` if the mailbox
        holds `max_mailbox` signals or more, then `ContextTooLarge` if the context would exceed `max_context_bytes`; for
        an answer or approval, `AlreadyAnswered` if one of this kind, key and round was ever accepted, then
        `QuestionNotAsked` unless the execution waits for exactly this kind, key and round, alone or among others. Ends
        of children and cancels are always accepted, only that in a full mailbox a second cancel is `MailboxFull` too:
        no flood of events keeps out a person's answer or a cancel. So a question whose answer was of no use is asked
        again under the same key and the next round, and what comes for an earlier round is refused.

        A signal that is consumed leaves nothing behind but its id, and that only as long as it may be sent again: an id
        is remembered while the signal is among the last `max_mailbox` that were accepted. That a question was answered
        is remembered for ever, with the id of its answer.

        If no lease lives and the execution is paused on this signal, alone or among others, or the signal is a cancel,
        then `due_at` becomes now, `not_before` is lifted, `rings` becomes 0, and `woke` is true. With a live lease the
        holder finds the signal when it pauses, or the cancel at its next step boundary. A cancel sets
        `cancel_requested`. What is said wakes nobody (`get_mailbox`, `hear`).
        """

    def transaction(self, execution_id: str, lease: Lease) -> AbstractContextManager[StepTransaction]:
        """Open a transaction in which the caller's own writes and one checkpoint commit together.

        Raise `NoTransactions` unless the store `has_transactions`, and `StoreUnavailable`, also when the connection is
        lost inside the block.
        """
        del execution_id, lease
        raise NoTransactions(self.url)

    @abstractmethod
    def count_descendant(self, execution_id: str, limit: int) -> bool:
        """Count one more descendant of an execution, unless there are `limit` of them. Return whether it was counted.

        It may be over. The count starts anew where the execution is restored. Raise `ExecutionNotFound`. Not
        repeatable: a call whose answer was lost may have counted.
        """

    # -- ringing -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def take_due(self, limit: int, grace: timedelta) -> tuple[Due, ...]:
        """Return executions whose `due_at` has passed, longest due first as far as the backend can order them.

        Their `due_at` moves to now + grace in the same step, so that only one of several sweepers gets each.
        """

    @abstractmethod
    def mark_rung(self, rung: Iterable[tuple[str, int]], first: timedelta, maximum: timedelta) -> None:
        """Record that the bells of these (execution id, token) pairs, each given once, were rung.

        `due_at` becomes now + min(first * 2**rings, maximum) and `rings` grows by one, so that a long queue is not
        flooded with duplicates. An execution is skipped if its token has changed, if a lease on it lives, if its
        `not_before` has not come (its start time or timer must not move), or if it is not due for anything.
        """

    @abstractmethod
    def settle(self, execution_id: str) -> None:
        """Clear the `due_at` of an execution that is over: its end has been announced. Otherwise do nothing."""

    # -- rates ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    def take_rate(
        self,
        bucket: str,
        limit: int,
        per: timedelta,
        *,
        within: timedelta = timedelta(0),
        promised: bool = False,
    ) -> Turn:
        """Take the next turn of a bucket, which gives at most `limit` turns `per` period, evenly spaced.

        A bucket is a name; all callers that use it share it, and must agree on its rate. The next turn comes
        `per / limit` after the last one that was taken, or now. It is taken if it comes `within` that time and nobody
        was promised an earlier one; the caller must let `wait` pass before using it. Otherwise the caller is promised a
        time behind all others that were promised one: after `wait` it asks again, and as `promised` it then only stands
        behind turns that are taken. A promise is not kept for anybody: a caller that is so late that the next turn is
        not `within` its time goes to the end of the line, and one that does not come wastes a turn. A line is at most
        `LONGEST_LINE` long; beyond that, nothing is promised.

        Atomic for each bucket. Not repeatable: a call whose answer was lost may have taken a turn. The store forgets a
        bucket some time after it has stopped to matter. Raise `InvalidRecord` for an invalid name, limit, period or
        `within`.
        """

    # -- removing ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def delete_context(
        self, execution_id: str, *, by: str | None = None, reason: str | None = None, via: Via | None = None
    ) -> bool:
        """Delete an execution, also from under a live lease; return False if it was not there.

        Every read and write then finds nothing, and its idempotency key is free. A store that `keeps_deleted` keeps the
        contents until `purge`, and the audit trail, which gets an entry with `by`, `reason` and `via`, stays readable.
        Any other store purges at once.
        """

    @abstractmethod
    def purge(self, execution_id: str) -> bool:
        """Remove an execution for good, deleted or not, with all its contents and its audit trail.

        Return False if nothing was there.
        """

    def find_deleted(self, before: datetime, limit: int = 100) -> tuple[str, ...]:
        """Return the ids of at most `limit` executions that were deleted before that time and not purged.

        The first deleted one comes first. Raise `InvalidRecord` for a limit below 1.
        """
        del before
        check_limit(limit)
        return ()

    @abstractmethod
    def clear(self) -> int:
        """Purge every execution under this store's prefix or in its tables, and nothing else.

        Return how many there were, without the deleted ones. The rates and duties of the store are forgotten, too.
        """

    def tidy(self, limit: int = 1000) -> int:
        """Remove what at most `limit` expired executions left in indexes, and return how many there were.

        The sweeper calls it. It serves backends whose data expires by itself.
        """
        del limit
        return 0

    # -- moving between stores -----------------------------------------------------------------------------------------

    @abstractmethod
    def export(self, execution_id: str) -> ExportedExecution | None:
        """Return everything of an execution in one consistent look, as stored; None if it is unknown.

        A lease on it is mentioned in the export, not taken along. Raise `FormatTooNew`.
        """

    @abstractmethod
    def restore(self, exported: ExportedExecution) -> bool:
        """Store an execution exactly as it was exported, all or nothing.

        It keeps its id, times and audit trail, is due when it was due, and has no lease.

        A copy that is there already is replaced if it has not come as far (`ExportedExecution.place`) and no lease on
        it lives; otherwise, and if it is deleted here, nothing is changed and the answer is False. So repeating is
        harmless. Raise `IdempotencyKeyTaken` if another execution of the agent has its key here.
        """

    @abstractmethod
    def drop_archived(self, execution_id: str, place: tuple[int, int, int]) -> bool:
        """Let go of an execution that is over and of which another store has committed a copy.

        The execution is purged; on a store whose data expires by itself, its time to live starts instead. Return False,
        and change nothing, unless it is over, no `due_at` is left, and it is still at that `place`.
        """

    def hold_finished(self) -> None:
        """Let nothing that becomes over through this instance expire before `drop_archived` allows it."""
        self.holds_finished = True

    # -- waiting, time, the connection ---------------------------------------------------------------------------------

    def watch(self, execution_id: str) -> Watch:
        """Return a watch that wakes a client as soon as something about an execution may have changed.

        It notices the changes since this call. A store without such a mechanism is looked at in intervals.
        """
        del execution_id
        return PollingWatch()

    @abstractmethod
    def now(self) -> datetime:
        """Return the store's time, with which lease ends and `due_at` must be compared. Raise `StoreUnavailable`.

        It costs one round trip where a server's clock counts. `Claim.now` tells it without one.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise `StoreUnavailable` or `SchemaMismatch` unless the store answers and is fit for use."""

    def durability_warning(self) -> str | None:
        """Return one sentence if the server, as configured, forgets executions when it crashes, else None."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Free the connections, for good; closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
