"""Streams are kept for some time after the end of their executions, and removed then."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agent_statestore.clock import Clock, SystemClock, from_us, to_us
from agent_statestore.store import Store

# Where it is noted up to which end all streams are removed, so that nobody looks at them again.
_NAMESPACE: Final = ("agents", "housekeeping")
_KEY: Final = "streams trimmed"
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)


def trim_ended(store: Store, kept: timedelta, *, limit: int = 100, clock: Clock | None = None) -> tuple[int, bool]:
    """Remove the streams of executions that were over for `kept`, at most `limit` of them, the longest over first.

    Return how many events were removed, and whether there may be more to do at once. Any number of processes may do it
    at once; an execution that was passed by, as its end was still to be announced, keeps its stream until it is purged.
    Raise `StoreError`.
    """
    noted = store.documents.get(_NAMESPACE, _KEY)
    value: Any = None if noted is None else noted.value
    after = _FIRST if value is None else from_us(int(value["up_to_us"]))
    before = from_us((clock or SystemClock()).now_us()) - kept
    if before <= after:
        return 0, False
    removed, reached, asked, seen = 0, after, limit, set[str]()
    while True:
        found = store.find_ended(before, after=after, limit=asked)
        for execution_id in found:
            summary = None if execution_id in seen else store.get_summary(execution_id)
            seen.add(execution_id)
            if summary is not None and summary.ended_at is not None and summary.ended_at < before:
                removed += store.trim_stream(execution_id, 0)
                reached = max(reached, summary.ended_at)
        if len(found) < asked:
            reached = before
        if reached > after:
            break
        asked *= 2  # more than these were over in the same microsecond
    store.documents.put(_NAMESPACE, _KEY, {"up_to_us": to_us(reached)})
    return removed, reached < before
