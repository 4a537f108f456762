"""Under a lock: the events of executions; see `StreamPrimitives` for each primitive."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent_statestore.clock import Clock
from agent_statestore.codec.streams import EncodedPart, StoredStream
from agent_statestore.records import Lease
from agent_statestore.rules.leases import is_held_by
from agent_statestore.rules.streams import StreamEnd, appended
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.headers import Header, header_of
from agent_statestore.sql.locking.base import LOOKED_AT, LockedBase
from agent_statestore.sql.tables import STREAM_COLUMNS
from agent_statestore.sql.transaction import Select, Transaction, insert_into
from agent_statestore.states import AgentState
from agent_statestore.streams.records import Appended

# The columns that decide about a write which brings events.
STREAMED: Final = (*LOOKED_AT, *STREAM_COLUMNS)
_ENDING: Final = ("state", *STREAM_COLUMNS)


class LockedStreams(LockedBase):
    """The primitives on streams, and the part that events have in other writes."""

    def __init__(self, database: LockingDatabase, clock: Clock | None) -> None:
        super().__init__(database, clock)
        contexts, events = self._tables.contexts, self._tables.events
        self._streamed = f"SELECT {', '.join(STREAMED)} FROM {contexts} {self._here}{self.dialect.lock}"
        self._put_event = insert_into(events, ("execution_id", "number", "data"))
        self._ending = f"SELECT {', '.join(_ENDING)} FROM {contexts} {self._here}"
        self._events = (
            f"SELECT number, data FROM {events} WHERE execution_id = ? AND number > ? ORDER BY number LIMIT ?"
        )
        self._first_to_trim = (
            f"SELECT number FROM {events} WHERE execution_id = ? ORDER BY number DESC LIMIT 1 OFFSET ?"
        )
        self._trim = f"DELETE FROM {events} WHERE execution_id = ? AND number <= ?"

    def append_streams(self, parts: Sequence[tuple[Lease, EncodedPart]]) -> Sequence[Appended]:
        # Rows are locked in the order of their ids, so that two transactions never wait for each other.
        order = sorted(range(len(parts)), key=lambda place: parts[place][0].execution_id)
        looks: list[Select] = [(self._streamed, (parts[place][0].execution_id,)) for place in order]

        def work(transaction: Transaction) -> Sequence[Appended]:
            found, now_us = self._look(transaction, *looks)
            accepted = set()
            for place, rows in zip(order, found, strict=True):
                lease, part = parts[place]
                header = header_of(rows[0], STREAMED) if rows else None
                if header is not None and is_held_by(header, lease, now_us):
                    accepted.add(place)
                    changes = self._append(transaction, header, part, now_us)
                    if changes:
                        self._update(transaction, lease.execution_id, changes)
            return [Appended(accepted=place in accepted) for place in range(len(parts))]

        return self._database.write(work)

    def read_streams(self, cursors: Mapping[str, int], limit: int) -> Mapping[str, StoredStream]:
        queries: list[Select] = []
        for execution_id, after in cursors.items():
            queries += [(self._ending, (execution_id,)), (self._events, (execution_id, after, limit))]
        found = iter(self._database.read(*queries))
        streams = {}
        for execution_id, rows, events in zip(cursors, found, found, strict=True):
            for state, last, _, trimmed_to in rows:
                streams[execution_id] = StoredStream(tuple(events), last, trimmed_to, AgentState(state).is_over)
        return streams

    def trim_stream(self, execution_id: str, keep: int) -> int:
        def work(transaction: Transaction) -> int:
            rows, last = transaction.look(
                (self._streamed, (execution_id,)), (self._first_to_trim, (execution_id, keep))
            )
            if not rows or not last:
                return 0
            ((up_to,),) = last
            self._update(transaction, execution_id, {"stream_trimmed": up_to})
            return transaction.change(self._trim, (execution_id, up_to))

        return self._database.write(work)

    def _append(self, transaction: Transaction, header: Header, part: EncodedPart, now_us: int) -> dict[str, Any]:
        """Append what is new of a part to the stream of a locked row of `STREAMED`; return the columns to change."""
        end, events = appended(StreamEnd(header["stream_last"], header["stream_place"]), part, now_us)
        if not events:
            return {}
        execution_id = header["execution_id"]
        transaction.insert(self._put_event, [(execution_id, *event) for event in events])
        return {"stream_last": end.last, "stream_place": end.place}
