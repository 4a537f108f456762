"""`HybridStore`: active executions in one store, finished ones in another."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final, TypeVar

from agent_statestore.checkpoint import Checkpoint, LeasedWrite, NewExecution, StepTransaction, Via, require_said
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.contract import Duty
from agent_statestore.contract.watch import Watch
from agent_statestore.documents.contract import DocumentStore
from agent_statestore.errors import (
    ExecutionNotFound,
    ForeignConnection,
    IdempotencyKeyTaken,
    InvalidRecord,
    StoreError,
    UnsupportedURL,
)
from agent_statestore.hybrid import finding, removing
from agent_statestore.hybrid.archiver import Archived, Archiver, is_settled
from agent_statestore.hybrid.background import Background
from agent_statestore.hybrid.leases import HybridLeases
from agent_statestore.hybrid.returning import write_archived
from agent_statestore.hybrid.streaming import HybridStreaming
from agent_statestore.query import EVERYTHING, Query
from agent_statestore.recall.vectors import VectorIndex
from agent_statestore.records import (
    AgentContext,
    AgentStep,
    AuditEntry,
    Checkpointed,
    Due,
    ExecutionSummary,
    Lease,
    Page,
    Sent,
    Signal,
    Turn,
)
from agent_statestore.rules.creating import check_each, create_each, same_execution, same_id
from agent_statestore.states import AgentState
from agent_statestore.stats import Activity
from agent_statestore.store import Store

T = TypeVar("T")

# The most time that one call of `tidy` spends on archiving: the sweeper that calls it has bells to ring.
_TIDY_SECONDS: Final = 2.0

_DAY: Final = timedelta(days=1)


class _Archived(Exception):
    """Undoes a creation: the archive has the execution."""


class HybridStore(HybridStreaming, HybridLeases):
    """A store that keeps active executions in `hot` (Redis, say) and finished ones in `cold` (PostgreSQL, say).

    Whatever an execution does happens in the hot store; reading looks there first and then in the cold store. An
    execution is archived, moved to the cold store, once it is over and its end is announced, at once or `archive_after`
    later. The process that settles it archives it; every sweeper's `tidy` archives what was missed. Nothing in the hot
    store expires before it is archived, and nothing in the cold store expires at all.

    A crash at any moment loses nothing and duplicates nothing; see `agent_statestore.hybrid.archiver`. While the cold
    store is away, executions go on and wait in the hot store to be archived, but `find`, reads of what the hot store
    does not have, `create` with an idempotency key or a chosen id, and deletions raise `StoreUnavailable`: their answer
    is not known without the cold store.

    A failed execution that was archived is brought back when it is released. Its archived copy stays until it is over
    again, and does not show.

    Deleted executions are kept if the cold store keeps them. One that is still in the hot store is moved first, in
    whatever state it is; what a worker writes to it in that very moment, and which worker held it, may get lost.
    Documents are in the cold store.

    Attributes:
        hot: the store of active executions.
        cold: the store of finished executions.
        archive_after: how long after its end an execution is archived.
    """

    def __init__(self, hot: Store, cold: Store, *, archive_after: timedelta = timedelta(0)) -> None:
        """Take both stores over. Raise `InvalidRecord` and `UnsupportedURL`."""
        if archive_after < timedelta(0):
            raise InvalidRecord("archive_after", "needs a duration that is not negative")
        if hot is cold or (hot.is_shared and hot.url == cold.url):
            raise UnsupportedURL(cold.url, "the hot and the cold store are one and the same")
        self.hot = hot
        self.cold = cold
        self.archive_after = archive_after
        self.url = f"hybrid of {hot.url} over {cold.url}"
        self.is_shared = hot.is_shared and cold.is_shared
        self.keeps_deleted = cold.keeps_deleted
        self.has_transactions = hot.has_transactions
        self.writes_together = hot.writes_together
        self.max_value_bytes = hot.max_value_bytes
        self._archiver = Archiver(hot, cold)
        self._background: Background | None = None
        self.hold_finished()

    @property
    def max_mailbox(self) -> int:
        """That of the hot store."""
        return self.hot.max_mailbox

    @max_mailbox.setter
    def max_mailbox(self, signals: int) -> None:
        self.hot.max_mailbox = self.cold.max_mailbox = signals

    @property
    def max_context_bytes(self) -> int:
        """That of the hot store."""
        return self.hot.max_context_bytes

    @max_context_bytes.setter
    def max_context_bytes(self, size: int) -> None:
        self.hot.max_context_bytes = self.cold.max_context_bytes = size

    # -- creating and reading ------------------------------------------------------------------------------------------

    def create(self, new: NewExecution) -> AgentContext:
        """Store a new execution; see `StorePrimitives.create`.

        It looks into the cold store for an idempotency key or a chosen id, before and after: before, because an
        archived execution may have it; after, because the archiver may have moved that execution between the two looks.
        """
        archived = self._archived(new)
        if archived is not None:
            return archived
        created = self.hot.create(new)
        if not self._is_second(created, new):
            return created
        if created.attempt == created.version == 0:
            self.hot.purge(created.execution_id)
        return self._archived(new) or created

    def create_many(self, news: Sequence[NewExecution]) -> tuple[AgentContext, ...]:
        """Create many; see `Store.create_many`. The archive need not be asked for those without key and chosen id."""
        check_each(news, self.max_value_bytes)

        def at_once() -> list[AgentContext | None]:
            fresh = [new for new in news if new.idempotency_key is None and new.execution_id is None]
            made = iter(self.hot.create_many(fresh))
            return [next(made) if new.idempotency_key is None and new.execution_id is None else None for new in news]

        return create_each(news, self.create, at_once)

    def create_in(self, connection: Any, new: NewExecution) -> AgentContext:
        """Create an execution in the caller's transaction on the hot store; see `StorePrimitives.create_in`."""
        from agent_statestore.sql.callers import UnfitConnection, caller_of  # SQLAlchemy, for those who have it anyway

        archived = self._archived(new)
        if archived is not None:
            return archived
        try:
            with caller_of(connection).nested():
                created = self.hot.create_in(connection, new)
                if self._is_second(created, new):
                    raise _Archived
        except UnfitConnection as unfit:
            raise ForeignConnection(self.url, str(unfit)) from unfit
        except _Archived:
            return self._archived(new) or created
        return created

    def _archived(self, new: NewExecution) -> AgentContext | None:
        """Return the archived execution that has the key, or the id, of one that is to be created; None without one."""
        if new.execution_id is not None:
            if not self.cold.get_audit(new.execution_id):
                return None
            return same_id(self.get_context(new.execution_id), new)
        if new.idempotency_key is None:
            return None
        archived = self.cold.get_by_idempotency_key(new.agent_id, new.idempotency_key)
        return archived and same_execution(self.get_context(archived.execution_id) or archived, new)

    def _is_second(self, created: AgentContext, new: NewExecution) -> bool:
        """Return whether the archive has another execution with the key, or the id, of the one that was created."""
        if new.execution_id is not None:
            return created.attempt == created.version == 0 and bool(self.cold.get_audit(new.execution_id))
        if new.idempotency_key is None:
            return False
        archived = self.cold.get_by_idempotency_key(new.agent_id, new.idempotency_key)
        return archived is not None and archived.execution_id != created.execution_id

    def get_context(self, execution_id: str) -> AgentContext | None:
        return self._read(lambda store: store.get_context(execution_id))

    def get_summary(self, execution_id: str) -> ExecutionSummary | None:
        return self._read(lambda store: store.get_summary(execution_id))

    def get_steps(self, execution_id: str, after: int = 0, limit: int | None = None) -> tuple[AgentStep, ...]:
        steps = self.hot.get_steps(execution_id, after, limit)
        if steps:
            return steps
        summary = self.hot.get_summary(execution_id)
        if summary is not None and summary.step_count <= after:
            return ()
        # It is archived, or it came back just now: then the archived steps are the same.
        return self.cold.get_steps(execution_id, after, limit)

    def find(self, query: Query = EVERYTHING) -> Page:
        return finding.find_page(self.hot, self.cold, query)

    def get_by_idempotency_key(self, agent_id: str, idempotency_key: str) -> AgentContext | None:
        return self._read(lambda store: store.get_by_idempotency_key(agent_id, idempotency_key))

    def get_audit(self, execution_id: str) -> tuple[AuditEntry, ...]:
        return self.hot.get_audit(execution_id) or self.cold.get_audit(execution_id)

    def get_activity(self, execution_ids: Sequence[str]) -> Mapping[str, Activity]:
        found = dict(self.hot.get_activity(execution_ids))
        # Steps are read before trails: an execution that is archived or brought back meanwhile may lack one of the two.
        missing = [each for each in execution_ids if each not in found or not (found[each].audit and found[each].steps)]
        for each, archived in (self.cold.get_activity(missing) if missing else {}).items():
            seen = found.get(each, Activity())
            found[each] = Activity(steps=archived.steps or seen.steps, audit=seen.audit or archived.audit)
        return found

    def find_ended(self, before: datetime, **options: Any) -> tuple[str, ...]:
        return finding.find_ended(self.hot, self.cold, before, **options)

    # -- writing -------------------------------------------------------------------------------------------------------

    def checkpoint(self, execution_id: str, checkpoint: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        try:
            applied = self.hot.checkpoint(execution_id, checkpoint, lease)
        except ExecutionNotFound:
            if lease is not None:
                return self.cold.checkpoint(execution_id, checkpoint, lease)
            return write_archived(
                self.hot,
                self.cold,
                execution_id,
                lambda store: store.checkpoint(execution_id, checkpoint),
                releases=checkpoint.state is AgentState.IDLE,
            )
        is_end = checkpoint.state is not None and checkpoint.state.is_over
        if is_end and checkpoint.announce_within is None:
            self._archive_at_once(execution_id)
        return applied

    def checkpoint_each(self, writes: Sequence[LeasedWrite]) -> list[Checkpointed | StoreError]:
        """Write to the hot store; see `Store.checkpoint_each`. What is not there any more is written by itself."""
        if any(write.checkpoint.state is not None and write.checkpoint.state.is_over for write in writes):
            return super().checkpoint_each(writes)  # an end may archive at once
        outcomes = self.hot.checkpoint_each(writes)
        gone = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, ExecutionNotFound)]
        for number, outcome in zip(gone, super().checkpoint_each([writes[number] for number in gone]), strict=True):
            outcomes[number] = outcome
        return outcomes

    def send(self, execution_id: str, signal: Signal) -> Sent:
        try:
            return self.hot.send(execution_id, signal)
        except ExecutionNotFound:
            return write_archived(self.hot, self.cold, execution_id, lambda store: store.send(execution_id, signal))

    def count_descendant(self, execution_id: str, limit: int) -> bool:
        try:
            return self.hot.count_descendant(execution_id, limit)
        except ExecutionNotFound:
            return self.cold.count_descendant(execution_id, limit)

    def transaction(self, execution_id: str, lease: Lease) -> AbstractContextManager[StepTransaction]:
        return self.hot.transaction(execution_id, lease)

    # -- ringing -------------------------------------------------------------------------------------------------------

    def take_due(self, limit: int, grace: timedelta) -> tuple[Due, ...]:
        return self.hot.take_due(limit, grace)

    def mark_rung(self, rung: Iterable[tuple[str, int]], first: timedelta, maximum: timedelta) -> None:
        self.hot.mark_rung(rung, first, maximum)

    def settle(self, execution_id: str) -> None:
        self.hot.settle(execution_id)
        self._archive_at_once(execution_id)

    # -- rates, duties, documents --------------------------------------------------------------------------------------

    def take_rate(
        self, bucket: str, limit: int, per: timedelta, *, within: timedelta = timedelta(0), promised: bool = False
    ) -> Turn:
        return self.hot.take_rate(bucket, limit, per, within=within, promised=promised)

    @property
    def documents(self) -> DocumentStore:
        return self.cold.documents  # they outlive executions

    @cached_property
    def vectors(self) -> VectorIndex:
        return self.cold.vectors

    def take_duty(self, duty: str, owner: str, ttl: timedelta, *, instead: bool = False) -> Duty:
        return self.hot.take_duty(duty, owner, ttl, instead=instead)

    def delete_context(
        self, execution_id: str, *, by: str | None = None, reason: str | None = None, via: Via | None = None
    ) -> bool:
        """Delete an execution; see `StorePrimitives.delete_context`. Raise `FormatTooNew` if it should be kept."""
        require_said(by, reason)
        if not self.keeps_deleted:
            return self.purge(execution_id)
        return removing.delete(self.hot, self.cold, execution_id, by, reason, via)

    def purge(self, execution_id: str) -> bool:
        """Remove an execution for good; see `StorePrimitives.purge`.

        An execution that is archived in this very moment may have to be purged once more.
        """
        return removing.purge(self.hot, self.cold, execution_id)

    def find_deleted(self, before: datetime, limit: int = 100) -> tuple[str, ...]:
        return self.cold.find_deleted(before, limit)

    def clear(self) -> int:
        return removing.clear(self.hot, self.cold)

    def tidy(self, limit: int = 1000) -> int:
        """Archive what was not archived at its end, then tidy both stores; see `StorePrimitives.tidy`."""
        tidied = self._archiver.try_sweep(self._archived_before(), limit, _TIDY_SECONDS)
        return tidied + self.hot.tidy(limit)

    def archive_in_background(self) -> None:
        """Let nothing that ends an execution wait for the cold store from now on: a separate thread archives it.

        Workers do this. Without it an execution is archived when the call that ended it returns.
        """
        if self._background is None:
            self._background = Background(self._archiver.try_archive)

    def archive(
        self, *, before: datetime | None = None, limit: int = 1000, within: timedelta = timedelta(seconds=10)
    ) -> Archived:
        """Archive at most `limit` executions that were over `before` that time, by default `archive_after` ago.

        Stop `within` that time; the rest is for the next call. Raise `StoreUnavailable` if one of the stores is away,
        and whatever else keeps the cold store from use.
        """
        return self._archiver.sweep_or_raise(before or self._archived_before(), limit, within.total_seconds())

    # -- moving between stores -----------------------------------------------------------------------------------------

    def export(self, execution_id: str) -> ExportedExecution | None:
        return self._read(lambda store: store.export(execution_id))

    def restore(self, exported: ExportedExecution) -> bool:
        execution_id = exported.execution_id
        if self.keeps_deleted and self.cold.get_summary(execution_id) is None and self.cold.get_audit(execution_id):
            return False  # deleted
        self._require_key_is_free(exported)
        archives = is_settled(exported) and self.archive_after == timedelta(0)
        if self.hot.get_summary(execution_id) is None:
            if archives:
                return self.cold.restore(exported)
            archived = self.cold.export(execution_id)
            if archived is not None and archived.place >= exported.place:
                return False
        if not self.hot.restore(exported):
            return False
        if archives:
            self._archiver.try_archive(execution_id)
        return True

    def drop_archived(self, execution_id: str, place: tuple[int, int, int]) -> bool:
        summary = self.hot.get_summary(execution_id)
        if summary is None:
            return self.cold.drop_archived(execution_id, place)
        if summary.ended_at is None or summary.due_at is not None or (summary.version, summary.attempt) != place[:2]:
            return False
        from_hot = self.hot.drop_archived(execution_id, place)
        return self.cold.drop_archived(execution_id, place) or from_hot

    def hold_finished(self) -> None:
        self.hot.hold_finished()
        self.cold.hold_finished()
        super().hold_finished()

    # -- waiting, the connection ---------------------------------------------------------------------------------------

    def watch(self, execution_id: str) -> Watch:
        """Watch an execution; one that only the cold store has does not change. See `StorePrimitives.watch`."""
        return self.hot.watch(execution_id)

    def check(self) -> None:
        self.hot.check()
        self.cold.check()

    def durability_warning(self) -> str | None:
        warnings = (store.durability_warning() for store in (self.hot, self.cold))
        return " ".join(warning for warning in warnings if warning) or None

    def now(self) -> datetime:
        return self.hot.now()

    def close(self) -> None:
        if self._background is not None:
            self._background.close()
        self.hot.close()
        self.cold.close()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _read(self, look: Callable[[Store], T | None]) -> T | None:
        """Look into the hot store and then the cold one, where an execution archived between the two looks is found."""
        found = look(self.hot)
        return look(self.cold) if found is None else found

    def _archive_at_once(self, execution_id: str) -> None:
        if self.archive_after == timedelta(0):
            (self._background.submit if self._background else self._archiver.try_archive)(execution_id)

    def _archived_before(self) -> datetime:
        """Return the time before which an execution must have ended to be archived now."""
        now = self.hot.now()
        # Without a delay the clocks of hosts and servers need not agree.
        return now - self.archive_after if self.archive_after else now + _DAY

    def _require_key_is_free(self, exported: ExportedExecution) -> None:
        agent_id, key = exported.header["agent_id"], exported.header["idempotency_key"]
        holder = None if key is None else self.get_by_idempotency_key(agent_id, key)
        if holder is not None and holder.execution_id != exported.execution_id:
            raise IdempotencyKeyTaken(agent_id, key)
