"""Takes checkpoints of a thread away, and leaves all that those are made of which stay."""

from collections.abc import Collection, Iterator
from typing import Final

from agent_statestore.documents import DocumentPlace, DocumentQuery, DocumentStore, Namespace, Operation, Remove
from celery_agents.integrations.langgraph.saver.index import MARK, indexed
from celery_agents.integrations.langgraph.saver.names import (
    GRAPH,
    THREADS,
    blob_key,
    blobs_of,
    graph_of,
    id_of,
    is_checkpoint,
)
from celery_agents.integrations.langgraph.saver.stored import Form, StoredCheckpoint

_COUNTERS: Final = "counters_since_delta_snapshot"
_PAGE: Final = 500


def roots_of_runs(documents: DocumentStore, run_ids: Collection[str]) -> dict[Namespace, set[DocumentPlace]]:
    """Return the checkpoints that these runs have stored, by their threads. Looks through all threads for each run."""
    found: dict[Namespace, set[DocumentPlace]] = {}
    for run_id in run_ids:
        where = indexed({"run_id": run_id})
        query = DocumentQuery(namespace=THREADS, below=True, where=where, limit=_PAGE, values=False)
        for each in documents.list_all(query):
            if each.namespace[2] == GRAPH:
                found.setdefault(each.namespace[:2], set()).add(each.place)
    return found


def all_but_the_latest(documents: DocumentStore, root: Namespace) -> set[DocumentPlace]:
    """Return the checkpoints of a thread but for the last one of each namespace."""
    query = DocumentQuery(namespace=graph_of(root), below=True, where=MARK, limit=_PAGE, values=False)
    places = [each.place for each in documents.list_all(query)]
    last = {place.namespace: place for place in places}
    return set(places) - set(last.values())


def removals(
    documents: DocumentStore, form: Form, root: Namespace, unwanted: Collection[DocumentPlace]
) -> list[Operation]:
    """Return the operations that remove checkpoints of a thread, their writes, and the values that nobody has then.

    What keeps only its writes is made of those back to its last value; so checkpoints stay that stand between. First
    come those to be removed, then writes and values: what is there is whole, also if only some of it was done.
    """
    known: dict[Namespace, list[tuple[str, StoredCheckpoint]]] = {}
    query = DocumentQuery(namespace=graph_of(root), below=True, where=MARK, limit=_PAGE)
    for each in documents.list_all(query):
        known.setdefault(each.namespace, []).append((each.key, form.checkpoint_of(each, "")))
    blobs = set(_places(documents, blobs_of(root)))
    gone: set[tuple[Namespace, str]] = set()
    used: set[DocumentPlace] = set()
    for namespace, some in known.items():
        needed = _needed([each for key, each in some if DocumentPlace(namespace, key) not in unwanted], some, blobs)
        for _, one in some:
            if one.id not in needed:
                gone.add((namespace, one.id))
            else:
                used |= {_blob(one, channel) for channel in one.versions}
    there = list(_places(documents, graph_of(root)))
    of_gone = [place for place in there if (place.namespace, id_of(place.key)) in gone]
    checkpoints = [place for place in of_gone if is_checkpoint(place.key)]
    writes = [place for place in of_gone if not is_checkpoint(place.key)]
    once_used = {_blob(each, name) for some in known.values() for _, each in some for name in each.versions}
    values = sorted((once_used & blobs) - used)
    return [Remove(namespace=place.namespace, key=place.key) for place in (*checkpoints, *writes, *values)]


def _needed(
    kept: list[StoredCheckpoint], all_of_them: list[tuple[str, StoredCheckpoint]], blobs: set[DocumentPlace]
) -> set[str]:
    """Return the ids of checkpoints that stay: those that are kept, and those on which their channels stand."""
    by_id = {each.id: each for _, each in all_of_them}
    deltas = {channel for each in by_id.values() for channel in (each.metadata.get(_COUNTERS) or ())}
    needed = {each.id for each in kept}
    for each in kept:
        missing = {name for name in deltas if name in each.versions and not _has_value(each, name, blobs)}
        ancestor, passed = each, {each.id}
        while missing and ancestor.parent in by_id and ancestor.parent not in passed:
            ancestor = by_id[ancestor.parent]
            passed.add(ancestor.id)
            needed.add(ancestor.id)
            missing -= {name for name in missing if name in ancestor.versions and _has_value(ancestor, name, blobs)}
    return needed


def _has_value(checkpoint: StoredCheckpoint, channel: str, blobs: set[DocumentPlace]) -> bool:
    return channel in checkpoint.inline or _blob(checkpoint, channel) in blobs


def _blob(checkpoint: StoredCheckpoint, channel: str) -> DocumentPlace:
    where = checkpoint.where
    return DocumentPlace(blobs_of(where.root, where.checkpoint_ns), blob_key(channel, checkpoint.versions[channel]))


def _places(documents: DocumentStore, namespace: Namespace) -> Iterator[DocumentPlace]:
    query = DocumentQuery(namespace=namespace, below=True, limit=_PAGE, values=False)
    return (each.place for each in documents.list_all(query))
