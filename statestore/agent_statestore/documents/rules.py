"""What a write changes, and why it is refused: decided from what stands at its places, without reading or writing.

The stores that decide in Python (in memory, SQLite, MySQL) call `decide` under a lock. PostgreSQL's statement and
Redis' script say the same in another language.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent_statestore.documents.codec import EXPECT, LOWEST, PUT, REMOVE, EncodedOperation, StoredDocument
from agent_statestore.documents.errors import DocumentConflict
from agent_statestore.documents.places import place_of

NONE: Final = 0


class DocumentStanding(NamedTuple):
    """What stands at a place: its version, the write that stored it, and when it came."""

    version: int
    write_id: str | None
    created_us: int


@dataclass(slots=True)
class DocumentChanges:
    """What a write stores and removes, and the versions that then stand at its places."""

    puts: list[StoredDocument] = field(default_factory=list)
    removals: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    was_applied: bool = False


def decide(
    operations: Sequence[EncodedOperation], write_id: str | None, standing: Mapping[str, DocumentStanding], now_us: int
) -> DocumentChanges:
    """Return the changes of a write. Raise `DocumentConflict`.

    `standing` says what stands at the places of the operations; what has expired does not.
    """
    changes = DocumentChanges()
    before = [standing.get(operation.place) for operation in operations]
    if write_id is not None and any(
        there is not None and there.write_id == write_id and operation.kind == PUT
        for operation, there in zip(operations, before, strict=True)
    ):
        changes.was_applied = True
        changes.versions = [NONE if there is None else there.version for there in before]
        return changes
    for operation, there in zip(operations, before, strict=True):
        found = NONE if there is None else there.version
        if is_refused(operation, found):
            raise conflict(operation, found)
        changes.versions.append(_apply(changes, operation, there, write_id, now_us))
    return changes


def is_refused(operation: EncodedOperation, found: int) -> bool:
    """Return whether an operation does not allow the version that stands at its place."""
    if operation.if_version is None or operation.if_version == found:
        return False
    return not (operation.kind == REMOVE and found == NONE)


def conflict(operation: EncodedOperation, found: int) -> DocumentConflict:
    """Return the error that says so."""
    namespace, key = place_of(operation.place)
    return DocumentConflict(namespace, key, operation.if_version or NONE, found)


def next_version(operation: EncodedOperation, found: int, now_us: int) -> int | None:
    """Return the version that a put brings; None if it leaves what stands there."""
    if operation.keep and found:
        return None
    if operation.version is None:
        return max(found + 1, now_us)
    if operation.if_version is None and found >= operation.version:
        return None
    return operation.version


def _apply(
    changes: DocumentChanges,
    operation: EncodedOperation,
    there: DocumentStanding | None,
    write_id: str | None,
    now_us: int,
) -> int:
    found = NONE if there is None else there.version
    if operation.kind == EXPECT:
        return found
    if operation.kind == REMOVE:
        if there is not None:
            changes.removals.append(operation.place)
        return NONE
    version = next_version(operation, found, now_us)
    if version is None:
        return found
    changes.puts.append(
        StoredDocument(
            place=operation.place,
            version=version,
            write_id=write_id,
            format=LOWEST,
            text=operation.text,
            content=operation.content,
            metadata=operation.metadata,
            created_us=now_us if there is None else there.created_us,
            updated_us=now_us,
            expires_us=None if operation.ttl_us is None else now_us + operation.ttl_us,
        )
    )
    return version
