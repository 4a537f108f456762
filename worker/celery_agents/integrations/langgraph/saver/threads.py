"""What a saver does, each with the round trips that it takes; `StoreSaver` is its form for LangGraph."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agent_statestore.documents import DocumentStore, Namespace
from agent_statestore.records import Lease
from agent_statestore.store import Store
from celery_agents.integrations.langgraph.own_store import OwnStore
from celery_agents.integrations.langgraph.saver.history import history_of
from celery_agents.integrations.langgraph.saver.names import (
    ID_KEY,
    blobs_of,
    graph_of,
    is_checkpoint_id,
    is_hashed,
    thread_root,
)
from celery_agents.integrations.langgraph.saver.packing import pack
from celery_agents.integrations.langgraph.saver.reading import PAGE, Reader, last_id
from celery_agents.integrations.langgraph.saver.removing import all_but_the_latest, removals, roots_of_runs
from celery_agents.integrations.langgraph.saver.stored import Form, Where
from celery_agents.integrations.langgraph.saver.writers import Writer, Writers

KEEP_LATEST: Final = "keep_latest"
DELETE: Final = "delete"


class Threads:
    """The threads in a store."""

    def __init__(self, store: Store | None, lease: Lease | None) -> None:
        self._own = OwnStore(store)
        self._writers = Writers(self._own, lease, self._last_id)

    @property
    def documents(self) -> DocumentStore:
        """The documents of the store."""
        return self._own.store.documents

    def writer(self, thread_id: str) -> Writer:
        """Return what writes to a thread for the code that calls."""
        return self._writers.of(thread_id, thread_root(thread_id))

    def get(
        self, serde: SerializerProtocol, config: RunnableConfig, checkpoint_id: str | None
    ) -> CheckpointTuple | None:
        """Return a checkpoint, or the last one. Two round trips: for it with its writes, and for its values."""
        where, reader = _where(config), self._reader(serde)
        if checkpoint_id:
            found = reader.one(where, checkpoint_id)
        else:
            found = reader.last(where)
            last = None if found is None else found.id
            self._writers.of(where.thread_id, where.root).saw(where.checkpoint_ns, last)
        return None if found is None else next(reader.tuples([found]))

    def list(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig | None,
        filter: Mapping[str, Any] | None,  # noqa: A002 - LangGraph's name for it
        below: str | None,
        limit: int | None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, newest first; `limit` says how many will be looked at."""
        reader = self._reader(serde)
        named = config["configurable"] if config else {}
        if below is not None and not is_checkpoint_id(below):
            return
        checkpoint_ns: str | None = named.get("checkpoint_ns")
        thread = (str(named["thread_id"]), thread_root(str(named["thread_id"]))) if config else None
        one = named.get("checkpoint_id")
        if thread is not None and checkpoint_ns is not None and not filter:
            where = Where(thread_id=thread[0], root=thread[1], checkpoint_ns=checkpoint_ns)
            first_page = PAGE if limit is None else min(PAGE, 4 * max(limit, 0) + 4)
            found = reader.newest_first(where, below=below, first_page=first_page)
        else:
            found = reader.search(thread, checkpoint_ns, filter, below)
        at_once = 50 if limit is None else max(1, min(50, limit))
        yield from reader.tuples((each for each in found if not one or each.id == one), at_once)

    def put(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        write_id: str | None = None,
    ) -> RunnableConfig:
        """Store a checkpoint. One round trip."""
        where = _where(config)
        operations = self._form(serde).putting(where, config, checkpoint, metadata, new_versions)
        self._writers.of(where.thread_id, where.root).write(operations, write_id)
        return where.config(checkpoint["id"])

    def put_writes(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> None:
        """Store the writes of a task. One round trip."""
        where, checkpoint_id = _where(config), config["configurable"]["checkpoint_id"]
        operations = self._form(serde).writing(where, checkpoint_id, writes, task_id, task_path)
        if operations:
            self._writers.of(where.thread_id, where.root).write(operations)

    def delete(self, thread_id: str) -> None:
        """Remove all that is kept of a thread."""
        root = thread_root(str(thread_id))
        writer = self._writers.of(str(thread_id), root)
        writer.enter()
        documents = self.documents
        # What a checkpoint needs goes after it: what is still there is whole.
        documents.remove_under(graph_of(root))
        documents.remove_under(blobs_of(root))
        if is_hashed(root):
            documents.remove(root, ID_KEY)
        writer.leave()

    def delete_runs(self, serde: SerializerProtocol, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints of these runs, in all threads."""
        documents, form = self.documents, self._form(serde)
        for root, unwanted in roots_of_runs(documents, run_ids).items():
            operations = removals(documents, form, root, unwanted)
            if operations:
                self._writers.of(root[1], root).write(operations)

    def copy(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread. Not who holds it, nor its id."""
        source, target = thread_root(str(source_thread_id)), thread_root(str(target_thread_id))
        if source == target:
            return
        self._writers.of(str(target_thread_id), target).enter()
        documents = self.documents
        if is_hashed(target):
            documents.put(target, ID_KEY, pack((str(target_thread_id),)), keep=True)
        # The values last: those of every checkpoint that was copied are there by then, also if more come meanwhile.
        documents.copy_under(graph_of(source), graph_of(target))
        documents.copy_under(blobs_of(source), blobs_of(target))

    def prune(self, serde: SerializerProtocol, thread_ids: Sequence[str], strategy: str) -> None:
        """Remove what a strategy of LangGraph's does not keep."""
        if isinstance(thread_ids, str):
            raise TypeError("thread_ids needs a sequence of ids, not one text")
        if strategy not in (KEEP_LATEST, DELETE):
            raise ValueError(f"strategy needs {KEEP_LATEST!r} or {DELETE!r}, not {strategy!r}")
        documents, form = self.documents, self._form(serde)
        for thread_id in thread_ids:
            if strategy == DELETE:
                self.delete(thread_id)
                continue
            root = thread_root(str(thread_id))
            operations = removals(documents, form, root, all_but_the_latest(documents, root))
            if operations:
                self._writers.of(str(thread_id), root).write(operations)

    def history(
        self, serde: SerializerProtocol, config: RunnableConfig, checkpoint_id: str | None, channels: Sequence[str]
    ) -> dict[str, DeltaChannelHistory]:
        """Return what delta channels are made of."""
        if not channels or (checkpoint_id and not is_checkpoint_id(checkpoint_id)):
            return {channel: {"writes": []} for channel in channels}
        return history_of(self._reader(serde), _where(config), checkpoint_id or None, channels)

    def last_id(self, thread_id: str) -> str | None:
        """Return the id of the last checkpoint of the graph itself. One round trip."""
        return self._last_id(thread_root(thread_id), "")

    def _last_id(self, root: Namespace, checkpoint_ns: str) -> str | None:
        return last_id(self.documents, root, checkpoint_ns)

    def _reader(self, serde: SerializerProtocol) -> Reader:
        return Reader(self.documents, self._form(serde))

    def _form(self, serde: SerializerProtocol) -> Form:
        return Form(serde, self.documents.max_document_bytes)


def _where(config: RunnableConfig) -> Where:
    named = config["configurable"]
    thread_id = str(named["thread_id"])
    return Where(thread_id=thread_id, root=thread_root(thread_id), checkpoint_ns=named.get("checkpoint_ns") or "")
