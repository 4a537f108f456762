"""What the tests of the hybrid store share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import (
    AgentState,
    ManualClock,
    Store,
    StoreUnavailable,
    open_store,
)
from agent_statestore.hybrid import HybridStore
from agent_statestore.query import Query
from agent_statestore.testing.contract.removing import filled
from agent_statestore.testing.kit.builders import (
    move,
)

HOUR = timedelta(hours=1)

KINDS = ["memory", pytest.param("sqlite", marks=pytest.mark.full), "servers"]


@contextmanager
def hybrid_of(kind: str, request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[HybridStore]:
    """Memory over memory, SQLite over SQLite, or Redis over PostgreSQL. Nothing archived stays in the hot store."""
    hot = cold = "memory://"
    if kind == "sqlite":
        folder = request.getfixturevalue("tmp_path")
        hot, cold = f"sqlite:///{folder}/hot.db", f"sqlite:///{folder}/cold.db"
    elif kind == "servers":
        prefix = request.getfixturevalue("redis_prefix")
        hot = f"{request.getfixturevalue('redis_url')}?key_prefix={prefix}&completed_ttl=none&failed_ttl=none"
        cold = request.getfixturevalue("postgresql_migrated_url")
    with HybridStore(open_store(hot, clock=clock), open_store(cold, clock=clock)) as store:
        yield store
        store.clear()


def digest_of(store: Store, execution_id: str) -> str:
    exported = store.export(execution_id)
    assert exported is not None
    return exported.digest


def where(store: HybridStore, execution_id: str) -> list[str]:
    """Which of the two stores have it."""
    parts = {"hot": store.hot, "cold": store.cold}
    return [name for name, part in parts.items() if part.get_summary(execution_id) is not None]


def ended(store: Store, state: AgentState = AgentState.COMPLETED, **fields: Any) -> str:
    """An execution with something in every part that is over and settled."""
    execution_id = filled(store, **fields)
    (lease,) = [lease for lease in store.find_leases("") if lease.execution_id == execution_id]
    move(store, execution_id, state, lease)
    return execution_id


def found(store: Store, **filters: Any) -> list[str]:
    return [item.execution_id for item in store.find(Query(**filters)).items]


def away(*_: Any, **__: Any) -> Any:
    raise StoreUnavailable("cold://", "gone")


class Reached(Exception):
    """The process would have died here."""


def die(*_: Any, **__: Any) -> Any:
    raise Reached


def take_away(patch: pytest.MonkeyPatch, store: HybridStore) -> list[str]:
    """The cold store answers no more; returns the list of what it is asked."""
    asked: list[str] = []

    def unavailable(name: str) -> Callable[..., Any]:
        def call(*_: Any, **__: Any) -> Any:
            asked.append(name)
            raise StoreUnavailable("cold://", "gone")

        return call

    for name in dir(Store):
        if not name.startswith("_") and callable(getattr(store.cold, name)):
            patch.setattr(store.cold, name, unavailable(name))
    return asked
