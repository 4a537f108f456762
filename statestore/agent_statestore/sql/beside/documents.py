"""Documents in a database: what is the same in every one. Who writes locks the root of what it writes.

A row of `documents` is a document; its columns are the fields of `StoredDocument`, and its primary key is the place.
What has expired is there until `tidy` removes it, and every statement passes it over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Protocol

from sqlalchemy.engine import Connection

from agent_statestore.documents.codec import STORED_FIELDS, EncodedOperation, StoredDocument
from agent_statestore.documents.contract import DocumentStore, Selection
from agent_statestore.documents.places import (
    Namespace,
    Range,
    is_root,
    place_of,
    root_in,
    root_of,
    within,
)
from agent_statestore.documents.records import Written
from agent_statestore.sql.database import Database
from agent_statestore.sql.tables import Tables

_COLUMNS: Final = ", ".join(f"d.{name}" for name in STORED_FIELDS)
_WITHOUT_VALUES: Final = _COLUMNS.replace("d.text, d.content", "NULL, NULL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """The SQL in which the databases differ.

    `among` follows a column and holds for the texts in `:places`, a parameter that `listed` made. `contains` holds if
    the text `{text}` contains `{part}`, compared byte by byte. `time` is the time when the statement began, in a form
    for which an index can be asked; its parameter `:now` is the injected clock's time or None.
    """

    among: str
    listed: Callable[[Sequence[str]], Any]
    contains: str
    time: str


class DocumentWriting(Protocol):
    """The writes of one store's documents. Each locks a root first, and then looks at what stands there."""

    def apply(self, operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
        """Execute operations on documents of one root; see `DocumentPrimitives.apply`."""
        ...

    def apply_in(self, connection: Connection, operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
        """Execute operations in the transaction that is under way on a connection; see `SQLDocuments.apply_in`."""
        ...

    def remove(self, places: Range) -> int:
        """Remove the documents in a range, which are those of one root, and return how many there were."""
        ...

    def tidy(self, limit: int) -> int:
        """Remove documents that have expired; see `DocumentPrimitives.tidy`."""
        ...


class SQLDocuments(DocumentStore):
    """The documents of a SQL store. `now_us` returns the injected clock's time; None stands for the server's."""

    def __init__(
        self, database: Database, now_us: Callable[[], int | None], speech: Speech, writing: DocumentWriting
    ) -> None:
        self._database = database
        self._now_us = now_us
        self._speech = speech
        self._writing = writing
        documents = database.settings.tables.documents
        self._from = f"FROM {documents} AS d WHERE"
        self._is_there = f"(d.expires_us IS NULL OR d.expires_us > {speech.time})"
        self._read = f"SELECT {_COLUMNS} {self._from} d.place {speech.among} AND {self._is_there}"

    def apply(self, operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
        return self._writing.apply(operations, write_id)

    def apply_in(
        self, connection: Connection, operations: Sequence[EncodedOperation], write_id: str | None = None
    ) -> Written:
        """Execute operations in a transaction that the caller began and will commit; otherwise like `apply`.

        The root stays locked until then. On PostgreSQL the transaction must be READ COMMITTED. A driver's errors are
        raised as they are, and a deadlock with the transaction of another caller is one of them.
        """
        return self._writing.apply_in(connection, operations, write_id)

    def read(self, places: Sequence[str]) -> Sequence[StoredDocument | None]:
        params = {"places": self._speech.listed(places), "now": self._now_us()}
        found = {row[0]: StoredDocument(*row) for row in self._database.run(self._read, params)}
        return [found.get(place) for place in places]

    def read_range(self, selection: Selection) -> Sequence[StoredDocument]:
        first, last = selection.places
        params: dict[str, Any] = {"first": first, "now": self._now_us(), "rows": selection.limit}
        conditions = ["d.place >= :first", self._is_there]
        if last is not None:
            params["last"] = last
            conditions.append("d.place < :last")
        for number, line in enumerate(selection.lines):
            name = f"line{'_' * number}"  # a parameter's name has no digits
            params[name] = line
            conditions.append(self._speech.contains.format(text="d.metadata", part=f":{name}"))
        columns = _COLUMNS if selection.values else _WITHOUT_VALUES
        order = "DESC" if selection.newest_first else "ASC"
        statement = f"SELECT {columns} {self._from} {' AND '.join(conditions)} ORDER BY d.place {order} LIMIT :rows"
        return [StoredDocument(*row) for row in self._database.run(statement, params)]

    def remove_range(self, namespace: Namespace) -> int:
        places = within(namespace, below=True)
        if is_root(namespace):
            return self._writing.remove(places)
        next_place = f"SELECT d.place {self._from} d.place >= :first AND d.place < :last ORDER BY d.place LIMIT 1"
        count = 0
        while rows := self._database.run(next_place, places._asdict()):
            root = root_of(place_of(rows[0][0]).namespace)
            # Also where a damaged place has no root: the next round begins behind it.
            behind = max(within(root, below=is_root(root)).last or "", f"{rows[0][0]}\x01")
            count += self._writing.remove(Range(rows[0][0], behind))
            places = places._replace(first=behind)
        return count

    def tidy(self, limit: int = 1000) -> int:
        return self._writing.tidy(limit)


def number_of_root(tables: Tables, text: str) -> int:
    """Return a number of 64 bits, with a sign, for the root with which a place in these tables begins.

    Other roots rarely have the same.
    """
    digest = sha256(f"{tables.documents}\0{root_in(text)}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
