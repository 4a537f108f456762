"""Cancel: a signal that is final. Whoever finds a cancelled execution without a lease records its end at once."""

import logging
from typing import TYPE_CHECKING
from uuid import uuid4

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import SystemClock, from_us
from agent_statestore.errors import ExecutionOver, LeaseHeld, StoreError
from agent_statestore.records import Signal, SignalKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from celery_agents.settings import Settings

if TYPE_CHECKING:
    from celery_agents.host.runtime import Runtime

log = logging.getLogger(__name__)


def request_cancel(store: Store, execution_id: str, *, sender: str | None, reason: str | None) -> bool:
    """Puts a cancel into the mailbox; False if the execution is over. Raises `ExecutionNotFound`."""
    signal = Signal(
        signal_id=uuid4().hex,
        kind=SignalKind.CANCEL,
        sender=sender,
        reason=reason,
        sent_at=from_us(SystemClock().now_us()),
    )
    try:
        store.send(execution_id, signal)
    except ExecutionOver:
        return False
    return True


def finish_cancel(store: Store, settings: Settings, execution_id: str) -> bool:
    """Records the end of an execution whose cancel was asked for, if nobody holds a lease on it.

    False if somebody does: that worker ends it at its next step boundary.
    """
    try:
        store.checkpoint(
            execution_id,
            Checkpoint(state=AgentState.CANCELLED, announce_within=settings.lease),
        )
    except LeaseHeld:
        return False
    except ExecutionOver:
        pass
    return True


def tell_relatives(runtime: "Runtime", execution_id: str) -> None:
    """Cancels the children of a cancelled execution, and tells its parent.

    A worker does so too, before the end is settled. But its slots may all be taken, by these very children.
    """
    try:
        summary = runtime.store.get_summary(execution_id)
        if summary is not None:
            runtime.executor.family.tell(summary)
    except StoreError as error:
        log.warning("execution %s: its relatives will be told of its cancel later: %s", execution_id, error)
