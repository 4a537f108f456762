"""A checkpoint, a write and a channel's value as documents, and back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agent_statestore.documents import Document, Namespace, Operation, Put
from agent_statestore.documents.errors import DocumentUnreadable
from agent_statestore.errors import ValueTooLarge
from celery_agents.integrations.langgraph.saver.index import indexed
from celery_agents.integrations.langgraph.saver.names import (
    ID_KEY,
    blob_key,
    blobs_of,
    checkpoint_key,
    graph_of,
    id_of,
    is_hashed,
    writes_key,
)
from celery_agents.integrations.langgraph.saver.packing import Typed, pack, unpack

_VALUES: Final = "channel_values"
_MOST_TOGETHER: Final = 64 * 1024
_MOST_INLINE_LENGTH: Final = 32
_MOST_INLINE_INT: Final = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The place of a checkpoint: a thread, given by its root and its id, and a namespace of LangGraph's in it."""

    thread_id: str
    root: Namespace
    checkpoint_ns: str

    def config(self, checkpoint_id: str) -> RunnableConfig:
        """Return what names a checkpoint here to LangGraph."""
        named = {"thread_id": self.thread_id, "checkpoint_ns": self.checkpoint_ns, "checkpoint_id": checkpoint_id}
        return {"configurable": named}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWrite:
    """A write, as bytes. Its order is that in which LangGraph applies writes."""

    task_id: str
    task_path: str
    index: int
    channel: str
    value: Typed

    @property
    def order(self) -> tuple[str, str, int]:
        """By which writes on one checkpoint are sorted."""
        return writes_sort_key(self.task_path, self.task_id, self.index)

    def pending(self, serde: SerializerProtocol) -> PendingWrite:
        """Return it as LangGraph takes it."""
        return self.task_id, self.channel, serde.loads_typed(self.value)


@dataclass(slots=True, kw_only=True)
class StoredCheckpoint:
    """A checkpoint with the values of its channels that are small, and with the writes on top of it."""

    where: Where
    parent: str | None
    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    writes: list[StoredWrite] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Its id."""
        return self.checkpoint["id"]

    @property
    def versions(self) -> ChannelVersions:
        """The version of each of its channels, by which their values are found."""
        return self.checkpoint["channel_versions"]

    @property
    def inline(self) -> Mapping[str, Any]:
        """The values that are small."""
        return self.checkpoint["channel_values"]

    def sorted_writes(self) -> list[StoredWrite]:
        """Return the writes in the order in which LangGraph applies them."""
        return sorted(self.writes, key=lambda write: write.order)

    def tuple(self, values: Mapping[str, Any], serde: SerializerProtocol) -> CheckpointTuple:
        """Return it as LangGraph takes it, with those values that are not small."""
        return CheckpointTuple(
            config=self.where.config(self.id),
            checkpoint={**self.checkpoint, "channel_values": {**self.inline, **values}},
            metadata=self.metadata,
            parent_config=None if self.parent is None else self.where.config(self.parent),
            pending_writes=[write.pending(serde) for write in self.sorted_writes()],
        )


class Form:
    """How a saver's documents are made and read: with its serializer, and up to the size that the store takes."""

    def __init__(self, serde: SerializerProtocol, most_bytes: int) -> None:
        self.serde = serde
        self._most_bytes = most_bytes

    def putting(
        self,
        where: Where,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> list[Operation]:
        """Return the operations that store a checkpoint and the values that it brings; itself comes last.

        Raise `ValueTooLarge`, and `InvalidRecord` for an id that is none.
        """
        operations = _naming(where)
        values = checkpoint["channel_values"]
        versions = checkpoint["channel_versions"]
        inline = {channel: value for channel, value in values.items() if channel in versions and _is_inline(value)}
        for channel, version in new_versions.items():
            if channel in values and channel not in inline:
                packed = self._packed(f"channel {channel!r:.80}", (), [self.serde.dumps_typed(values[channel])])
                operations.append(
                    Put(
                        namespace=blobs_of(where.root, where.checkpoint_ns),
                        key=blob_key(channel, version),
                        value=packed,
                    )
                )
        complete = get_checkpoint_metadata(config, metadata)
        parts = [
            self.serde.dumps_typed({**checkpoint, _VALUES: inline}),
            self.serde.dumps_typed(complete),
        ]
        facts = (where.checkpoint_ns, config["configurable"].get("checkpoint_id"))
        operations.append(
            Put(
                namespace=graph_of(where.root, where.checkpoint_ns),
                key=checkpoint_key(checkpoint["id"]),
                value=self._packed(f"checkpoint {checkpoint['id']}", facts, parts),
                metadata=indexed(complete),
            )
        )
        return operations

    def writing(
        self, where: Where, checkpoint_id: str, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> list[Operation]:
        """Return the operations that store the writes of a task. Raise `ValueTooLarge` and `InvalidRecord`."""
        namespace = graph_of(where.root, where.checkpoint_ns)
        operations: dict[str, Operation] = {}
        for some in _together([(WRITES_IDX_MAP.get(each[0], at), *each) for at, each in enumerate(writes)], self.serde):
            numbers = [index for index, _, _ in some]
            key = writes_key(checkpoint_id, task_id, numbers)
            facts = (task_id, task_path, [[index, channel] for index, channel, _ in some])
            packed = self._packed(f"write to channel {some[-1][1]!r:.80}", facts, [value for _, _, value in some])
            operations[key] = Put(namespace=namespace, key=key, value=packed, keep=numbers[0] >= 0)
        return [*_naming(where), *operations.values()] if operations else []

    def checkpoint_of(self, document: Document, thread_id: str) -> StoredCheckpoint:
        """Return what a document holds. Raise `DocumentUnreadable`."""
        (checkpoint_ns, parent), (checkpoint, metadata) = _unpacked(document)
        return StoredCheckpoint(
            where=Where(thread_id=thread_id, root=document.namespace[:2], checkpoint_ns=checkpoint_ns),
            parent=parent,
            checkpoint=self.serde.loads_typed(checkpoint),
            metadata=self.serde.loads_typed(metadata),
        )

    def value_of(self, document: Document) -> Any:
        """Return the value of a channel. Raise `DocumentUnreadable`."""
        _, (value,) = _unpacked(document)
        return self.serde.loads_typed(value)

    def _packed(self, what: str, facts: Sequence[Any], parts: Sequence[Typed]) -> bytes:
        packed = pack(facts, parts)
        if len(packed) > self._most_bytes:
            raise ValueTooLarge(what, len(packed), self._most_bytes)
        return packed


def add_writes(checkpoint: StoredCheckpoint, documents: Sequence[Document]) -> None:
    """Give a checkpoint those of the documents that are writes on top of it. Of two for one place the first counts."""
    found: dict[tuple[str, int], StoredWrite] = {}
    for document in sorted(documents, key=lambda each: each.version):
        if id_of(document.key) != checkpoint.id:
            continue
        (task_id, task_path, named), values = _unpacked(document)
        for (index, channel), value in zip(named, values, strict=True):
            write = StoredWrite(task_id=task_id, task_path=task_path, index=index, channel=channel, value=value)
            found.setdefault((task_id, index), write)
    checkpoint.writes += found.values()


def _together(
    writes: Sequence[tuple[int, str, Any]], serde: SerializerProtocol
) -> Iterator[list[tuple[int, str, Typed]]]:
    """Yield the writes that share a document, by their numbers: those with a number below zero have one each."""
    some: list[tuple[int, str, Typed]] = []
    size = 0
    for index, channel, value in writes:
        typed = serde.dumps_typed(value)
        if index < 0:
            yield [(index, channel, typed)]
            continue
        if some and size + len(typed[1]) > _MOST_TOGETHER:
            yield some
            some, size = [], 0
        some.append((index, channel, typed))
        size += len(typed[1])
    if some:
        yield some


def _is_inline(value: Any) -> bool:
    """Return whether a value is so small that each checkpoint has it, instead of a document of its own."""
    if value is None or type(value) in (bool, float):
        return True
    if type(value) is int:
        return abs(value) < _MOST_INLINE_INT
    return type(value) in (str, bytes) and len(value) <= _MOST_INLINE_LENGTH


def thread_of(document: Document | None) -> str:
    """Return the id of a thread whose root is a hash of it; nothing if it was erased meanwhile."""
    if document is None:
        return ""
    (thread_id,), _ = _unpacked(document)
    return str(thread_id)


def _naming(where: Where) -> list[Operation]:
    """Return what keeps the id of a thread whose root is a hash of it."""
    if not is_hashed(where.root):
        return []
    return [Put(namespace=where.root, key=ID_KEY, value=pack((where.thread_id,)), keep=True)]


def _unpacked(document: Document) -> tuple[list[Any], list[Typed]]:
    reason = document.unreadable
    if reason is None and isinstance(document.value, bytes):
        try:
            return unpack(document.value)
        except ValueError as error:
            reason = str(error)
    raise DocumentUnreadable(document.namespace, document.key, reason or "it is no document of a thread")
