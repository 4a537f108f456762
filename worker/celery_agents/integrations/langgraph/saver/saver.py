"""`StoreSaver`: the threads of LangGraph in a store."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agent_statestore.records import Lease
from agent_statestore.store import Store
from celery_agents.integrations.langgraph.saver.threads import Threads
from celery_agents.integrations.langgraph.saver.versions import next_version

_LISTED_AT_ONCE: Final = 20


class StoreSaver(BaseCheckpointSaver[str]):
    """A checkpointer that keeps the threads of graphs as documents of a store, whatever database that is.

        graph = builder.compile(checkpointer=StoreSaver())

    Without a `store` it is the one of the execution, or of the current app.

    In an execution (the code of an agent, or a step of it) the saver writes to a thread as the one writer: from its
    first write on the execution holds the thread until it is over. A second execution that writes to the thread
    meanwhile gets `NamespaceHeld`, and so does code outside of executions. If another execution wrote to the thread
    between this one's reading and its first write, `ThreadChanged` is raised. An attempt that has lost its execution
    gets `LeaseLost`, and writes nothing. Outside of executions the saver works as others do: two that write to one
    thread at the same time both succeed, and the thread goes on from the later checkpoint. `lease` binds the saver to
    an execution that the caller has claimed itself.

    `serde` is LangGraph's serializer; by default the one that obeys `LANGGRAPH_STRICT_MSGPACK`. A value whose stored
    form is over `store.documents.max_document_bytes` is refused with `ValueTooLarge`.

    Round trips: `put` and `put_writes` are one (the first of an execution, which takes hold of the thread, four or
    five), `get_tuple` two, a page of `list` two, and `get_delta_channel_history` two for each 100 checkpoints back.
    """

    def __init__(
        self, store: Store | None = None, *, serde: SerializerProtocol | None = None, lease: Lease | None = None
    ) -> None:
        super().__init__(serde=serde)
        self.threads: Final = Threads(store, lease)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that the config names, or the last one of its thread, or None."""
        return self.threads.get(self.serde, config, get_checkpoint_id(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name for it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, newest first: those of a thread, or of all without a config.

        Without `checkpoint_ns` in the config those of all namespaces. `filter` names metadata of any kind.
        """
        below = get_checkpoint_id(before) if before else None
        found = self.threads.list(self.serde, config, filter, below, limit)
        return found if limit is None else islice(found, max(limit, 0))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint with the values of the channels in `new_versions`, all or nothing; return its config."""
        return self.threads.put(self.serde, config, checkpoint, metadata, new_versions)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task writes on top of a checkpoint. Repeated, it changes nothing but errors and interrupts."""
        self.threads.put_writes(self.serde, config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        """Remove all that is kept of a thread. Raise `NamespaceHeld` while an active execution holds it."""
        self.threads.delete(thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints with these `run_id`s in their metadata. Looks through all threads.

        Those stay on which the delta channels of others stand.
        """
        self.threads.delete_runs(self.serde, run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all that is kept of a thread, what the target has besides stays. Harmless to repeat."""
        self.threads.copy(source_thread_id, target_thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Remove all but the last checkpoint of each namespace, or with "delete" all, of these threads.

        Those stay on which the delta channels of the last one stand.
        """
        self.threads.prune(self.serde, thread_ids, strategy)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return the writes of channels that led to a checkpoint, and the values that they begin with."""
        return self.threads.history(self.serde, config, get_checkpoint_id(config), channels)

    def get_next_version(self, current: str | None, channel: None) -> str:  # noqa: ARG002 - LangGraph gives it
        """Return a version above `current`; see `next_version`."""
        return next_version(current)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """See `list`."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        at_once = _LISTED_AT_ONCE if limit is None else max(min(limit, _LISTED_AT_ONCE), 1)
        while some := await asyncio.to_thread(lambda: [*islice(found, at_once)]):
            for each in some:
                yield each

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See `put`."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """See `put_writes`."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """See `delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `delete_for_runs`."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See `copy_thread`."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `prune`."""
        await asyncio.to_thread(lambda: self.prune(thread_ids, strategy=strategy))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See `get_delta_channel_history`."""
        return await asyncio.to_thread(lambda: self.get_delta_channel_history(config=config, channels=channels))
