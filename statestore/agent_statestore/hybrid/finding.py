"""`find` and `find_ended` over two stores at once.

An execution may be in both: a hot store that lets finished executions expire keeps them for a while, a crash may leave
both copies, and one that was released after it had been archived has an older copy in the cold store until it is over
again. The hot store's copy is the one that counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from agent_statestore.clock import to_us
from agent_statestore.query import Cursor, Query, check_limit, decode_cursor, encode_cursor
from agent_statestore.records import ExecutionSummary, Page
from agent_statestore.states import ACTIVE, AgentState
from agent_statestore.store import Store

# Behind every existing place, in either order.
_OLDEST: Final = Cursor(-1, "")
_NEWEST: Final = Cursor(2**63, "")


def find_page(hot: Store, cold: Store, query: Query) -> Page:
    """Return one page of executions; see `StorePrimitives.find`.

    The cursor is the same in every store: a place in the order that all share. Pages of both are read in turns from the
    same place, the hot store's first: an execution that is archived between the two looks is then seen twice, not
    missed. Released ones are not missed as their cold copy stays. If only active ones are wanted, the cold store is not
    asked.
    """
    wanted, limit, oldest_first = query.among, query.limit, query.oldest_first
    if wanted is not None and wanted <= ACTIVE:
        return hot.find(query)
    nearest, end = (min, _NEWEST) if oldest_first else (max, _OLDEST)
    items: list[ExecutionSummary] = []
    asked = replace(query, limit=limit + 1)
    while True:
        first, second = (store.find(asked) for store in (hot, cold))
        # Behind this place, one of the two stores has more than it has shown.
        shown = (decode_cursor(page.next_cursor) for page in (first, second) if page.next_cursor)
        horizon = nearest(shown, default=end)
        for summary, is_hot in _merged(first.items, second.items, oldest_first):
            place = _place(summary)
            if (place > horizon) if oldest_first else (place < horizon):
                break
            current = summary if is_hot else _current(hot, summary, wanted)
            if current is not None:
                items.append(current)
            if len(items) > limit:
                return Page(items=tuple(items[:limit]), next_cursor=encode_cursor(_place(items[limit - 1])))
        if horizon == end:
            return Page(items=tuple(items), next_cursor=None)
        asked = replace(asked, cursor=encode_cursor(horizon))


def find_ended(
    hot: Store,
    cold: Store,
    before: datetime,
    *,
    after: datetime | None = None,
    states: Iterable[AgentState] | None = None,
    limit: int = 100,
) -> tuple[str, ...]:
    """Return the executions that are still to archive, and the archived ones; see `StorePrimitives.find_ended`."""
    check_limit(limit)
    wanted = None if states is None else frozenset(states)
    in_hot = hot.find_ended(before, after=after, states=wanted, limit=limit)
    in_cold = _archived(hot, cold, before, after, wanted, limit, frozenset(in_hot))
    if not in_hot or not in_cold:
        return (in_hot or in_cold)[:limit]
    # Both stores have some only where executions are archived some time after their end.
    ends = [(_end(store, found), found) for store, ids in ((hot, in_hot), (cold, in_cold)) for found in ids]
    return tuple(found for _, found in sorted((at, found) for at, found in ends if at is not None))[:limit]


def _archived(
    hot: Store,
    cold: Store,
    before: datetime,
    after: datetime | None,
    wanted: frozenset[AgentState] | None,
    limit: int,
    known: frozenset[str],
) -> tuple[str, ...]:
    """Return the executions of the cold store about which the hot one does not know better."""
    asked = limit
    while True:
        found = cold.find_ended(before, after=after, states=wanted, limit=asked)
        kept = [
            execution_id
            for execution_id in found
            if execution_id not in known and _has_ended(hot, execution_id, before, wanted)
        ]
        if len(kept) >= limit or len(found) < asked:
            return tuple(kept[:limit])
        asked *= 2  # released ones stand in front


def _has_ended(hot: Store, execution_id: str, before: datetime, wanted: frozenset[AgentState] | None) -> bool:
    """Return False if the hot store has the execution in a state in which an archived one cannot be."""
    summary = hot.get_summary(execution_id)
    return summary is None or (
        summary.ended_at is not None
        and summary.ended_at < before
        and summary.due_at is None
        and (wanted is None or summary.state in wanted)
    )


def _end(store: Store, execution_id: str) -> datetime | None:
    summary = store.get_summary(execution_id)
    return None if summary is None else summary.ended_at


def _merged(
    hot: Sequence[ExecutionSummary], cold: Sequence[ExecutionSummary], oldest_first: bool
) -> list[tuple[ExecutionSummary, bool]]:
    """Return the executions in order, each once, with whether it is the hot store's."""
    by_place = {_place(summary): (summary, False) for summary in cold}
    by_place |= {_place(summary): (summary, True) for summary in hot}
    return [by_place[place] for place in sorted(by_place, reverse=not oldest_first)]


def _current(hot: Store, archived: ExecutionSummary, wanted: frozenset[AgentState] | None) -> ExecutionSummary | None:
    """Return the execution as it is now; None if its state is not among those wanted any more.

    Completed and cancelled are final. A failed one may have been released since.
    """
    if archived.state in (AgentState.COMPLETED, AgentState.CANCELLED):
        return archived
    summary = hot.get_summary(archived.execution_id)
    if summary is None:
        return archived
    return summary if wanted is None or summary.state in wanted else None


def _place(summary: ExecutionSummary) -> Cursor:
    return Cursor(to_us(summary.created_at), summary.execution_id)
