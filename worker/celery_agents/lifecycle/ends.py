"""The end of an execution, told to those whom it concerns: its parent, its children, and the next in line."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol

from agent_statestore.checkpoint import Checkpoint, Via
from agent_statestore.errors import (
    ExecutionNotFound,
    ExecutionOver,
    ExecutionUnreadable,
    LeaseHeld,
    LeaseLost,
    StoreError,
    StoreUnavailable,
)
from agent_statestore.plain_text import line_logger
from agent_statestore.records import AuditEvent, ExecutionSummary, Lease, Signal, SignalKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from celery_agents.define.registry import Registry
from celery_agents.engine.stream.telling import ending
from celery_agents.lifecycle.relatives import children_of
from celery_agents.lifecycle.ring import Ring
from celery_agents.lifecycle.turns.line import pass_turn_on

log = line_logger(__name__)

# What a parent is told, in place of the state, when a child was deleted before it ended.
_DELETED: Final = "deleted"

# Who ended an execution that nobody in particular cut short. No end that an engine or a sweeper records names anybody.
_CUT_SHORT: Final = "a cancel at once"


def was_cut_short(store: Store, execution_id: str) -> bool:
    """Return whether a cancel ended the execution at once (`Ends.cut_short`), and not at a step boundary."""
    return any(
        entry.event is AuditEvent.MOVED and entry.to_state is AgentState.CANCELLED and entry.by is not None
        for entry in store.get_audit(execution_id)
    )


class TellOutside(Protocol):
    """Sees to it that the world outside is told of an end. May be called again. Raise `StoreError`."""

    def __call__(self, summary: ExecutionSummary, *, deleted: bool) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Records and tells the ends that no worker's engine records. `ring` publishes a bell.

    `tell_outside` sees to it that the world outside is told: of an end, or (`deleted`) that there will be none.

    An end is told before it is settled in the store (`Store.settle`): until then it is told again and again, so that
    a death in between loses nothing. Telling twice is harmless.
    """

    store: Store
    registry: Registry
    ring: Ring
    announce_within: timedelta | None = None
    tell_outside: TellOutside | None = None

    def finish_cancel(self, execution_id: str) -> bool:
        """Record the end of an execution whose cancel was asked for, if nobody holds a lease on it.

        Return False if somebody does: that worker ends it at its next step boundary.
        """
        try:
            self.store.checkpoint(execution_id, self._cancelled())
        except LeaseHeld:
            return False
        except ExecutionOver:
            pass
        return True

    def cut_short(self, execution_id: str, *, by: str | None, reason: str | None, via: Via | None = None) -> bool:
        """Record that an execution whose cancel was asked for has ended now, whoever holds a lease on it.

        The write takes the lease, so the store refuses every later write of its holder. Always return True.
        """
        checkpoint = self._cancelled(by=by or _CUT_SHORT, reason=reason, via=via)
        while True:
            try:
                self.store.checkpoint(execution_id, checkpoint)
            except LeaseHeld:
                lease = self._lease_on(execution_id)
                if lease is None:
                    continue  # it was given back meanwhile
                try:
                    self.store.checkpoint(execution_id, checkpoint, lease)
                except LeaseLost:
                    continue  # the execution ended, or paused, or another process has claimed it
            except ExecutionOver:
                pass
            return True

    def _cancelled(self, **said: Any) -> Checkpoint:
        state = AgentState.CANCELLED
        return Checkpoint(state=state, announce_within=self.announce_within, stream=ending(state), **said)

    def _lease_on(self, execution_id: str) -> Lease | None:
        summary = self.store.get_summary(execution_id)
        if summary is None or summary.owner is None or summary.lease_expires_at is None:
            return None
        return Lease(
            execution_id=execution_id,
            token=summary.attempt,
            owner=summary.owner,
            ttl=timedelta(0),
            expires_at=summary.lease_expires_at,
        )

    def tell(self, summary: ExecutionSummary) -> None:
        """Tell of the end of an execution: tell its parent, the next in line, and its children if it was cancelled.

        May be repeated. Raise `StoreError`, and then it must be repeated: one relative that cannot be told does not
        keep the others waiting.
        """
        tellings: list[Callable[[], None]] = []
        if summary.parent_execution_id is not None:
            tellings.append(partial(self._tell_parent, summary, summary.parent_execution_id, summary.state.value))
        if summary.state is AgentState.CANCELLED:
            children = self._children_of(summary.execution_id)
            now = bool(children) and was_cut_short(self.store, summary.execution_id)
            tellings.extend(partial(self._cancel, child_id, summary.execution_id, now=now) for child_id in children)
        tellings.append(partial(self._pass_turn_on, summary))
        if self.tell_outside is not None:
            tellings.append(partial(self.tell_outside, summary, deleted=False))
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

    def _children_of(self, execution_id: str) -> list[str]:
        """Return the children; none of an execution whose steps are damaged, for nobody will ever know them."""
        try:
            return list(children_of(self.store, execution_id))
        except ExecutionUnreadable as error:
            log.error("execution %s is cancelled, and its children go on: %s", execution_id, error)
            return []

    def tell_of(self, execution_id: str) -> None:
        """Look up an execution and `tell` of its end; do nothing if it is gone."""
        summary = self.store.get_summary(execution_id)
        if summary is not None:
            self.tell(summary)

    def try_to_tell_of(self, execution_id: str) -> None:
        """Call `tell_of` and log faults: a worker tells too, before the end is settled.

        Its slots may all be taken, however, by the very children that should be cancelled.
        """
        try:
            self.tell_of(execution_id)
        except StoreError as error:
            log.warning("execution %s: its relatives will be told of its cancel later: %s", execution_id, error)

    def tell_of_deletion(self, summary: ExecutionSummary) -> None:
        """Tell those who wait for an execution (its parent, the next in line) that it was deleted before its end.

        Its children go on, as they do when it fails. May be repeated. Raise `StoreError`.
        """
        self._pass_turn_on(summary)
        if self.tell_outside is not None:
            self.tell_outside(summary, deleted=True)
        if summary.parent_execution_id is not None:
            self._tell_parent(summary, summary.parent_execution_id, _DELETED)

    def _pass_turn_on(self, summary: ExecutionSummary) -> None:
        pass_turn_on(self.store, self.registry, self.ring, summary)

    def _tell_parent(self, summary: ExecutionSummary, parent_id: str, end: str) -> None:
        signal = Signal(
            signal_id=f"end of {summary.execution_id}",
            kind=SignalKind.CHILD,
            key=summary.execution_id,
            payload=end,
        )
        try:
            sent = self.store.send(parent_id, signal)
        except (ExecutionNotFound, ExecutionOver):
            return  # nobody waits any more
        if sent.woke:
            parent = self.store.get_summary(parent_id)
            if parent is not None:
                self.ring(parent)

    def _cancel(self, child_id: str, parent_id: str, *, now: bool) -> None:
        cancel = Signal(
            signal_id=f"cancel of {parent_id}",
            kind=SignalKind.CANCEL,
            sender=f"execution {parent_id}",
            reason="its parent was cancelled",
        )
        try:
            self.store.send(child_id, cancel)
            if now:
                self.cut_short(child_id, by=cancel.sender, reason=cancel.reason)
            else:
                self.store.checkpoint(child_id, self._cancelled())
        except (ExecutionNotFound, ExecutionOver):
            return
        except LeaseHeld:
            return  # whoever works on it ends it at its next step boundary
        # This is not left to a worker, because these very descendants may take all of its slots.
        for grandchild_id in self._children_of(child_id):
            self._cancel(grandchild_id, child_id, now=now)
        child = self.store.get_summary(child_id)
        if child is not None:
            self.ring(child)
