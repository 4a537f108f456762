"""A second PostgreSQL that follows a first one, and takes its place when it is told to."""

import subprocess

import psycopg

from tests.services.commands import wait_until
from tests.services.postgresql import SUPERUSER, PostgresServer, driver_url


class PostgresStandby(PostgresServer):
    """A hot standby of `primary`, made with pg_basebackup: it is read, and refuses every write until it is promoted."""

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__(primary.binaries, durable=primary.durable)
        self.primary = primary

    def prepare(self) -> None:
        self.make_folder(self.data.name)
        subprocess.run(
            [
                self.binaries / "pg_basebackup",
                *("--host", "127.0.0.1", "--port", str(self.primary.port), "--username", SUPERUSER),
                *("--pgdata", self.data, "--checkpoint", "fast", "--wal-method", "stream"),
                "--write-recovery-conf",
                "--no-sync",
            ],
            cwd=self.folder,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            **self.as_user(),
        )

    def catch_up(self) -> None:
        """Waits until it has everything that the primary has committed."""
        with psycopg.connect(driver_url(self.primary.url)) as connection:
            position = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
        with psycopg.connect(driver_url(self.url), autocommit=True) as connection:
            wait_until(
                "the standby has caught up",
                lambda: (
                    connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", position).fetchone() == (True,)
                ),
            )

    def promote(self) -> None:
        """Makes it a primary. Returns when it takes writes."""
        with psycopg.connect(driver_url(self.url), autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)


def fence(server: PostgresServer) -> None:
    """Makes a primary refuse every write from now on, as a planned switch-over does. Its sessions stay open."""
    with psycopg.connect(driver_url(server.url), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        wait_until(
            "the fence is up",
            lambda: connection.execute("SHOW default_transaction_read_only").fetchone() == ("on",),
        )


def url_of(*servers: PostgresServer, options: str = "") -> str:
    """The URL of a store on whichever of the servers is to be had, in this order."""
    hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in servers)
    return f"postgresql+psycopg://postgres@/postgres?{hosts}{options}"
