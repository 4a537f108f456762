"""Under a lock: documents are written.

On SQLite the lock is the file's. On MySQL and MariaDB it is that of one row in `document_locks`, the slot of the root.
It is the first lock of the transaction, and keeps out all others that write documents of the root. So those that name
documents in different orders, or make the same document, do not deadlock.
"""

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy.engine import Connection

from agent_statestore.clock import Clock
from agent_statestore.documents.codec import STORED_FIELDS, EncodedOperation, StoredDocument
from agent_statestore.documents.errors import DocumentConflict
from agent_statestore.documents.places import Range
from agent_statestore.documents.records import Written
from agent_statestore.documents.rules import DocumentStanding, decide
from agent_statestore.sql.beside.documents import Speech, SQLDocuments, number_of_root
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.locking.base import Dialect, LockedBase
from agent_statestore.sql.transaction import Transaction

_SLOTS: Final = 1024

# The columns of a row that is put; the contents come last, where the dialect may have a function around them.
_PUT: Final = tuple(sorted(STORED_FIELDS, key=lambda name: name == "content"))


class LockedDocumentWriting(LockedBase):
    """See `DocumentWriting`. `joining` returns the transaction that is under way on a connection."""

    def __init__(
        self,
        dialect: Dialect,
        database: LockingDatabase,
        clock: Clock | None,
        joining: Callable[[Connection], Transaction],
    ) -> None:
        self.dialect = dialect
        super().__init__(database, clock)
        self._joining = joining
        documents = self._tables.documents
        # The row is made where it is not there, and locked in any case.
        self._lock = f"INSERT INTO {self._tables.document_locks} (slot) VALUES (?) ON DUPLICATE KEY UPDATE slot = slot"
        self._standing = (
            f"SELECT place, version, write_id, created_us, expires_us FROM {documents} WHERE place IN {dialect.any_of}"
        )
        put = dialect.upsert(documents, "place", _PUT[1:])
        self._put = put._replace(
            row=_with_content(put.row, dialect.content), single=_with_content(put.single, dialect.content)
        )
        self._remove = f"DELETE FROM {documents} WHERE place IN {dialect.any_of}"
        expired = f"expires_us <= {dialect.time}".replace("?", ":now")
        among = f"IN {dialect.any_of}".replace("?", ":places")
        self._expired = f"SELECT place FROM {documents} WHERE {expired} ORDER BY expires_us LIMIT :rows"
        # The condition again: it may have been written once more meanwhile.
        self._forget = f"DELETE FROM {documents} WHERE place {among} AND {expired}"
        self._remove_range = f"DELETE FROM {documents} WHERE place >= ? AND place < ?"

    def apply(self, operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
        def work(transaction: Transaction) -> Written | DocumentConflict:
            try:
                return self._apply(transaction, operations, write_id)
            except DocumentConflict as refused:
                # Nothing is to be undone. With the lock's row, if it is new, those who wait for it could deadlock.
                return refused

        outcome = self._database.write(work)
        if isinstance(outcome, DocumentConflict):
            raise outcome
        return outcome

    def apply_in(self, connection: Connection, operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
        transaction = self._joining(connection)
        written = self._apply(transaction, operations, write_id)
        transaction.flush()
        return written

    def remove(self, places: Range) -> int:
        def work(transaction: Transaction) -> int:
            self._lock_root(transaction, places.first)
            _, now_us = self._look(transaction)
            there = f"{self._remove_range} AND (expires_us IS NULL OR expires_us > ?)"
            count = transaction.change(there, (*places, now_us))
            transaction.write(self._remove_range, places)
            return count

        return self._database.write(work)

    def tidy(self, limit: int) -> int:
        """Remove documents that have expired, in two round trips."""
        # A look first: mostly there is nothing, and on SQLite a writer keeps all others waiting.
        now_us = self.now_us()
        expired = [place for (place,) in self._database.run(self._expired, {"now": now_us, "rows": limit})]
        if not expired:
            return 0
        return self._database.change(self._forget, {"places": self.dialect.listed(expired), "now": now_us})

    def _apply(self, transaction: Transaction, operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
        self._lock_root(transaction, operations[0].place)
        places = [operation.place for operation in operations]
        (found,), now_us = self._look(transaction, (self._standing, (self.dialect.listed(places),)))
        standing = {
            place: DocumentStanding(*stands)
            for place, *stands, expires_us in found
            if expires_us is None or expires_us > now_us
        }
        changes = decide(operations, write_id, standing, now_us)
        if changes.removals:
            transaction.write(self._remove, (self.dialect.listed(changes.removals),))
        if changes.puts:
            # In the order in which `tidy` goes through what has expired.
            puts = sorted(changes.puts, key=lambda stored: stored.place)
            transaction.insert(self._put, [self._row_of(stored) for stored in puts])
        return Written(versions=tuple(changes.versions), was_applied=changes.was_applied)

    def _lock_root(self, transaction: Transaction, place: str) -> None:
        if self.dialect.lock:
            transaction.write(self._lock, (number_of_root(self._tables, place) % _SLOTS,))

    def _row_of(self, stored: StoredDocument) -> tuple[object, ...]:
        content = None if stored.content is None else self.dialect.contents(stored.content)
        fields = stored._replace(content=None)._asdict() | {"content": content}
        return tuple(fields[name] for name in _PUT)


def documents_locked(
    dialect: Dialect, database: LockingDatabase, clock: Clock | None, joining: Callable[[Connection], Transaction]
) -> SQLDocuments:
    """Return the documents of a store on SQLite, MySQL or MariaDB."""
    speech = Speech(
        among=f"IN {dialect.any_of}".replace("?", ":places"),
        listed=dialect.listed,
        contains=dialect.contains,
        time=dialect.time.replace("?", ":now"),
    )
    writing = LockedDocumentWriting(dialect, database, clock, joining)
    return SQLDocuments(database, writing.now_us, speech, writing)


def _with_content(text: str, content: str) -> str:
    """Return an INSERT's text with the contents, its last parameter, in another form."""
    before, _, after = text.rpartition("?")
    return f"{before}{content}{after}"
