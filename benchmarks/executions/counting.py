"""What an execution asks of the servers, counted: Redis commands by what they are for, and PostgreSQL's commits."""

import threading
from abc import ABC, abstractmethod
from collections import Counter
from importlib.resources import files
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final, Self

import psycopg
import redis

from agent_statestore.redis.scripts import script
from benchmarks.executions.way import STAMPS
from benchmarks.servers import STORE_DATABASE

# What workers do for all executions, however few there are. Celery's heartbeats and its wait for messages are alike.
AT_REST: Final = frozenset({"find_ended", "find_leases", "list_expired", "now", "renew", "take_due", "take_duty"})
_NO_WORK: Final = frozenset({"BRPOP", "PING", "HELLO", "CLIENT", "INFO", "ECHO", "SELECT", "SCRIPT", "MONITOR"})
_END: Final = "the end of the count"


class Monitor(ABC):
    """Hears of every command that a client sends to a Redis server meanwhile; what scripts do inside is none."""

    def __init__(self, url: str) -> None:
        self._url = url

    @abstractmethod
    def note(self, database: int, words: list[str]) -> None:
        """Take note of a command: its name, in capitals, and its arguments."""

    def __enter__(self) -> Self:
        self._client: Any = redis.Redis.from_url(self._url)
        self._monitor: Any = self._client.monitor()  # type: ignore[no-untyped-call]
        self._monitor.__enter__()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.echo(_END)
        self._thread.join()
        self._monitor.__exit__(kind, error, traceback)
        self._client.close()

    def _listen(self) -> None:
        for said in self._monitor.listen():
            name, *words = said["command"].split(" ")
            if _END in said["command"]:
                return
            if said["client_type"] != "lua":
                self.note(said["db"], [name.upper(), *words])


class RedisCount(Monitor):
    """Counts commands by what they are for: `store` (by the scripts' names), `raw`, `results`, `events`, `broker`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._names = {script(name).sha: name for name in _script_names()}
        self.counted: dict[str, Counter[str]] = {
            kind: Counter() for kind in ("store", "raw", "results", "events", "broker")
        }

    def note(self, database: int, words: list[str]) -> None:
        name = words[0]
        if name == "EVALSHA":
            called = self._names.get(words[1])
            if called is None:
                self.counted["raw"][name] += 1
            elif called not in AT_REST:
                self.counted["store"][called] += 1
        elif name not in _NO_WORK and database != STAMPS:
            about = " ".join(words[1:3])
            if database == STORE_DATABASE:
                kind = "store"
            else:
                kind = "results" if "celery-task-meta-" in about else "events" if ".celeryev" in about else "broker"
            self.counted[kind][name] += 1


class CommandCount(Monitor):
    """Counts all commands that do something for a store."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.counted: Counter[str] = Counter()

    def note(self, database: int, words: list[str]) -> None:
        del database
        if words[0] not in _NO_WORK:
            self.counted[words[0]] += 1


def _script_names() -> list[str]:
    """Return the names of the scripts that are called; shared parts are among them, and harmless."""
    folder = files("agent_statestore.redis") / "scripts"
    return [PurePath(each.name).stem for each in folder.iterdir() if each.name.endswith(".lua")]


class Commits:
    """Counts the transactions of a PostgreSQL server that write: each is a commit that waits for the disk."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def so_far(self) -> int:
        """Return how many there were, give or take a constant; asking is one itself."""
        row = self._connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert row is not None
        return int(row[0])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
