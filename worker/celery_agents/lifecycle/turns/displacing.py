"""A new execution of a session takes the place of those before it: with the policies "interrupt" and "rollback".

It cancels them, and begins when they are over: as in a queue, of which only the last one is left. That is asked for
when it is created, since the ones before it may have all slots, and again by its worker, since its creator may have
died.

What an execution that was rolled back had said to the session is taken out before the new one begins. It was the one
writer of the session, so that this is the end of the conversation. Whether it was rolled back is read in its audit
trail. All of this may be repeated.
"""

from collections.abc import Iterator
from typing import Final

from agent_statestore.documents.errors import NamespaceHeld
from agent_statestore.documents.sessions import Session, SessionMessage
from agent_statestore.errors import ExecutionNotFound, ExecutionOver, MailboxFull, StoreError
from agent_statestore.plain_text import line_logger
from agent_statestore.records import AuditEvent, ExecutionSummary, Signal, SignalKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from celery_agents.define.turns import SessionPolicy, Turns
from celery_agents.lifecycle.ring import Ring
from celery_agents.lifecycle.turns.line import Line

log = line_logger(__name__)

_ROLLED_BACK: Final = "rolled back by "
_INTERRUPTED: Final = "interrupted by "
# How many messages are read first, from the end; if they are all to go, twice as many, and so on.
_FIRST_LOOK: Final = 50


def displace(store: Store, turns: Turns, own: ExecutionSummary, ring: Ring) -> None:
    """Ask for the cancel of all older executions of the agent in the session that are active. Raise `StoreError`."""
    if not turns.displaces or own.session_id is None:
        return
    how = _ROLLED_BACK if turns.session_policy is SessionPolicy.ROLLBACK else _INTERRUPTED
    for older in Line(store, turns).older_of_session(own):
        cancel = Signal(
            signal_id=f"{how}{own.execution_id}",
            kind=SignalKind.CANCEL,
            sender=f"execution {own.execution_id}",
            reason=f"{how}a newer execution of its session",
        )
        try:
            sent = store.send(older.execution_id, cancel)
        except (ExecutionNotFound, ExecutionOver, MailboxFull):
            continue  # in a full mailbox there is a cancel already
        if sent.woke:
            ring(older)  # a worker ends it


def try_to_displace(store: Store, turns: Turns, own: ExecutionSummary, ring: Ring) -> None:
    """Call `displace` and log faults: its worker asks again."""
    try:
        displace(store, turns, own, ring)
    except StoreError as error:
        log.warning("execution %s: those before it are cancelled when it is worked on: %s", own.execution_id, error)


def take_back(store: Store, turns: Turns, own: ExecutionSummary) -> None:
    """Take what was said by executions that were rolled back out of the end of the session. Raise `StoreError`."""
    if turns.session_policy is not SessionPolicy.ROLLBACK or own.session_id is None:
        return
    session = store.session(own.session_id)
    length = keep = session.length()
    judged: dict[str, bool] = {}
    for message in _from_the_end(session):
        said_by = message.execution_id
        if said_by not in judged:
            judged[said_by] = said_by != own.execution_id and _was_rolled_back(store, said_by)
        if not judged[said_by]:
            break
        keep = message.number - 1
    if keep == length:
        return
    try:
        session.rewind(keep)
    except NamespaceHeld as held:
        log.warning("session %s: execution %s writes to it, so nothing is taken out", own.session_id, held.execution_id)


def _from_the_end(session: Session) -> Iterator[SessionMessage]:
    seen, count = 0, _FIRST_LOOK
    while True:
        messages = session.last(count)
        yield from reversed(messages[: len(messages) - seen])
        if len(messages) < count:
            return
        seen, count = len(messages), 2 * count


def _was_rolled_back(store: Store, execution_id: str) -> bool:
    summary = store.get_summary(execution_id)
    if summary is None or summary.state is not AgentState.CANCELLED:
        return False
    return any(
        entry.event is AuditEvent.DECIDED
        and entry.signal is not None
        and entry.signal.kind is SignalKind.CANCEL
        and entry.signal.signal_id.startswith(_ROLLED_BACK)
        for entry in store.get_audit(execution_id)
    )
