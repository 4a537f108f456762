"""The primitives on streams in Redis; `scripts/stream.lua` says how they are stored."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent_statestore.codec.streams import EncodedPart, StoredStream
from agent_statestore.contract.streams import StreamListener
from agent_statestore.errors import ExecutionUnreadable, StoreError
from agent_statestore.records import Lease
from agent_statestore.redis.keys import Keys
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Connection
from agent_statestore.redis.servers.listener import RedisListener
from agent_statestore.redis.servers.packing import Word
from agent_statestore.store import Store
from agent_statestore.streams.records import Appended


class RedisStreaming(Store):
    """The primitives on streams; see `StreamPrimitives`. The scripts announce every write by themselves."""

    _keys: Keys
    _connection: Connection
    _working_ttl: str

    def append_streams(self, parts: Sequence[tuple[Lease, EncodedPart]]) -> Sequence[Appended]:
        if not parts:
            return ()
        append, now, ttl = script("append_events"), self._now(), self._working_ttl
        # Where there is an expiry, all that expires together is named.
        keys_of = self._keys.execution_and_shared if ttl else self._keys.of_stream
        calls = [
            (append, keys_of(lease.execution_id), (now, lease.execution_id, lease.token, ttl, part.place, *part.texts))
            for lease, part in parts
        ]
        answers = self._connection.run_apart(calls)
        return [_appended(answer) for answer in answers]

    def read_streams(self, cursors: Mapping[str, int], limit: int) -> Mapping[str, StoredStream]:
        calls = [(self._keys.of_stream(execution_id), (after, limit)) for execution_id, after in cursors.items()]
        answers = self._connection.run_each(script("read_events"), calls)
        return {
            execution_id: _stored(answer)
            for execution_id, answer in zip(cursors, answers, strict=True)
            if answer is not None
        }

    def trim_stream(self, execution_id: str, keep: int) -> int:
        return int(self._connection.run(script("trim_events"), self._keys.of_stream(execution_id), (keep,)) or 0)

    def listen_streams(self) -> StreamListener:
        """Return a listener with one connection to each server that holds a stream; see `StreamPrimitives`."""
        return RedisListener(self._connection, self._keys.header)

    def _now(self) -> Word:
        raise NotImplementedError


def _appended(answer: Any) -> Appended:
    # What is damaged takes no event any more, as little as what is gone.
    if isinstance(answer, StoreError) and not isinstance(answer, ExecutionUnreadable):
        raise answer
    return Appended(accepted=answer == 1)


def _stored(answer: Sequence[Any]) -> StoredStream:
    last, trimmed_to, is_over, *rows = answer
    events = tuple((int(number), text) for number, text in zip(rows[::2], rows[1::2], strict=True))
    return StoredStream(events, int(last), int(trimmed_to), is_over == b"1")
