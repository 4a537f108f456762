"""The primitives on streams in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent_statestore.clock import Clock
from agent_statestore.codec.streams import EncodedPart, StoredStream
from agent_statestore.contract.streams import StreamListener
from agent_statestore.memory.execution import StoredExecution
from agent_statestore.memory.sharing import MemorySharing
from agent_statestore.memory.streams import MemoryListener
from agent_statestore.records import Lease
from agent_statestore.rules.leases import is_held_by
from agent_statestore.states import AgentState
from agent_statestore.streams.records import Appended


class MemoryStreamPrimitives(MemorySharing):
    """The executions of a store in memory, and the primitives on their streams; see `StreamPrimitives`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._executions: dict[str, StoredExecution] = {}

    def append_streams(self, parts: Sequence[tuple[Lease, EncodedPart]]) -> Sequence[Appended]:
        with self._changed:
            now_us = self._clock.now_us()
            answers = []
            for lease, part in parts:
                is_accepted = self._header_under(lease, now_us) is not None
                if is_accepted:
                    self._executions[lease.execution_id].stream.append(part, now_us)
                answers.append(Appended(accepted=is_accepted))
            self._changed.notify_all()
            return answers

    def read_streams(self, cursors: Mapping[str, int], limit: int) -> Mapping[str, StoredStream]:
        with self._changed:
            found = ((self._executions.get(name), name, after) for name, after in cursors.items())
            return {
                name: execution.stream.read(after, limit, is_over=AgentState(execution.header["state"]).is_over)
                for execution, name, after in found
                if execution is not None
            }

    def trim_stream(self, execution_id: str, keep: int) -> int:
        with self._changed:
            execution = self._executions.get(execution_id)
            return 0 if execution is None else execution.stream.trim(keep)

    def listen_streams(self) -> StreamListener:
        return MemoryListener(lambda: self._changed, self._last_number)

    def _last_number(self, execution_id: str) -> int:
        execution = self._executions.get(execution_id)
        return 0 if execution is None else execution.stream.end.last

    def _header_under(self, lease: Lease, now_us: int) -> dict[str, Any] | None:
        """Return the header to which the lease entitles a write, or None if the lease is lost."""
        execution = self._executions.get(lease.execution_id)
        if execution is None:
            return None
        return execution.header if is_held_by(execution.header, lease, now_us) else None
