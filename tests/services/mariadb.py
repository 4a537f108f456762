"""A MariaDB server of the tests' own."""

import contextlib
import functools
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pymysql
from pymysql.connections import Connection
from sqlalchemy import make_url

from tests.services.postgresql import with_database
from tests.services.process import ServerProcess, unprivileged_user

# Where distributions keep servers, which is on root's PATH only.
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin")


@dataclass(frozen=True, kw_only=True, slots=True)
class MariaDBPrograms:
    """The server, and what fills its data directory."""

    server: str
    install: str


def find_mariadb() -> MariaDBPrograms | None:
    """The programs on PATH or in the system's folders, or None. MySQL, which has no `install`, is not one."""
    server = _which("mariadbd", "mysqld")
    install = _which("mariadb-install-db", "mysql_install_db")
    # The script gives up without this one, which Debian has in a package of its own.
    if server is None or install is None or _which("my_print_defaults") is None:
        return None
    return MariaDBPrograms(server=server, install=install)


class MariaDBServer(ServerProcess):
    """A MariaDB with a root that needs no password. With `durable`, commits survive a kill of the machine."""

    def __init__(self, programs: MariaDBPrograms, *, durable: bool = False) -> None:
        super().__init__()
        self.programs = programs
        self.durable = durable

    @property
    def url(self) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/test"

    def user(self) -> str | None:
        # Its root has no password and may write files: on a shared machine those must not be the system's root's.
        return unprivileged_user("mysql")

    def prepare(self) -> None:
        data = self.make_folder("data")
        first_statements = self.folder / "first.sql"
        first_statements.write_text("CREATE DATABASE test;\n")
        subprocess.run(
            [
                self.programs.install,
                "--no-defaults",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                f"--extra-file={first_statements}",
                *self._storage,
                "--innodb-flush-method=nosync",
            ],
            cwd=data,
            # Each server that starts removes the temporary tables that it finds in its folder for them.
            env=os.environ | {"TMPDIR": str(data)},
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            **self.as_user(),
        )

    def command(self, port: int) -> list[str]:
        return [
            self.programs.server,
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--tmpdir={self.folder / 'data'}",
            f"--socket={self.folder / 'data' / 'socket'}",
            f"--pid-file={self.folder / 'data' / 'pid'}",
            "--bind-address=127.0.0.1",
            f"--port={port}",
            "--skip-name-resolve",
            "--max-connections=200",
            *self._storage,
            f"--innodb-flush-log-at-trx-commit={1 if self.durable else 0}",
            *([] if self.durable else ["--innodb-flush-method=nosync"]),
        ]

    @property
    def _storage(self) -> tuple[str, ...]:
        # A small log, because the default of 96 MB is written out for every server. The character set is what MariaDB's
        # packages configure, which --no-defaults takes away.
        return (
            "--innodb-log-file-size=16M",
            "--innodb-buffer-pool-size=64M",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_general_ci",
        )

    def is_ready(self) -> bool:
        try:
            connect(self.url).close()
        except pymysql.err.OperationalError:
            return False
        return True


def share_certificates() -> None:
    """Have pymysql read the system's certificates once, and not for each connection: that takes longer than most tests.

    It offers TLS to every server, also to those that have none. A connection that asks for TLS is made as ever.
    """
    connection: Any = Connection  # no public way
    make, shared = connection._create_ssl_ctx, functools.cache(lambda: make(None, {}))
    connection._create_ssl_ctx = lambda self, options: make(self, options) if options else shared()


def connect(url: str) -> "pymysql.connections.Connection[pymysql.cursors.Cursor]":
    """A connection of the driver's own that commits each statement."""
    parts = make_url(url)
    return pymysql.connect(
        host=parts.host or "127.0.0.1",
        port=parts.port or 3306,
        user=parts.username,
        password=parts.password or "",
        database=parts.database,
        charset="utf8mb4",
        connect_timeout=5,
        autocommit=True,
    )


@contextlib.contextmanager
def fresh_mariadb_database(server_url: str) -> Iterator[str]:
    """Creates an empty database on the server, and drops it in the end."""
    name = f"test_{uuid.uuid4().hex}"
    with connect(server_url) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    try:
        yield with_database(server_url, name)
    finally:
        with connect(server_url) as connection, connection.cursor() as cursor:
            # DROP DATABASE waits for every open transaction in it, for a day: what a test left open is ended first.
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (name,))
            for (number,) in cursor.fetchall():
                with contextlib.suppress(pymysql.err.OperationalError):  # it has ended meanwhile
                    cursor.execute(f"KILL {int(number)}")
            cursor.execute(f"DROP DATABASE {name}")


def _which(*names: str) -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_FOLDERS))
    return next((found for name in names if (found := shutil.which(name, path=path))), None)
