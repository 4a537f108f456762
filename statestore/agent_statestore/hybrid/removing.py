"""Deleting and purging in two stores. Both end with the cold store and then the hot one; see `returning`."""

from dataclasses import replace

from agent_statestore.checkpoint import Via
from agent_statestore.errors import ExecutionUnreadable, FormatTooNew, IdempotencyKeyTaken
from agent_statestore.query import Query
from agent_statestore.store import Store


def delete(hot: Store, cold: Store, execution_id: str, by: str | None, reason: str | None, via: Via | None) -> bool:
    """Delete an execution where the cold store keeps deleted ones; it is first moved there, in whatever state.

    A crash in between leaves it as it was; or it stays visible although it is deleted in the cold store: then it is
    removed as soon as it should be archived, or when the deletion is repeated.

    One that is damaged cannot be moved, and nobody could read it there: it is purged at once.
    """
    try:
        copy = hot.export(execution_id)
    except ExecutionUnreadable:
        was_archived = cold.delete_context(execution_id, by=by, reason=reason, via=via)
        return hot.purge(execution_id) or was_archived
    if copy is not None:
        try:
            cold.restore(copy)
        except IdempotencyKeyTaken:
            # A deleted execution has no key any more, so the copy does not need one.
            cold.restore(replace(copy, header={**copy.header, "idempotency_key": None}))
    was_there = cold.delete_context(execution_id, by=by, reason=reason, via=via)
    hot.purge(execution_id)
    return was_there  # the cold store answers one of several callers with True


def purge(hot: Store, cold: Store, execution_id: str) -> bool:
    """Remove an execution for good. The hot store comes first, so that nobody archives it from then on."""
    found = hot.purge(execution_id)
    found = cold.purge(execution_id) or found
    return hot.purge(execution_id) or found


def clear(hot: Store, cold: Store) -> int:
    """Remove all, and return how many there were, each counted once.

    If there are some of a newer format, an execution that is in both stores counts twice.
    """
    try:
        in_both = _count_common(hot, cold)
    except FormatTooNew:
        in_both = 0
    return hot.clear() + cold.clear() - in_both


def _count_common(hot: Store, cold: Store) -> int:
    common, cursor = 0, None
    while True:
        page = hot.find(Query(limit=1000, cursor=cursor))
        common += sum(cold.get_summary(summary.execution_id) is not None for summary in page.items)
        cursor = page.next_cursor
        if cursor is None:
            return common
