"""What an execution of a graph with threads begins with, and what it leaves: one turn of a conversation."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any, Final, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from celery_agents.engine.outcome import ExecutionStopped, ExecutionUnwound
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.integrations.langgraph.nodes import Graph
from celery_agents.integrations.langgraph.saver import StoreSaver
from celery_agents.integrations.langgraph.saver.versions import next_version

T = TypeVar("T")

_STEP: Final = "thread"
_FIRST_ID: Final = "00000000-0000-6000-8000-000000000000"
_COUNTERS: Final = "counters_since_delta_snapshot"
# The smallest part of a UUID of version 6 that can be counted up; the time in it is then 0.4 ms later.
_LATER: Final = 1 << 80


class AttemptSaver(InMemorySaver):
    """What one attempt needs of its own past. The versions of channels are those of a thread in the store."""

    def __init__(self) -> None:
        super().__init__(serde=JsonPlusSerializer(pickle_fallback=True, allowed_msgpack_modules=True))

    def get_next_version(self, current: str | None, channel: None) -> str:  # noqa: ARG002 - LangGraph gives it
        """See `StoreSaver`."""
        return next_version(current)


class ThreadTurn:
    """The turn that an execution takes on a thread, which it holds.

    Each attempt begins with the checkpoint that the first one began with, and ends with the same id: so whichever
    attempts come to the end, the thread has one checkpoint more.
    """

    def __init__(
        self,
        run: AsyncRun,
        saver: StoreSaver,
        graph: Graph,
        memory: AttemptSaver,
        thread_id: str,
        begun: CheckpointTuple | None,
        next_id: str,
    ) -> None:
        self.thread_id = thread_id
        self._run = run
        self._saver = saver
        self._graph = graph
        self._memory = memory
        self._begun = begun
        self._next_id = next_id

    @classmethod
    async def begin(
        cls,
        run: AsyncRun,
        saver: StoreSaver,
        graph: Graph,
        memory: AttemptSaver,
        thread: Callable[[AsyncRun], str] | None,
    ) -> "ThreadTurn":
        """Hold the thread, and give the attempt's memory what it ends with.

        Raise `NamespaceHeld` while another execution holds it, and `LookupError` if what it began with is gone.
        """
        thread_id = (run.session_id or run.execution_id) if thread is None else thread(run)
        threads = saver.threads
        await _ask(run, threads.writer(thread_id).enter)

        async def look() -> dict[str, str | None]:
            last = await asyncio.to_thread(threads.last_id, thread_id)
            return {"from": last, "to": _behind(last)}

        recorded: dict[str, Any] = await run.options(returns=Any).step(_STEP, look)
        begun = None
        if recorded["from"] is not None:
            config = _config(thread_id, recorded["from"])
            begun = await _ask(run, lambda: saver.get_tuple(config))
            if begun is None:
                raise LookupError(
                    f"checkpoint {recorded['from']} of thread {thread_id!r}, with which it began, is gone"
                )
            begun = await asyncio.to_thread(_with_deltas, graph, saver, begun)
            # Under an id before all that the attempt makes, also if the clock of the turn before was ahead of ours.
            # What was still to be done there is not taken along: an input puts an end to that.
            checkpoint: Checkpoint = {**begun.checkpoint, "id": _FIRST_ID}
            memory.put(_config(thread_id, None), checkpoint, begun.metadata, checkpoint["channel_versions"])
        return cls(run, saver, graph, memory, thread_id, begun, recorded["to"])

    async def end(self) -> None:
        """Store what the graph came to, once."""
        ended = self._memory.get_tuple(_config(self.thread_id, None))
        if ended is None:
            return
        ended = _with_deltas(self._graph, self._memory, ended)
        before = {} if self._begun is None else self._begun.checkpoint["channel_versions"]
        checkpoint: Checkpoint = {**ended.checkpoint, "id": self._next_id}
        versions = checkpoint["channel_versions"]
        new = {channel: version for channel, version in versions.items() if before.get(channel) != version}
        metadata: CheckpointMetadata = {**ended.metadata, "run_id": self._run.execution_id}
        config = _config(self.thread_id, None if self._begun is None else self._begun.checkpoint["id"])
        write_id = f"thread-{self._run.execution_id}"
        saver = self._saver
        await _ask(
            self._run, lambda: saver.threads.put(saver.serde, config, checkpoint, metadata, new, write_id=write_id)
        )


async def _ask(run: AsyncRun, question: Callable[[], T]) -> T:
    """Ask the store outside of the event loop, with the engine's patience."""
    try:
        return await asyncio.to_thread(run._attempt.ask_store, question)
    except ExecutionStopped as stopped:
        raise ExecutionUnwound(stopped.outcome) from None


def _config(thread_id: str, checkpoint_id: str | None) -> RunnableConfig:
    named = {"thread_id": thread_id, "checkpoint_ns": ""}
    return {"configurable": named if checkpoint_id is None else {**named, "checkpoint_id": checkpoint_id}}


def _behind(last: str | None) -> str:
    """Return the id of a checkpoint that comes behind this one, also if its clock was ahead of ours."""
    mine = str(uuid6())
    if last is None or mine > last:
        return mine
    try:
        return str(uuid.UUID(int=uuid.UUID(last).int + _LATER))
    except ValueError:  # what somebody else has stored, under an id that is no UUID
        return f"{last}~"


def _with_deltas(graph: Graph, saver: BaseCheckpointSaver[Any], found: CheckpointTuple) -> CheckpointTuple:
    """Return the checkpoint with the values of channels that keep only their writes."""
    checkpoint = found.checkpoint
    values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
    channels = {
        name: channel
        for name, channel in graph.channels.items()
        if isinstance(channel, DeltaChannel) and name in versions and name not in values
    }
    if not channels:
        return found
    histories = saver.get_delta_channel_history(config=found.config, channels=list(channels))
    whole = dict(values)
    for name, channel in channels.items():
        made = channel.from_checkpoint(histories[name].get("seed"))
        made.replay_writes(histories[name]["writes"])
        whole[name] = _DeltaSnapshot(made.get())
    metadata: Any = {name: value for name, value in found.metadata.items() if name != _COUNTERS}
    return found._replace(checkpoint={**checkpoint, "channel_values": whole}, metadata=metadata)
