"""Enqueueing together with a transaction of the application: both happen, or neither."""

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.db import transaction

from agent_statestore.errors import (
    ExecutionIdTaken,
    ExecutionNotFound,
    ForeignConnection,
    InvalidRecord,
    StoreUnavailable,
)
from agent_statestore.states import AgentState
from celery_agents import Registry, agent, current, install
from celery_agents.client.execution import Execution
from celery_agents.errors import InvalidInput
from celery_agents.host.runtime import Runtime, runtime_of
from tests.services.callers import DjangoApp, Rollback, apps_on

registry = Registry()


@agent(registry=registry)
def ship(run: Any, input: int) -> None:
    """Never executed here."""


@agent(registry=registry, session_policy="reject")
def exclusive(run: Any, input: int) -> None:
    """Never executed here."""


@pytest.fixture(params=["sqlite", "postgresql"])
def their(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    """An installation whose store is in the database of the application."""
    url = f"sqlite:///{tmp_path}/theirs.db?busy_timeout_ms=300"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_migrated_url")
    with _installed(url) as runtime:
        yield runtime


@contextmanager
def _installed(url: str) -> Iterator[Runtime]:
    app = Celery("theirs", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = f"queue-{uuid.uuid4().hex}"
    app.conf.agents_store_url = url
    install(app, registry=registry)
    runtime = runtime_of(app)
    runtime.store.check()  # on SQLite, the tables cannot be made while the application writes
    yield runtime
    runtime.store.close()
    app.close()


def _bells(runtime: Runtime) -> list[str]:
    """The executions whose bells wait in the queue, which is empty after that."""
    found = []
    with runtime.app.connection_for_read() as connection, connection.channel() as channel:
        while (message := channel.basic_get(runtime.app.conf.task_default_queue, no_ack=True)) is not None:
            found.append(message.headers["id"])
    return found


def _url(runtime: Runtime) -> str:
    return runtime.settings.store_url


def _is_there(execution: Execution) -> bool:
    try:
        return execution.state is AgentState.IDLE
    except ExecutionNotFound:
        return False


def test_both_ways_share_the_fate_of_the_transaction(their: Runtime) -> None:
    enqueue = partial(current.enqueue, ship, runtime=their)
    with apps_on(_url(their)) as apps:
        for name, app in apps.items():
            ways: dict[str, Callable[[Any], dict[str, Any]]] = {
                "connection=": lambda one: {"connection": one},
                "on_commit=": lambda one: {"on_commit": one},
            }
            if isinstance(app, DjangoApp):
                registrar = partial(transaction.on_commit, using=app.alias)
                ways["on_commit=function"] = lambda _, registrar=registrar: {"on_commit": registrar}  # type: ignore[misc]
            for way, given in ways.items():
                case = (name, way)
                with app.transaction() as connection:
                    app.write(connection, "lost")
                    lost = enqueue(1, **given(connection))
                    assert uuid.UUID(lost.id), case
                    raise Rollback
                assert (_is_there(lost), _bells(their)) == (False, []), case
                with app.transaction() as connection:
                    app.write(connection, "kept")
                    kept = enqueue(2, **given(connection))
                    assert (_is_there(kept), _bells(their)) == (False, []), case
                assert (_is_there(kept), _bells(their)) == (True, [kept.id]), case
                assert kept.context().input == 2, case
                rung_for = kept.summary().due_at - kept.summary().created_at  # type: ignore[operator]
                assert rung_for > timedelta(seconds=10), case  # it was noted that the bell was rung
        assert len(their.store.find().items) == 2 * len(apps) + 1


def test_with_any_store_it_is_stored_after_the_commit(tmp_path: Path) -> None:
    with _installed("memory://") as runtime, apps_on(f"sqlite:///{tmp_path}/theirs.db") as apps:
        for name, app in apps.items():
            chosen = str(uuid.uuid4())
            with app.transaction() as connection:
                app.write(connection, "order")
                with pytest.raises(ForeignConnection) as refused:
                    current.enqueue(ship, 1, connection=connection, runtime=runtime)
                assert "on_commit" in str(refused.value), name
                made = current.enqueue(ship, 1, on_commit=connection, execution_id=chosen, runtime=runtime)
                assert made.id == chosen, name
                assert not _is_there(made), name
            assert (_is_there(made), _bells(runtime)) == (True, [chosen]), name


def test_a_bell_that_never_came_is_due_within_a_second(their: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the death of the process between the commit and the bell."""
    monkeypatch.setattr(Runtime, "ring", lambda *_: None)
    with apps_on(_url(their)) as apps:
        for name, app in apps.items():
            for way in ("connection", "on_commit"):
                with app.transaction() as connection:
                    made = current.enqueue(ship, 1, runtime=their, **{way: connection})
                summary = made.summary()
                assert summary.due_at is not None
                assert summary.due_at - summary.created_at <= timedelta(seconds=1), (name, way)


def test_a_store_that_goes_away_before_the_bell_is_noted_does_not_make_the_commit_look_undone(
    their: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def mark_rung(*_: Any) -> None:
        raise StoreUnavailable(their.store.url, "it is away")

    monkeypatch.setattr(their.store, "mark_rung", mark_rung)
    with apps_on(_url(their)) as apps:
        for name, app in apps.items():
            for way in ("connection", "on_commit"):
                caplog.clear()
                with app.transaction() as connection:
                    app.write(connection, "order")
                    made = current.enqueue(ship, 1, runtime=their, **{way: connection})
                assert _is_there(made), (name, way)
                assert f"execution {made.id}: a sweeper rings its bell once more" in caplog.text, (name, way)


def test_outside_of_atomic_django_commits_at_once(their: Runtime) -> None:
    with apps_on(_url(their)) as apps:
        app = apps["django"]
        for way in ("connection", "on_commit"):
            made = current.enqueue(ship, 1, runtime=their, **{way: app.connection})
            assert (_is_there(made), _bells(their)) == (True, [made.id]), way


def test_what_cannot_be_known_before_the_commit_is_refused_with_nothing_stored(
    their: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    enqueue = partial(current.enqueue, runtime=their)
    with apps_on(_url(their)) as apps:
        app = apps["connection"]
        with app.transaction() as connection:
            refused: list[tuple[Any, type[Exception], str, dict[str, Any]]] = [
                (ship, InvalidRecord, "not both", {"connection": connection, "on_commit": connection}),
                (ship, InvalidRecord, "the id is known at once", {"on_commit": connection, "idempotency_key": "key"}),
                (ship, InvalidRecord, "a function that calls a function", {"on_commit": "after"}),
                (ship, InvalidRecord, "execution_id", {"execution_id": "order-7"}),
                (exclusive, InvalidRecord, "enqueue it then", {"connection": connection, "session_id": "s"}),
                (exclusive, InvalidRecord, "enqueue it then", {"on_commit": connection, "session_id": "s"}),
                (ship, ForeignConnection, "it needs a Connection or Session", {"connection": "postgresql://"}),
            ]
            for kind, error, words, options in refused:
                with pytest.raises(error, match=words):
                    enqueue(kind, 1, **options)
            with pytest.raises(InvalidInput):
                enqueue(ship, "one", connection=connection)
            enqueue(exclusive, 1, connection=connection)  # without a session there is nothing to reject
        _bells(their)
        assert len(their.store.find().items) == 1

        # After the commit nobody can be told of an error but the log.
        taken = enqueue(ship, 1)
        with caplog.at_level(logging.ERROR), app.transaction() as connection:
            enqueue(ship, 2, on_commit=connection, execution_id=taken.id)
        assert any(isinstance(one.exc_info and one.exc_info[1], ExecutionIdTaken) for one in caplog.records)


def test_a_chosen_id_makes_a_repetition_harmless_also_where_sessions_reject(their: Runtime) -> None:
    chosen = str(uuid.uuid4())
    for kind in (ship, exclusive):
        chosen = str(uuid.uuid4())
        first = current.enqueue(kind, 1, session_id="s", execution_id=chosen, runtime=their)
        assert current.enqueue(kind, 1, session_id="s", execution_id=chosen, runtime=their) == first
        with pytest.raises(ExecutionIdTaken):
            current.enqueue(kind, 2, session_id="s", execution_id=chosen, runtime=their)
