"""The pages and lists of `find` and `find_ended`, read from the indexes of all partitions."""

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_statestore.codec import decode_listed, decode_summary
from agent_statestore.query import Cursor, Query, encode_cursor
from agent_statestore.records import ExecutionSummary, Page
from agent_statestore.redis.answers import SUMMARY_FIELDS, summary_header, text
from agent_statestore.redis.keys import PARTITIONS, Keys, entry_of, partition_of
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Connection
from agent_statestore.states import AgentState

# Times beyond this do not fit the indexes' 18 digits; Python's last datetime is well below.
_LAST_US = 10**18 - 1


# How many entries of an index one call looks through for those that are in other indexes, too.
_LOOKED_THROUGH = 2000


@dataclass(slots=True)
class _Source:
    """The rest of some indexes in one partition: a few entries at a time, in the requested order.

    An entry counts if it is in one index of each group. The first group is gone through.
    """

    groups: Sequence[Sequence[bytes]]
    begin: str
    oldest_first: bool
    entries: list[str] = field(default_factory=list)
    is_exhausted: bool = False

    def call(self, end: str, batch: int) -> tuple[list[bytes], list[str | int]]:
        """Return the keys and arguments of `find_filtered.lua`."""
        keys = [key for group in self.groups for key in group]
        order = "1" if self.oldest_first else "0"
        return keys, [self.begin, end, batch, _LOOKED_THROUGH, order, *(len(group) for group in self.groups)]

    def fill(self, answer: Sequence[bytes | str]) -> None:
        """Take the entries that the script answered."""
        is_exhausted, self.begin, *entries = (text(part) for part in answer)
        self.is_exhausted = is_exhausted == "1"
        self.entries = list(reversed(entries))

    @property
    def next_entry(self) -> str:
        """The next entry, as a heap sorts it."""
        return self.entries[-1] if self.oldest_first else _descending(self.entries[-1])


def find_page(connection: Connection, keys: Keys, query: Query) -> Page:
    """Return one page. Its cost grows, slowly, with the entries of the shortest index that other filters refuse."""
    if query.among is not None and not query.among:
        return Page(items=(), next_cursor=None)
    limit = query.limit
    begin, end = _bounds(query)
    sources = _sources(connection, keys, query, begin)
    batch = max(16, limit // 4)
    found: list[tuple[ExecutionSummary, str]] = []
    last_entry = ""
    while len(found) <= limit:
        entries = []
        for entry in _merge(connection, sources, end, batch, limit + 1 - len(found)):
            # An execution that changes its state between two reads may be met under both states.
            if entry != last_entry:
                entries.append(entry)
            last_entry = entry
        if not entries:
            break
        summaries = _read(connection, keys, [entry.partition(":")[2] for entry in entries], decode_listed)
        found += [
            (summary, entry)
            for summary, entry in zip(summaries, entries, strict=True)
            if summary is not None and _matches(query, summary)
        ]
    items = tuple(summary for summary, _ in found[:limit])
    if len(found) <= limit:
        return Page(items=items, next_cursor=None)
    created_us, _, execution_id = found[limit - 1][1].partition(":")  # the header may be damaged
    return Page(items=items, next_cursor=encode_cursor(Cursor(int(created_us), execution_id)))


def find_ended(
    connection: Connection, keys: Keys, after_us: int, before_us: int, states: Collection[AgentState], limit: int
) -> tuple[str, ...]:
    """Return the executions of all partitions that were over the longest, in one round trip.

    Each partition names as many as are wanted altogether.
    """
    if not any(state.is_over for state in states):
        return ()
    calls = [
        ((*keys.of_partition(partition, "expiring"), *keys.ended(partition, states)), (before_us, limit, after_us))
        for partition in range(PARTITIONS)
    ]
    found = []
    for answer in connection.run_each(script("find_ended"), calls):
        found += [(int(answer[at + 1]), text(answer[at])) for at in range(0, len(answer), 2)]
    return tuple(execution_id for _, execution_id in heapq.nsmallest(limit, found))


def read_summaries(connection: Connection, keys: Keys, execution_ids: Sequence[str]) -> list[ExecutionSummary | None]:
    """Return the summaries of these executions, None where one is gone, in one round trip."""
    return _read(connection, keys, execution_ids, decode_summary)


def _read(
    connection: Connection,
    keys: Keys,
    execution_ids: Sequence[str],
    decode: Callable[[Mapping[str, Any]], ExecutionSummary],
) -> list[ExecutionSummary | None]:
    calls = [
        (
            (keys.header(execution_id), *keys.of_partition(partition_of(execution_id), "due")),
            (execution_id, *SUMMARY_FIELDS),
        )
        for execution_id in execution_ids
    ]
    answers = connection.run_each(script("get_summary"), calls)
    return [
        None if answer is None else decode(summary_header(answer, execution_id))
        for answer, execution_id in zip(answers, execution_ids, strict=True)
    ]


def _merge(connection: Connection, sources: list[_Source], end: str, batch: int, wanted: int) -> list[str]:
    """Return up to `wanted` next entries of all sources together, in order."""
    merged: list[str] = []
    while len(merged) < wanted:
        while empty := [source for source in sources if not source.entries and not source.is_exhausted]:
            calls = [source.call(end, batch) for source in empty]
            for source, answer in zip(empty, connection.run_each(script("find_filtered"), calls), strict=True):
                source.fill(answer)
        heap = [(source.next_entry, number) for number, source in enumerate(sources) if source.entries]
        heapq.heapify(heap)
        if not heap:
            break
        while heap and len(merged) < wanted:
            _, number = heapq.heappop(heap)
            source = sources[number]
            merged.append(source.entries.pop())
            if source.entries:
                heapq.heappush(heap, (source.next_entry, number))
            elif not source.is_exhausted:
                break  # its next entry may come before what the others hold
    return merged


def _sources(connection: Connection, keys: Keys, query: Query, begin: str) -> list[_Source]:
    """Return the sources of all partitions, over the indexes that the filters allow.

    Each goes through the index that lists the fewest executions, and holds the others against it.
    """
    # For each filter and partition, the indexes one of which must list an execution.
    allowed: list[list[list[bytes]]] = [
        [[keys.index(partition, name.removesuffix("_id"), value)] for partition in range(PARTITIONS)]
        for name, value in query.equal.items()
    ]
    if query.among is not None:
        states = sorted(query.among)
        allowed.append([[keys.index(partition, "state", state) for state in states] for partition in range(PARTITIONS)])
    if not allowed:
        return [
            _Source([keys.of_partition(partition, "all")], begin, query.oldest_first) for partition in range(PARTITIONS)
        ]
    best = 0
    if len(allowed) > 1:
        every = [[key for group in groups for key in group] for groups in allowed]
        sizes = iter(connection.send_each([("ZCARD", key) for each in every for key in each]))
        totals = [sum(next(sizes) for _ in each) for each in every]
        best = totals.index(min(totals))
    shortest_first = [allowed[best], *allowed[:best], *allowed[best + 1 :]]
    return [
        _Source([groups[partition] for groups in shortest_first], begin, query.oldest_first)
        for partition in range(PARTITIONS)
    ]


def _matches(query: Query, summary: ExecutionSummary) -> bool:
    """Return whether the header still says what an index said, and what the other filters ask."""
    return (query.among is None or summary.state in query.among) and all(
        getattr(summary, name) == value for name, value in query.equal.items()
    )


def _bounds(query: Query) -> tuple[str, str]:
    """Return where to begin in an index and where to end, as ZRANGEBYLEX or ZREVRANGEBYLEX takes them."""
    behind, from_us, before_us = query.behind, query.created_after_us, query.created_before_us
    place = None if behind is None else entry_of(_within(behind.created_us), behind.execution_id)
    ends = [] if before_us is None else [f"{_within(before_us):018d}"]
    lowest = "-" if from_us is None else f"[{_within(from_us):018d}"
    if query.oldest_first:
        # A place behind another one is later than the time before which nothing is wanted.
        first = lowest if place is None or lowest[1:] > place else f"({place}"
        return first, (f"({min(ends)}" if ends else "+")
    if place is not None:
        ends.append(place)
    return (f"({min(ends)}" if ends else "+"), lowest


def _within(us: int) -> int:
    return min(max(us, 0), _LAST_US)


class _descending(str):  # noqa: N801 - reads as a function where it is used
    """An entry that a heap, which gives the smallest first, gives largest first."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)
