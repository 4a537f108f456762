"""What the channels are made of that keep only their writes: those back to the nearest value that is stored."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite

from agent_statestore.documents import Document, DocumentPlace
from celery_agents.integrations.langgraph.saver.names import blob_key, blobs_of
from celery_agents.integrations.langgraph.saver.reading import Reader
from celery_agents.integrations.langgraph.saver.stored import StoredCheckpoint, Where

_AT_ONCE: Final = 100


def history_of(
    reader: Reader, where: Where, checkpoint_id: str | None, channels: Sequence[str]
) -> dict[str, DeltaChannelHistory]:
    """Return the writes of each channel that led to a checkpoint, oldest first, and the value that they begin with.

    Two round trips for each 100 checkpoints back: for these with their writes, and for the values of their channels.
    """
    remaining = dict.fromkeys(channels)
    collected: dict[str, list[PendingWrite]] = {channel: [] for channel in remaining}
    seeds: dict[str, Any] = {}
    line = ancestors(reader, where, checkpoint_id)
    while remaining and (some := list(islice(line, _AT_ONCE))):
        stored = _values(reader, where, some, list(remaining))
        for each in some:
            for write in reversed(each.sorted_writes()):
                if write.channel in remaining:
                    collected[write.channel].append(write.pending(reader.form.serde))
            for channel in [one for one in remaining if one in each.versions]:
                value = stored.get(_place(where, channel, each))
                if channel in each.inline:
                    seeds[channel] = each.inline[channel]
                elif value is not None:
                    seeds[channel] = reader.form.value_of(value)
                else:
                    continue
                del remaining[channel]
    histories: dict[str, DeltaChannelHistory] = {}
    for channel, writes in collected.items():
        histories[channel] = {"writes": writes[::-1]}
        if channel in seeds:
            histories[channel]["seed"] = seeds[channel]
    return histories


def ancestors(reader: Reader, where: Where, checkpoint_id: str | None) -> Iterator[StoredCheckpoint]:
    """Yield the parent of a checkpoint, or of the last one, and what comes before it, back to the first."""
    wanted: str | None = None
    passed: str | None = None
    for each in reader.newest_first(where, up_to=checkpoint_id):
        passed = each.id
        if wanted is None:
            if checkpoint_id not in (None, each.id):
                return
            wanted = each.parent
        elif each.id == wanted:
            yield each
            wanted = each.parent
        if wanted is None:
            return
        if wanted >= each.id:
            break
    # A clock went backwards, and a parent stands behind its child.
    while wanted is not None and passed is not None:
        parent = reader.one(where, wanted)
        if parent is None:
            return
        yield parent
        wanted = None if parent.parent == wanted else parent.parent


def _values(
    reader: Reader, where: Where, checkpoints: Sequence[StoredCheckpoint], channels: Sequence[str]
) -> dict[DocumentPlace, Document]:
    places = {
        _place(where, channel, each): None for each in checkpoints for channel in channels if channel in each.versions
    }
    return reader.found(list(places))


def _place(where: Where, channel: str, checkpoint: StoredCheckpoint) -> DocumentPlace:
    version = checkpoint.versions[channel]
    return DocumentPlace(blobs_of(where.root, where.checkpoint_ns), blob_key(channel, version))
