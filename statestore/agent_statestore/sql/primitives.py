"""The primitives that differ between databases: the part of `StorePrimitives` that `SQLStore` hands on to a dialect."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from agent_statestore.checkpoint import NewExecution, Via
from agent_statestore.codec import EncodedCheckpoint
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.codec.streams import EncodedPart, StoredStream
from agent_statestore.records import AgentContext, Checkpointed, Claim, Due, Lease, Renewed, Sent, Signal, Turn
from agent_statestore.rules.rates import Asked
from agent_statestore.streams.records import Appended


class Primitives(Protocol):
    """See `StorePrimitives` for each method. The caller's values are checked and encoded already."""

    def create(self, new: NewExecution, max_bytes: int) -> AgentContext: ...

    def create_at_once(self, news: Sequence[NewExecution], max_bytes: int) -> Sequence[AgentContext | None]:
        """Create executions in one transaction; return None for those whose key or id is taken.

        Raise `NotSerialisable` or `ValueTooLarge` with nothing stored.
        """
        ...

    def get_context(self, execution_id: str) -> AgentContext | None: ...

    def get_by_idempotency_key(self, agent_id: str, idempotency_key: str) -> AgentContext | None: ...

    def claim(self, execution_id: str, owner: str, ttl: timedelta) -> Claim | None: ...

    def renew(self, leases: Sequence[Lease], ttl: timedelta) -> Renewed: ...

    def checkpoint(self, execution_id: str, change: EncodedCheckpoint, lease: Lease | None) -> Checkpointed: ...

    def send(
        self, execution_id: str, signal: Signal, text: str, told: str | None, max_mailbox: int, max_bytes: int
    ) -> Sent:
        """See `StorePrimitives.send`; `told` is the event that tells of the signal (`event_of_signal`)."""
        ...

    def append_streams(self, parts: Sequence[tuple[Lease, EncodedPart]]) -> Sequence[Appended]: ...

    def read_streams(self, cursors: Mapping[str, int], limit: int) -> Mapping[str, StoredStream]: ...

    def trim_stream(self, execution_id: str, keep: int) -> int: ...

    def take_due(self, limit: int, grace: timedelta) -> tuple[Due, ...]: ...

    def mark_rung(self, rung: Iterable[tuple[str, int]], first: timedelta, maximum: timedelta) -> None: ...

    def take_rate(self, bucket: str, question: Asked) -> Turn: ...

    def delete_context(
        self, execution_id: str, *, by: str | None = None, reason: str | None = None, via: Via | None = None
    ) -> bool: ...

    def purge(self, execution_id: str) -> bool: ...

    def clear(self) -> int: ...

    def export(self, execution_id: str) -> ExportedExecution | None: ...

    def restore(self, exported: ExportedExecution) -> bool: ...

    def drop_archived(self, execution_id: str, place: tuple[int, int, int]) -> bool: ...

    def durability_warning(self) -> str | None: ...

    def now_us(self) -> int | None:
        """Return the time by this store's clock; None stands for the server's."""
        ...
