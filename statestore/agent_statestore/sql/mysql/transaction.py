"""A transaction on one connection to MySQL or MariaDB, in as few round trips as possible."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

from pymysql.err import MySQLError

from agent_statestore.errors import ValueTooLarge
from agent_statestore.sql.transaction import Insert, Row, Select

_SEPARATOR: Final = b";\n"


class PacketTooLarge(ValueTooLarge):
    """A value whose statement is larger than what the server takes at once."""

    def __str__(self) -> str:
        return (
            f"{self.field}: its statement takes {self.size_bytes} bytes, and the server's max_allowed_packet is "
            f"{self.limit_bytes}"
        )


class MySQLTransaction:
    """A transaction that is under way; see `Transaction`. Writes wait for the next look or the commit.

    It begins with the first round trip, by `beginning`; `max_packet` is how many bytes the server takes in one.
    """

    def __init__(self, connection: Any, max_packet: int, *beginning: str) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._max_packet = max_packet
        self._beginning = beginning or ("BEGIN",)
        self._waiting: list[bytes] = []
        self._has_begun = False
        self._is_over = False
        # True while an answer has not been read to its end: then nothing else can be asked.
        self._is_busy = False

    def look(self, *queries: Select) -> list[list[Row]]:
        return self._send([self._text_of(*query) for query in queries])[0]

    def finish(self, *queries: Select) -> list[list[Row]]:
        rows, _ = self._send([*(self._text_of(*query) for query in queries), b"COMMIT"])
        self._is_over = True
        return rows

    def write(self, statement: str, params: Sequence[Any]) -> None:
        self._waiting.append(self._text_of(statement, params))

    def insert(self, insert: Insert, rows: Sequence[Sequence[Any]]) -> None:
        head, tail = f"{insert.head} VALUES ".encode(), f" {insert.tail}".encode()
        for texts in _groups([self._text_of(insert.row, row) for row in rows], self._max_packet - len(head + tail), 1):
            self._waiting.append(head + b",".join(texts) + tail)

    def change(self, statement: str, params: Sequence[Any]) -> int:
        return self._send([self._text_of(statement, params)])[1]

    def flush(self) -> None:
        if self._waiting:
            self._send([])

    @classmethod
    def joining(cls, connection: Any, max_packet: int) -> Self:
        """Return a transaction that others began, and will end."""
        transaction = cls(connection, max_packet)
        transaction._has_begun = True
        return transaction

    def alone(self, statement: str, params: Sequence[Any]) -> tuple[list[Row], int]:
        """Run one statement without a transaction around it; return its rows and how many it matched."""
        self._has_begun = self._is_over = True
        rows, count = self._send([self._text_of(statement, params)])
        return (rows[0] if rows else []), count

    def commit(self) -> None:
        """Make everything so far permanent, unless `finish` has."""
        if not self._is_over and (self._has_begun or self._waiting):
            self.finish()

    def roll_back(self) -> bool:
        """Undo everything so far; return False if that cannot be told to the server."""
        if self._is_busy or not self._connection.open:
            return False
        if self._has_begun and not self._is_over:
            try:
                self._connection.rollback()
            except MySQLError:
                return False
        return True

    def _send(self, statements: Sequence[bytes]) -> tuple[list[list[Row]], int]:
        """Run the waiting statements and these; return the rows of each that has any, and the last one's row count."""
        waiting, self._waiting = [*self._waiting, *statements], []
        if not self._has_begun:
            waiting[:0] = [statement.encode() for statement in self._beginning]
        if not waiting:
            return [], 0  # the server refuses an empty text
        for statement in waiting:
            if len(statement) >= self._max_packet:
                raise PacketTooLarge("value", len(statement), self._max_packet)
        rows: list[list[Row]] = []
        count = 0
        cursor = self._cursor
        for group in _groups(waiting, self._max_packet, len(_SEPARATOR)):
            self._has_begun = self._is_busy = True
            try:
                cursor.execute(_SEPARATOR.join(group))
                while True:
                    count = cursor.rowcount
                    if cursor.description is not None:
                        rows.append(list(cursor.fetchall()))
                    if not cursor.nextset():
                        break
            except MySQLError:
                # The server's answer to a statement ends the round trip. Other faults close the connection.
                self._is_busy = False
                raise
            self._is_busy = False
        return rows, count

    def _text_of(self, statement: str, params: Sequence[Any]) -> bytes:
        """Return the statement with its parameters in their places."""
        return str(self._cursor.mogrify(statement.replace("?", "%s"), params)).encode()


def _groups(texts: Sequence[bytes], limit: int, between: int) -> Iterator[list[bytes]]:
    """Yield the texts in as few groups as stay below the limit, with this many bytes between two; each text fits."""
    group: list[bytes] = []
    size = 0
    for text in texts:
        if group and size + between + len(text) >= limit:
            yield group
            group, size = [], 0
        size += len(text) + (between if group else 0)
        group.append(text)
    yield group
