"""The end of a wait for a signal: it has come, or its time is up; until then the execution is to pause."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agent_statestore.codec import noted_as
from agent_statestore.records import AuditEvent, JSONValue, Signal, SignalKind, Wait, WaitKind
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.pauses.rounds import FIRST, Round

_SIGNALS: Final = {
    WaitKind.INPUT: SignalKind.ANSWER,
    WaitKind.APPROVAL: SignalKind.APPROVAL,
    WaitKind.EVENT: SignalKind.EVENT,
    WaitKind.CHILD: SignalKind.CHILD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A wait that the execution is in: its kind and key, the key of its step, and since when."""

    kind: WaitKind
    key: str
    step: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """The end of a wait: the signal that came, or None if its time was up first.

    `problems` say why the signal does not count, whatever it carries.
    """

    signal: Signal | None
    since: datetime
    problems: tuple[str, ...] = ()


def began(attempt: Attempt, kind: WaitKind, key: str, step: str, asked: Round = FIRST) -> datetime:
    """Return when the execution first came to this wait: now, unless it was paused on it before this claim."""
    return (
        attempt.recorder.paused_on.since(kind, key, step)
        or attempt.limits.began_waiting(kind, key, step)
        or asked.since
        or attempt.now()
    )


def address(kind: WaitKind, key: str, asked: Round) -> tuple[SignalKind, str, int] | None:
    """Return the kind, key and round of the signals that end a wait; None for a timer."""
    wanted = _SIGNALS.get(kind)
    if wanted is None:
        return None
    return wanted, key, FIRST.number if kind is WaitKind.EVENT else asked.number  # who sends an event knows no rounds


def signal_or_wait(
    attempt: Attempt,
    kind: WaitKind,
    key: str,
    *,
    since: datetime,
    wake_at: datetime | None = None,
    prompt: JSONValue = None,
    schema: dict[str, JSONValue] | None = None,
    asked: Round = FIRST,
    answer_type: JSONValue = None,
) -> Waited | Wait:
    """Return the signal of this address, or that it is `wake_at`; otherwise what the execution is to be paused on.

    A signal is taken with the next write of this thread.
    """
    of = address(kind, key, asked)
    signal = None if of is None else attempt.mailbox.take(*of)
    if signal is not None:
        return Waited(signal=signal, since=since, problems=unproven(attempt, signal))
    if wake_at is not None and attempt.now() >= wake_at:
        return Waited(signal=None, since=since)
    return Wait(
        kind=kind,
        key=key,
        prompt=prompt,
        schema=schema,
        asked_at=since,
        wake_at=wake_at,
        round=1 if of is None else of[2],
        refused=asked.refused,
        answer_type=answer_type,
    )


def unproven(attempt: Attempt, signal: Signal) -> tuple[str, ...]:
    """Return what is wrong with a decision that the audit trail does not have, or has otherwise; nothing of others.

    `Store.send` writes a decision and its entry in one operation, so somebody has written past it.
    """
    if noted_as(signal) is not AuditEvent.DECIDED:
        return ()
    trail = attempt.ask_store(attempt.mailbox.read_trail)
    if any(entry.event is AuditEvent.DECIDED and entry.signal == signal for entry in trail):
        return ()
    return ("the audit trail does not have this decision",)
