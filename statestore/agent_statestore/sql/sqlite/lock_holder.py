"""Who holds a SQLite file's write lock, for the message of an error: SQLite itself only says that it is held.

SQLite's locks are POSIX locks of bytes of its files, which Linux lists. They are read and not asked for: closing a file
would give back all locks that this process has on it.
"""

import os
import sqlite3
from pathlib import Path
from typing import Final

_LOCKS: Final = Path("/proc/locks")
# The byte that a writer locks: in the file beside the database that the WAL needs, and in the database without a WAL.
_OF_WAL: Final = ("-shm", 120)
_OF_FILE: Final = ("", 0x40000001)
_ADVICE: Final = (
    "if that is the transaction in which this is called, write in it (enqueue(connection=...)) or after its commit "
    "(enqueue(on_commit=...))"
)


def busy_reason(error: BaseException | None, file: str | None) -> str | None:
    """Return why SQLite found the file locked; None for any other error."""
    if not isinstance(error, sqlite3.OperationalError) or getattr(error, "sqlite_errorcode", 0) & 0xFF not in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    ):
        return None
    if error.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT:
        return (
            f"{error}: the transaction began by reading, and others have written since: begin it with BEGIN IMMEDIATE "
            '(Django: "transaction_mode": "IMMEDIATE" in the OPTIONS of the database)'
        )
    holders = _holders(file)
    if os.getpid() in holders:
        return f"{error}: this process has an open transaction that has written to the file; {_ADVICE}"
    if holders:
        return (
            f"{error}: process {', '.join(map(str, sorted(holders)))} has an open transaction that writes to the file"
        )
    return f"{error}: somebody has an open transaction that writes to the file; {_ADVICE}"


def _holders(file: str | None) -> set[int]:
    """Return the processes that hold the write lock, as far as the system tells."""
    places = set()
    for suffix, byte in (_OF_WAL, _OF_FILE):
        try:
            places.add((os.stat(f"{file}{suffix}").st_ino, byte))  # noqa: PTH116 - the suffix belongs to the name
        except OSError:
            continue
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return set()
    holders = set()
    for line in lines:
        # "7: POSIX  ADVISORY  WRITE 4711 08:01:1234 120 120", and "7: -> ..." for one that waits.
        fields = line.split()
        if len(fields) != 8 or fields[3] != "WRITE" or not fields[6].isdigit():
            continue
        last = fields[7]
        for inode, byte in places:
            if (
                fields[5].rpartition(":")[2] == str(inode)
                and int(fields[6]) <= byte
                and (last == "EOF" or byte <= int(last))
            ):
                holders.add(int(fields[4]))
    return holders
