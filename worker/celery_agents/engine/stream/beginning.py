"""How an attempt begins, as its stream tells it."""

from agent_statestore.codec import NEVER_US
from agent_statestore.errors import StoreError
from agent_statestore.records import Claim, JSONValue
from agent_statestore.store import Store
from agent_statestore.streams.records import StreamKind

# After these, a claim is nobody's recovery.
_LEFT_WELL = frozenset({StreamKind.DRAINED, StreamKind.PAUSED, StreamKind.ENDED})
# Numbers are microseconds at least: the events of this time before the last one are looked at.
_LOOKED_AT_US = 10_000_000


def begun(claim: Claim, store: Store) -> tuple[StreamKind, dict[str, JSONValue]]:
    """Return what a claim is told as.

    Whether the one before was lost is known by what it said last: one that has left well has said so.
    """
    told: dict[str, JSONValue] = {"worker": claim.lease.owner}
    before = claim.lease.token - 1
    if before == 0:
        return StreamKind.STARTED, told
    if claim.context.waits or _last_word(store, claim.lease.execution_id) in _LEFT_WELL:
        return StreamKind.RESUMED, told
    return StreamKind.RECOVERED, {**told, "from_attempt": before}


def _last_word(store: Store, execution_id: str) -> str | None:
    """Return the kind of the last event that an attempt has said; None if there is none, or the store is away."""
    try:
        stored = store.read_streams({execution_id: NEVER_US}, 1).get(execution_id)
        if stored is None or not stored.last:
            return None
        page = store.read_events(execution_id, stored.last - _LOOKED_AT_US, 1000)
    except StoreError:
        return None
    kinds = [event.kind for event in page.events if event.attempt] if page is not None else []
    return kinds[-1] if kinds else None
