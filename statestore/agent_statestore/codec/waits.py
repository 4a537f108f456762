"""Waits to stored text and back, and the kind of signal that ends each."""

from typing import Final

from agent_statestore.clock import from_us, to_us
from agent_statestore.envelope import seal, unseal
from agent_statestore.records import SignalKind, Wait, WaitKind

# The kind of signal that ends a wait, as stored; a timer has none.
WAIT_SIGNAL: Final = {
    WaitKind.INPUT: SignalKind.ANSWER.value,
    WaitKind.APPROVAL: SignalKind.APPROVAL.value,
    WaitKind.EVENT: SignalKind.EVENT.value,
    WaitKind.CHILD: SignalKind.CHILD.value,
}


def encode_wait(wait: Wait, max_bytes: int) -> str:
    """Return the wait as stored. Raise `NotSerialisable` or `ValueTooLarge`."""
    return seal(
        {
            "kind": wait.kind.value,
            "key": wait.key,
            "prompt": wait.prompt,
            "schema": None if wait.schema is None else dict(wait.schema),
            "at": to_us(wait.asked_at),
            "wake": None if wait.wake_at is None else to_us(wait.wake_at),
        },
        "waiting",
        max_bytes,
    )


def decode_wait(text: str | bytes) -> Wait:
    """A stored wait."""
    fields = unseal(text, "wait")
    wake = fields.get("wake")
    return Wait(
        kind=WaitKind(fields["kind"]),
        key=fields["key"],
        prompt=fields.get("prompt"),
        schema=fields.get("schema"),
        asked_at=from_us(fields["at"]),
        wake_at=None if wake is None else from_us(wake),
    )
