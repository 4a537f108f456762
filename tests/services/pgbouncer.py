"""A PgBouncer of the tests' own, in front of a PostgreSQL."""

import os
import shutil
import signal

import psycopg
from sqlalchemy import make_url

from tests.services.postgresql import SUPERUSER, driver_url
from tests.services.process import ServerProcess, unprivileged_user


def find_pgbouncer() -> str | None:
    """The program on PATH or where Debian puts it, or None."""
    return shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin")))


class PgBouncer(ServerProcess):
    """A PgBouncer that gives a session on the server away after each transaction, or with "session" at its end."""

    stop_signal = signal.SIGINT

    def __init__(self, binary: str, server_url: str, *, pool_mode: str = "transaction", pool_size: int = 4) -> None:
        super().__init__()
        self.binary = binary
        self.server = make_url(server_url)
        self.pool_mode = pool_mode
        self.pool_size = pool_size

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{SUPERUSER}@127.0.0.1:{self.port}/{self.server.database}"

    def user(self) -> str | None:
        # It refuses to run as root.
        return unprivileged_user("postgres")

    def command(self, port: int) -> list[str]:
        settings = self.make_folder("settings") / "pgbouncer.ini"
        password = f" password={self.server.password}" if self.server.password else ""
        settings.write_text(
            f"[databases]\n"
            f"* = host={self.server.host} port={self.server.port or 5432} user={self.server.username}{password}\n"
            f"[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = {self.pool_mode}\ndefault_pool_size = {self.pool_size}\nmax_client_conn = 500\n"
        )
        return [self.binary, str(settings)]

    def is_ready(self) -> bool:
        try:
            psycopg.connect(driver_url(self.url), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
