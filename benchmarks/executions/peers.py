"""The queues of Absurd and DBOS, on PostgreSQL. They need the extra `bench`."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final

import psycopg

from benchmarks.executions.way import ENDS, LATENCIES, Send, Way
from benchmarks.servers import Servers
from benchmarks.workers import ROOT, Frozen

PROCESSES: Final = 2
QUEUE: Final = "bench"
# How often a worker of theirs looks for work when it has none. Their defaults, 0.25 s and 1 s, would only slow them.
POLL_SECONDS: Final = 0.01


# Starts a worker process: of a module of this package, for a database.
Start = Callable[[str, str], Frozen]


def are_installed() -> bool:
    """Return whether the extra `bench` is installed."""
    return all(find_spec(name) is not None for name in ("absurd_sdk", "absurdctl", "dbos"))


class Peer(Way):
    """Two worker processes of a queue that lives in a PostgreSQL database."""

    def __init__(self, servers: Servers, start: Start, module: str, database_url: str) -> None:
        workers = [start(module, database_url) for _ in range(PROCESSES)]
        super().__init__(servers, workers, PROCESSES)
        self._connection = psycopg.connect(database_url, autocommit=True)

    count_query: str

    def send(self, work: str, *arguments: object) -> None:
        """Send one."""
        raise NotImplementedError

    def sends(self, steps: int) -> Send:
        """Return what sends a work of so many steps."""
        return lambda: self.send("steps", steps)

    def stamp(self) -> None:
        self.send("stamp", self.stamps_url, ENDS, 0.0)

    def first_step(self, sent_at: float) -> None:
        """Send a work whose first step tells how late it began."""
        self.send("stamp", self.stamps_url, LATENCIES, sent_at)

    def are_over(self) -> bool:
        return self._counted()[1] == 0

    def count_ended(self) -> int:
        return self._counted()[0]

    def _counted(self) -> tuple[int, int]:
        """Return how many have ended well, and how many have not ended."""
        row = self._connection.execute(self.count_query.encode()).fetchone()
        assert row is not None
        return row[0], row[1]

    def close(self) -> None:
        self._connection.close()
        super().close()


class AbsurdQueue(Peer):
    """Absurd: stored functions of PostgreSQL, one claim at a time, as its worker does by default."""

    count_query = (
        f"SELECT count(*) FILTER (WHERE state = 'completed'), count(*) FILTER (WHERE state <> 'completed') "
        f"FROM absurd.t_{QUEUE}"
    )

    def __init__(self, servers: Servers, start: Start, database_url: str) -> None:
        from absurd_sdk import Absurd
        from absurdctl import BUNDLED_SCHEMA_SQL

        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(BUNDLED_SCHEMA_SQL)
        self._client: Any = Absurd(database_url, queue_name=QUEUE)
        self._client.create_queue(QUEUE)
        super().__init__(servers, start, "absurd_worker", database_url)

    def send(self, work: str, *arguments: object) -> None:
        self._client.spawn(work, list(arguments), queue=QUEUE)

    def close(self) -> None:
        self._client.close()
        super().close()


class DBOSQueue(Peer):
    """DBOS: its database-backed queue."""

    count_query = (
        "SELECT count(*) FILTER (WHERE status = 'SUCCESS'), count(*) FILTER (WHERE status <> 'SUCCESS') "
        "FROM dbos.workflow_status"
    )

    def __init__(self, servers: Servers, start: Start, database_url: str) -> None:
        from dbos import DBOSClient

        command = [sys.executable, "-m", "benchmarks.executions.dbos_worker", database_url, "--prepare"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        super().__init__(servers, start, "dbos_worker", database_url)
        self._client: Any = DBOSClient(system_database_url=database_url)

    def send(self, work: str, *arguments: object) -> None:
        self._client.enqueue({"workflow_name": work, "queue_name": QUEUE}, *arguments)

    def close(self) -> None:
        self._client.destroy()
        super().close()
