"""When a signal is accepted, and how it changes the header."""

from typing import NamedTuple

from agent_statestore.codec.signals import ANSWERING, BOUNDED, address_of, mailbox_key
from agent_statestore.codec.waits import decode_awaited
from agent_statestore.envelope import format_of, require_readable
from agent_statestore.errors import (
    AlreadyAnswered,
    ContextTooLarge,
    ExecutionNotFound,
    ExecutionOver,
    MailboxFull,
    QuestionNotAsked,
)
from agent_statestore.records import Sent, Signal, SignalKind
from agent_statestore.rules.leases import Changes, Header, is_leased
from agent_statestore.states import AgentState


class MailBounds(NamedTuple):
    """The limits of the store, and the size of the context with the signal in its mailbox."""

    max_mailbox: int
    max_context_bytes: int
    context_bytes: int


def check_signal(
    execution_id: str,
    header: Header | None,
    signal: Signal,
    *,
    sent: bool,
    answered: bool,
    waiting: int,
    bounds: MailBounds,
) -> Sent | None:
    """Raise what keeps the signal out of the mailbox, in the contract's order; return None if nothing does.

    `sent` says whether the signal was accepted before; then return its outcome. `answered` says whether one of its
    kind, key and round was accepted, and `waiting` how many signals are in the mailbox.
    """
    if header is None:
        raise ExecutionNotFound(execution_id)
    require_readable(f"execution {execution_id}", header["format"])
    if sent:
        return Sent(woke=False)
    if AgentState(header["state"]).is_over:
        raise ExecutionOver(execution_id, header["state"])
    if waiting >= bounds.max_mailbox and _is_refused_by_full_mailbox(header, signal):
        raise MailboxFull(execution_id, signal.key, bounds.max_mailbox)
    if signal.kind in BOUNDED and bounds.context_bytes > bounds.max_context_bytes:
        raise ContextTooLarge(execution_id, bounds.context_bytes, bounds.max_context_bytes)
    if signal.kind.value in ANSWERING:
        if answered:
            raise AlreadyAnswered(execution_id, signal.key)
        if not _is_awaited(header, signal):
            raise QuestionNotAsked(execution_id, signal.key)
    return None


def signal_changes(header: Header, signal: Signal, text: str, now_us: int) -> tuple[Changes, Sent]:
    """Return what an accepted signal changes, and what `send` answers. `text` is the signal as stored."""
    is_cancel = signal.kind is SignalKind.CANCEL
    changes: Changes = {"updated_us": now_us}
    if format_of(text) > header["format"]:
        changes["format"] = format_of(text)
    if is_cancel:
        changes["cancel_requested"] = 1
    is_paused = AgentState(header["state"]).is_paused
    woke = not is_leased(header, now_us) and (is_cancel or (is_paused and _is_awaited(header, signal)))
    if woke:
        changes |= {"due_us": now_us, "not_before_us": 0, "rings": 0}
    return changes, Sent(woke=woke)


def _is_refused_by_full_mailbox(header: Header, signal: Signal) -> bool:
    """Return whether anybody may send any number of such signals: a cancel says nothing new once one was sent."""
    return signal.kind in BOUNDED or (signal.kind is SignalKind.CANCEL and bool(header["cancel_requested"]))


def _is_awaited(header: Header, signal: Signal) -> bool:
    """Return whether the execution waits for this signal, among others."""
    return address_of(signal.kind, mailbox_key(signal.key, signal.round)) in decode_awaited(header["awaited"])
