"""The pool of PostgreSQL's connections, and what signals do to it: a time limit's exception comes at any moment."""

import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from agent_statestore import Checkpoint, StoreUnavailable, UnsupportedURL
from agent_statestore.sql import SQLStore
from agent_statestore.sql.postgresql import connections as module
from agent_statestore.sql.settings import parse_url
from agent_statestore.testing.kit.builders import claimed, done


class TimeIsUp(Exception):
    """What the signal's handler raises."""


@pytest.fixture
def store(postgresql_migrated_url: str) -> Iterator[SQLStore]:
    with SQLStore(f"{postgresql_migrated_url}?pool_size=2&max_overflow=1") as store:
        yield store


def pool_of(store: SQLStore) -> module.PostgreSQLPool:
    pool = store._database._pool  # type: ignore[attr-defined]
    assert isinstance(pool, module.PostgreSQLPool)
    return pool


@contextmanager
def time_limits() -> Iterator[list[bool]]:
    """SIGALRM raises while the list says so."""
    armed = [False]

    def handle(*_: Any) -> None:
        if armed[0]:
            raise TimeIsUp

    before = signal.signal(signal.SIGALRM, handle)
    try:
        yield armed
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_connection_in_the_middle_of_a_statement_is_not_used_again(
    store: SQLStore, postgresql_migrated_url: str
) -> None:
    execution_id, lease = claimed(store)
    other = store.create_context("other").execution_id
    url = postgresql_migrated_url.replace("+psycopg", "")
    with psycopg.connect(url) as blocking, time_limits() as armed:
        blocking.execute("SELECT 1 FROM agent_contexts WHERE execution_id = %s FOR UPDATE", (execution_id,))
        armed[0] = True
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(TimeIsUp):
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        armed[0] = False
        summary = store.get_summary(other)  # at once, on another connection
        assert summary is not None
        assert summary.agent_id == "other"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # inside a destructor
def test_interrupted_calls_do_not_close_the_pool(postgresql_migrated_url: str) -> None:
    """With a semaphore in the place of its queue, one of some hundred left it locked."""
    with SQLStore(f"{postgresql_migrated_url}?max_overflow=50") as store, time_limits() as armed:
        execution_id = store.create_context("a").execution_id
        interrupted = 0
        while interrupted < 300:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 4e-4))
            try:
                armed[0] = True
                try:
                    store.get_summary(execution_id)
                except StoreUnavailable:
                    pass  # the driver took the exception for an error of its own
                finally:
                    armed[0] = False
            except TimeIsUp:
                interrupted += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert pool_of(store)._home.free.qsize() > 40
        assert store.get_summary(execution_id) is not None


def test_who_finds_all_taken_waits_and_is_told(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    execution_id = store.create_context("a").execution_id
    pool = pool_of(store)
    monkeypatch.setattr(module, "_WAIT_SECONDS", 0.2)
    with pool.take(), pool.take(), pool.take(), pytest.raises(StoreUnavailable, match="no connection of the pool"):
        store.get_summary(execution_id)
    monkeypatch.setattr(module, "_WAIT_SECONDS", 30.0)
    with pool.take(), pool.take():
        third = pool.take()
        threading.Timer(0.2, third.__exit__).start()
        assert store.get_summary(execution_id) is not None
    assert pool._home.free.qsize() == 3
    assert len(pool._home.idle) == 2


def test_a_pool_that_allows_no_connection_is_refused() -> None:
    with pytest.raises(UnsupportedURL, match="no connection"):
        parse_url("postgresql://localhost/db?pool_size=0&max_overflow=0")
