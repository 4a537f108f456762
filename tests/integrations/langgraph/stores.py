"""The stores that threads of graphs are kept in."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pytest

from agent_statestore import Store, open_store
from agent_statestore.sql import SQLStore
from tests.services.mariadb import fresh_mariadb_database

ON_EVERY_COMMIT: Final = ("memory", "sqlite")
ELSEWHERE: Final = ("postgresql", "mariadb", "redis", "cluster")
CELLS: Final = [
    *ON_EVERY_COMMIT,
    *(pytest.param(name, marks=pytest.mark.full) for name in ELSEWHERE),
]
_ROUND_TRIPS: Final = ("apply", "read", "read_range", "remove_range")


@contextmanager
def store_of(name: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Store]:
    """A store of a test's own."""
    with _url(name, request, folder) as url, open_store(url) as store:
        if isinstance(store, SQLStore):
            store.migrate()
        yield store
        store.clear()


@contextmanager
def _url(name: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if name == "memory":
        yield "memory://"
    elif name == "sqlite":
        yield f"sqlite:///{folder}/agents.db"
    elif name == "postgresql":
        yield request.getfixturevalue("postgresql_migrated_url")
    elif name == "mariadb":
        with fresh_mariadb_database(request.getfixturevalue("mariadb_url")) as url:
            yield url
    else:
        server = request.getfixturevalue("redis_url" if name == "redis" else "redis_cluster_url")
        yield f"{server}?key_prefix={request.getfixturevalue('redis_prefix')}"


@contextmanager
def counted(store: Store) -> Iterator[Counter[str]]:
    """Count the round trips to the documents of a store within the block, by their kind."""
    trips: Counter[str] = Counter()
    documents = store.documents

    def counting(name: str) -> Any:
        method = getattr(documents, name)

        def call(_: Any, *args: Any, **kwargs: Any) -> Any:
            trips[name] += 1
            return method(*args, **kwargs)

        return call

    with ExitStack() as patches:
        for name in _ROUND_TRIPS:
            patches.enter_context(patch.object(type(documents), name, counting(name)))
        yield trips
