"""Conversion of waits to stored text and back, and the signals that end each wait."""

from collections.abc import Sequence
from typing import Final

from agent_statestore.clock import from_us, to_us
from agent_statestore.codec.signals import address_of, mailbox_key
from agent_statestore.envelope import Fields, dump, load, present, seal, unseal
from agent_statestore.records import SignalKind, Wait, WaitKind, vote_key

# The kind of signal that ends a wait, as stored; a timer has none.
WAIT_SIGNAL: Final = {
    WaitKind.INPUT: SignalKind.ANSWER.value,
    WaitKind.APPROVAL: SignalKind.APPROVAL.value,
    WaitKind.EVENT: SignalKind.EVENT.value,
    WaitKind.CHILD: SignalKind.CHILD.value,
}


def addresses_of(waits: Sequence[Wait]) -> tuple[str, ...]:
    """Return the addresses of the signals that end a pause on these waits."""
    return tuple(
        address_of(WAIT_SIGNAL[wait.kind], mailbox_key(key, wait.round))
        for wait in waits
        if wait.kind in WAIT_SIGNAL
        for key in ([vote_key(wait.key, voter) for voter in wait.voters] or [wait.key])
    )


def encode_awaited(addresses: Sequence[str]) -> str | None:
    """Return the addresses as stored: a JSON array, or None if there are none."""
    return dump(list(addresses), "waiting") if addresses else None


def decode_awaited(text: str | None) -> list[str]:
    """Return stored addresses."""
    awaited: list[str] = [] if text is None else load(text)
    return awaited


def encode_waits(waits: Sequence[Wait], max_bytes: int) -> str:
    """Return the waits as stored. Raise `NotSerialisable`, or `ValueTooLarge` if one of them is too large."""
    fields = [_fields_of(wait) for wait in waits]
    if len(fields) > 1:
        for each in fields:
            dump(each, "waiting", max_bytes)
    return seal("waits", {"waits": fields}, "waiting", max_bytes * len(fields))


def decode_waits(text: str | bytes) -> tuple[Wait, ...]:
    """Return stored waits."""
    return tuple(_wait_of(fields) for fields in unseal(text, "waits")["waits"])


def _fields_of(wait: Wait) -> Fields:
    return present(
        {
            "kind": wait.kind.value,
            "key": wait.key,
            "prompt": wait.prompt,
            "schema": None if wait.schema is None else dict(wait.schema),
            "at": to_us(wait.asked_at),
            "wake": None if wait.wake_at is None else to_us(wait.wake_at),
            "round": None if wait.round == 1 else wait.round,
            "refused": wait.refused,
            "type": wait.answer_type,
            "voters": list(wait.voters) or None,
        }
    )


def _wait_of(fields: Fields) -> Wait:
    wake = fields.get("wake")
    return Wait(
        kind=WaitKind(fields["kind"]),
        key=fields["key"],
        prompt=fields.get("prompt"),
        schema=fields.get("schema"),
        asked_at=from_us(fields["at"]),
        wake_at=None if wake is None else from_us(wake),
        round=fields.get("round", 1),
        refused=fields.get("refused"),
        answer_type=fields.get("type"),
        voters=tuple(fields.get("voters", ())),
    )
