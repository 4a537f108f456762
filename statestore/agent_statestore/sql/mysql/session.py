"""How a connection to MySQL or MariaDB is made, and the settings of its session."""

from typing import Any, Final

from pymysql.constants import CLIENT

# A writer holds a row's lock for a few round trips. A transaction that waits longer than this waits for one that hangs.
LOCK_WAIT_SECONDS: Final = 5

# Nothing is cut short or replaced by a default: a value that does not fit is an error.
_SQL_MODE: Final = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"

_LIMIT: Final = "SELECT @@max_allowed_packet"
_SETUP: Final = (
    f"SET SESSION time_zone = '+00:00', sql_mode = '{_SQL_MODE}'",
    # What was read under a row's lock is true then; a snapshot taken before would not show what others wrote meanwhile.
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
)
_WAITS: Final = (
    # The second setting is for a table that is being changed; by default a statement waits a day for it.
    f"SET SESSION innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}, lock_wait_timeout = {LOCK_WAIT_SECONDS}"
)


def connect_arguments(*, autocommit: bool, answer_seconds: float | None) -> dict[str, Any]:
    """Return pymysql's arguments besides the URL; `answer_seconds` limits the wait for a statement's answer."""
    # A row count is of the rows that matched, whether or not an UPDATE changed them.
    flags = CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS
    return {
        "charset": "utf8mb4",
        "client_flag": flags,
        "autocommit": autocommit,
        "read_timeout": answer_seconds,
        "write_timeout": answer_seconds,
    }


def prepare(connection: Any, *, waits: bool) -> int:
    """Set up the session in one round trip; with `waits` it waits for everything as long as it takes.

    Return how many bytes the server takes at once, which is a setting of the server.
    """
    with connection.cursor() as cursor:
        cursor.execute("; ".join((_LIMIT, *_SETUP) if waits else (_LIMIT, *_SETUP, _WAITS)))
        ((limit,),) = cursor.fetchall()
        while cursor.nextset():
            pass
    return int(limit)
