"""Conversion of signals to stored text and back."""

from collections.abc import Iterable
from typing import Final

from agent_statestore.clock import from_us
from agent_statestore.envelope import Fields, reading, seal, unseal
from agent_statestore.records import ROUND_MARK, AuditEvent, SayMode, Signal, SignalKind

# Only the first signal of these kinds under one key is ever accepted.
ANSWERING: Final = (SignalKind.ANSWER.value, SignalKind.APPROVAL.value)

# Anybody may send any number of these: a full mailbox, or a full context, refuses them.
BOUNDED: Final = (SignalKind.EVENT, SignalKind.SAY)

# The address of what ends a model's call in flight.
INTERRUPTING: Final = f"{SignalKind.SAY}:{SayMode.INTERRUPT}"

# The signals with which people decide something.
_DECISIONS: Final = frozenset({SignalKind.ANSWER, SignalKind.APPROVAL, SignalKind.CANCEL})


def mailbox_key(key: str, round: int) -> str:  # noqa: A002 - the field's name
    """Return the key under which a mailbox keeps what is for this round: rounds of one key are kept apart."""
    return key if round == 1 else f"{key}{ROUND_MARK}{round}"


def address_of(kind: str, key: str) -> str:
    """Return what a signal is for, as one text; `key` is a `mailbox_key`.

    A kind contains no colon, so two addresses are never mixed up.
    """
    return f"{kind}:{key}"


# Has as many digits as the time of any signal.
_ANY_US: Final = 10**15
_ANY_TIME: Final = f'"at":{_ANY_US}}}'


def encode_signal(signal: Signal, max_bytes: int) -> str:
    """Return a signal as stored, without its time: only the store knows it, and `stamp` completes the text.

    Raise `NotSerialisable` or `ValueTooLarge`.
    """
    sealed = seal(
        "signal",
        {
            "id": signal.signal_id,
            "kind": signal.kind.value,
            "key": signal.key or None,
            "payload": signal.payload,
            "sender": signal.sender,
            "reason": signal.reason,
            "round": None if signal.round == 1 else signal.round,
            "channel": signal.channel,
            "os_user": signal.os_user,
        },
        "signal",
        max_bytes,
        at=_ANY_US,
    )
    return sealed.removesuffix(_ANY_TIME)


def stamp(text: str, now_us: int) -> str:
    """Return what `encode_signal` made, with its time. PostgreSQL's statement and `send.lua` do the same."""
    return f'{text}"at":{now_us}}}'


def decode_signal(text: str | bytes) -> Signal:
    """Return a stored signal."""
    return signal_of(unseal(text, "signal"))


def decode_mailbox(execution_id: str, texts: Iterable[str | bytes]) -> tuple[Signal, ...]:
    """Return stored signals. Raise `FormatTooNew` or `ExecutionUnreadable`."""
    return reading(execution_id, "signals", lambda: tuple(map(decode_signal, texts)))


def signal_of(fields: Fields) -> Signal:
    """Return the signal of an envelope's fields."""
    return Signal(
        signal_id=fields["id"],
        kind=SignalKind(fields["kind"]),
        key=fields.get("key", ""),
        payload=fields.get("payload"),
        sender=fields.get("sender"),
        reason=fields.get("reason"),
        sent_at=from_us(fields["at"]),
        round=fields.get("round", 1),
        channel=fields.get("channel"),
        os_user=fields.get("os_user"),
    )


def noted_as(signal: Signal) -> AuditEvent | None:
    """Return the event under which the audit trail notes an accepted signal; None if it does not note it.

    An event, or what is said, is noted if somebody stands behind it. Events with which executions wake each other, and
    those of programs that name nobody, may be many, and would leave nothing to be asked about.
    """
    if signal.kind in _DECISIONS:
        return AuditEvent.DECIDED
    if signal.kind in BOUNDED and signal.sender is not None:
        return AuditEvent.RECEIVED
    return None
