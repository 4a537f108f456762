"""Streams over two stores: each is where its execution is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from agent_statestore.codec.streams import EncodedPart, StoredStream
from agent_statestore.contract.streams import StreamListener
from agent_statestore.records import Lease
from agent_statestore.store import Store
from agent_statestore.streams.records import Appended

# No event has such a number: a page behind it tells of the stream alone.
_BEHIND_ALL: Final = 2**53


class HybridStreaming(Store):
    """The primitives on streams; see `StreamPrimitives`. What is archived is over, and gets no more events."""

    hot: Store
    cold: Store

    def append_streams(self, parts: Sequence[tuple[Lease, EncodedPart]]) -> Sequence[Appended]:
        return self.hot.append_streams(parts)

    def read_streams(self, cursors: Mapping[str, int], limit: int) -> Mapping[str, StoredStream]:
        found = self.hot.read_streams(cursors, limit)
        archived = {execution_id: after for execution_id, after in cursors.items() if execution_id not in found}
        return {**found, **self.cold.read_streams(archived, limit)} if archived else found

    def trim_stream(self, execution_id: str, keep: int) -> int:
        """Remove the oldest events; see `StreamPrimitives.trim_stream`. Those that are archived may be in both."""
        removed = self.hot.trim_stream(execution_id, keep)
        stream = self.hot.read_streams({execution_id: _BEHIND_ALL}, 1).get(execution_id)
        if stream is not None and not stream.is_over:
            return removed
        return max(removed, self.cold.trim_stream(execution_id, keep))

    def listen_streams(self) -> StreamListener:
        return self.hot.listen_streams()

    def tell_readers(self, execution_ids: Iterable[str]) -> None:
        self.hot.tell_readers(execution_ids)
