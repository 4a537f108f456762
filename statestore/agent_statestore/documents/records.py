"""Documents, and what is asked of a store about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from agent_statestore.documents.places import DocumentPlace, Namespace
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import JSONValue

__all__ = ["MOST_VERSION", "Document", "DocumentPlace", "Expect", "Namespace", "Operation", "Put", "Remove", "Written"]

# Versions are also numbers of Lua, which are exact up to here.
MOST_VERSION: Final = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document as it is stored.

    Attributes:
        value: what was put: JSON, or bytes. None where the question was not about values.
        metadata: names and JSON values, by which documents are filtered.
        version: a number that grows with every write; see `Put`.
        expires_at: when it will be gone; None for never.
        unreadable: why its contents cannot be read, for a document in a list; it then has no value and no metadata.
    """

    namespace: Namespace
    key: str
    value: JSONValue | bytes
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)
    version: int
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    unreadable: str | None = None

    @property
    def place(self) -> DocumentPlace:
        """Its namespace and key."""
        return DocumentPlace(self.namespace, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Store a document, in the place of one that stands there.

    Without a `version` the new one is the store's time in microseconds since the epoch, or one more than the version
    before if that is not less. So versions of one place grow for ever, also across a removal.

    Attributes:
        if_version: the version that must stand there; 0 for none. Otherwise the write is refused.
        keep: leave a document that stands there as it is. It cannot be given with `if_version` or `version`.
        version: the new version, from 1 to 2**53 - 1. Without `if_version`, a document that stands there with this
            version or a higher one is left as it is. So writes with versions can be repeated, and come in any order.
        ttl: how long from now it is kept; None for ever.

    Raises `InvalidRecord` for what does not go together, and for an invalid version or ttl.
    """

    namespace: Namespace
    key: str
    value: JSONValue | bytes
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)
    if_version: int | None = None
    keep: bool = False
    version: int | None = None
    ttl: timedelta | None = None

    def __post_init__(self) -> None:
        if self.keep and (self.if_version is not None or self.version is not None):
            raise InvalidRecord("keep", "goes with no version: the document that stands there is kept")
        _check_version("if_version", self.if_version, 0)
        _check_version("version", self.version, 1)
        if self.version is not None and self.if_version is not None and self.version <= self.if_version:
            raise InvalidRecord("version", f"needs more than if_version, {self.if_version}")
        if self.ttl is not None and (not isinstance(self.ttl, timedelta) or self.ttl <= timedelta(0)):
            raise InvalidRecord("ttl", f"needs a duration above zero, not {self.ttl!r:.80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Remove a document, if one stands there. `if_version` as for `Put`."""

    namespace: Namespace
    key: str
    if_version: int | None = None

    def __post_init__(self) -> None:
        _check_version("if_version", self.if_version, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """Change nothing, but refuse the whole write unless this version stands there; 0 for none."""

    namespace: Namespace
    key: str
    version: int

    def __post_init__(self) -> None:
        _check_version("version", self.version, 0)


Operation: TypeAlias = Put | Remove | Expect


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a write did.

    `versions` are those that stand at the places of the operations afterwards, in their order; 0 for none.
    `was_applied` says that a write with the same `write_id` was found, and that nothing was done.
    """

    versions: tuple[int, ...]
    was_applied: bool = False


def _check_version(name: str, version: object, least: int) -> None:
    if version is None:
        return
    if isinstance(version, bool) or not isinstance(version, int) or not least <= version <= MOST_VERSION:
        raise InvalidRecord(name, f"needs a whole number from {least} to 2**53 - 1, not {version!r:.80}")
