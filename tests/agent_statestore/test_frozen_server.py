"""A server that is frozen, so that its kernel takes statements which it never answers."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent_statestore import Checkpoint, StoreUnavailable, UnsupportedURL, open_store
from agent_statestore.sql import SQLStore
from agent_statestore.sql.settings import parse_url
from agent_statestore.testing.kit.builders import claimed, done
from tests.services.process import ServerProcess


@pytest.fixture(params=["postgresql_server", "mariadb_server"])
def server(request: pytest.FixtureRequest) -> ServerProcess:
    server: ServerProcess = request.getfixturevalue(request.param)
    return server


def at(server: Any, **options: Any) -> str:
    extra = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{server.url}{'&' if '?' in server.url else '?'}{extra}"


@pytest.fixture
def store(server: ServerProcess) -> Iterator[SQLStore]:
    store = open_store(at(server, answer_timeout_ms=500))
    assert isinstance(store, SQLStore)
    with store:
        store.migrate()
        yield store


def test_a_frozen_server_is_unavailable_and_the_write_can_be_repeated(store: SQLStore, server: ServerProcess) -> None:
    execution_id, lease = claimed(store)
    change = Checkpoint(steps=(done(1),))
    with server.frozen():
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.checkpoint(execution_id, change, lease)
        assert time.monotonic() - started < 20
    store.checkpoint(execution_id, change, lease)
    assert len(store.get_steps(execution_id)) == 1


def test_the_answer_that_came_too_late_is_not_taken_for_another_one(store: SQLStore, server: ServerProcess) -> None:
    one, other = store.create_context("one").execution_id, store.create_context("other").execution_id
    with server.frozen(), pytest.raises(StoreUnavailable):
        store.get_context(one)
    for execution_id, agent in ((other, "other"), (one, "one")) * 3:
        context = store.get_context(execution_id)
        assert context is not None
        assert context.agent_id == agent


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5"])
def test_a_timeout_must_be_a_positive_number(value: str) -> None:
    with pytest.raises(UnsupportedURL, match="answer_timeout_ms"):
        parse_url(f"postgresql://localhost/db?answer_timeout_ms={value}")
