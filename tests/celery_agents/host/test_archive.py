"""The settings of the archive and of retention, and what workers do with them."""

import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from agent_statestore import AgentState, IdempotencyConflict, ManualClock, StoreUnavailable, open_store
from agent_statestore.hybrid import HybridStore
from agent_statestore.moving.retention import Retention
from celery_agents import Agent, Registry, Run, agent, enqueue, install
from celery_agents.errors import ConfigurationError
from celery_agents.host.owner import this_process
from celery_agents.host.recovery import housekeeper as housekeeping
from celery_agents.host.recovery.housekeeper import Housekeeper
from celery_agents.host.recovery.sweeper import Sweeper
from celery_agents.host.runtime import Runtime, runtime_of
from celery_agents.settings import Settings
from tests.celery_agents.client.test_client import published


def one_step(run: Run, input: Any) -> Any:
    return run.step("one", lambda: input)


def made(store_url: str, **configuration: Any) -> Runtime:
    app = Celery("theirs", broker="memory://", set_as_current=False)
    app.conf.update(agents_store_url=store_url, **configuration)
    return runtime_of(install(app, registry=Registry()))


@pytest.fixture
def simple(runtime: Runtime) -> Agent:
    return agent(registry=runtime.registry)(one_step)


# -- settings ----------------------------------------------------------------------------------------------------------


def test_an_archive_stands_behind_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTS_ARCHIVE_URL", f"sqlite:///{tmp_path}/cold.db")
    monkeypatch.setenv("AGENTS_ARCHIVE_AFTER_SECONDS", "3600")
    store = made(f"sqlite:///{tmp_path}/hot.db", agents_max_value_bytes=5000).store
    assert isinstance(store, HybridStore)
    assert store.url == f"hybrid of sqlite:///{tmp_path}/hot.db over sqlite:///{tmp_path}/cold.db"
    assert store.archive_after == timedelta(hours=1)
    assert store.cold.max_value_bytes == 5000
    store.close()


def test_the_archive_may_be_other_tables_of_the_same_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    store = made(url, agents_archive_url=f"{url}?table_prefix=old_").store
    assert isinstance(store, HybridStore)
    execution_id = store.create_context("agent").execution_id
    store.update_state(execution_id, AgentState.COMPLETED)
    give_up_at = time.monotonic() + 10
    while store.hot.get_summary(execution_id) is not None:  # archived in the background
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    assert store.cold.get_summary(execution_id) is not None
    store.close()


def test_an_empty_archive_url_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTS_ARCHIVE_URL", "")
    assert not isinstance(made("memory://").store, HybridStore)


def test_two_archives_are_refused() -> None:
    runtime = made("hybrid:///?hot=memory://&cold=memory://", agents_archive_url="memory://")
    with pytest.raises(ConfigurationError, match="agents_archive_url"):
        _ = runtime.store


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention", "completed=30d,faild=9d"),
        ("retention", "completed=30"),
        ("archive_after_seconds", "-1"),
        ("archive_after_seconds", "7d"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_and_part(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"agents_{name}") as refused:
        Settings.load({}, {f"AGENTS_{name.upper()}": value})
    assert value.rpartition(",")[2] in str(refused.value)


def test_a_wrong_retention_is_shown_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.load({}, {"AGENTS_RETENTION": "completed=30days"})
    assert str(refused.value).count("completed=30days") == 1
    assert "Value error" not in str(refused.value)


def test_a_delay_without_an_archive_is_refused() -> None:
    for url in ("memory://", "hybrid:///?hot=memory://&cold=memory://"):
        with pytest.raises(ConfigurationError, match="agents_archive_after_seconds"):
            _ = made(url, agents_archive_after_seconds=60).store


def test_retention_is_read() -> None:
    settings = Settings.load({}, {"AGENTS_RETENTION": "completed=30d,deleted=12h"})
    assert settings.kept_for == Retention(completed=timedelta(days=30), deleted=timedelta(hours=12))
    assert not Settings.load({}, {}).kept_for


# -- workers -----------------------------------------------------------------------------------------------------------


def archived(runtime: Runtime, tmp_path: Path, **options: Any) -> HybridStore:
    """Puts an archive behind the runtime's store."""
    store = HybridStore(runtime.store, open_store(f"sqlite:///{tmp_path}/cold.db"), **options)
    runtime._store = store
    return store


def test_an_execution_is_archived_once_its_end_is_announced(runtime: Runtime, simple: Agent, tmp_path: Path) -> None:
    store = archived(runtime, tmp_path)
    execution = enqueue(simple, 1, runtime=runtime, idempotency_key="key")
    runtime.executor.execute(execution.id, this_process())
    assert store.cold.get_summary(execution.id) is None
    store.settle(execution.id)  # as the task does after the announcement
    assert store.hot.get_summary(execution.id) is None
    assert execution.context().output == 1
    assert execution.cancel() is False
    assert enqueue(simple, 1, runtime=runtime, idempotency_key="key").id == execution.id
    with pytest.raises(IdempotencyConflict):
        enqueue(simple, 2, runtime=runtime, idempotency_key="key")
    published(runtime)


def test_every_round_of_the_housekeeper_archives_what_was_missed(
    runtime: Runtime, simple: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = archived(runtime, tmp_path)
    execution = enqueue(simple, 1, runtime=runtime)
    runtime.executor.execute(execution.id, this_process())
    store.hot.settle(execution.id)
    Housekeeper(runtime).keep_house()
    assert store.hot.get_summary(execution.id) is None
    assert execution.state is AgentState.COMPLETED
    published(runtime)


def test_an_archived_dead_letter_can_be_released_and_goes_on(runtime: Runtime, tmp_path: Path) -> None:
    store = archived(runtime, tmp_path)
    calls: list[int] = []

    def flaky(run: Run, input: None) -> int:
        run.step("once", lambda: calls.append(1))
        if not calls[1:]:
            calls.append(2)
            raise LookupError
        return len(calls)

    execution = enqueue(agent(registry=runtime.registry)(flaky), runtime=runtime)
    runtime.executor.execute(execution.id, this_process())
    store.settle(execution.id)
    assert store.hot.get_summary(execution.id) is None
    store.requeue(execution.id)
    runtime.executor.execute(execution.id, this_process())
    store.settle(execution.id)
    assert (execution.state, execution.context().output, calls) == (AgentState.COMPLETED, 2, [1, 2])
    published(runtime)


def kept_for(runtime: Runtime, retention: str) -> ManualClock:
    """Sets the retention; returns the clock that the runtime's store is now on, at this moment."""
    clock = ManualClock(datetime.now(UTC))
    runtime._settings = runtime.settings.model_copy(update={"retention": retention})
    runtime._store = open_store(runtime.settings.store_url, clock=clock)
    return clock


def ended(runtime: Runtime) -> str:
    execution_id = runtime.store.create_context("agent").execution_id
    runtime.store.update_state(execution_id, AgentState.COMPLETED)
    return execution_id


def test_the_housekeeper_purges_what_was_kept_for_long_enough_at_most_once_a_minute(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = kept_for(runtime, "completed=1d")
    clock.advance(timedelta(days=-2))
    old = ended(runtime)
    clock.advance(timedelta(days=2))
    young = ended(runtime)
    housekeeper = Housekeeper(runtime)
    assert housekeeper.keep_house().purged == 1
    assert (runtime.store.get_summary(old), runtime.store.get_summary(young) is None) == (None, False)
    assert "kept for long enough: 1" in caplog.text
    clock.advance(timedelta(days=-2))
    ended(runtime)
    assert housekeeper.keep_house().purged == 0
    monkeypatch.setattr(housekeeping, "_PURGE_EVERY_SECONDS", 0)
    assert housekeeper.keep_house().purged == 1


def test_without_a_retention_nothing_is_purged(runtime: Runtime) -> None:
    clock = kept_for(runtime, "")
    clock.advance(timedelta(days=-9999))
    execution_id = ended(runtime)
    assert Housekeeper(runtime).keep_house().purged == 0
    assert runtime.store.get_summary(execution_id) is not None


def test_many_are_purged_in_small_batches(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "_PURGE_BATCH", 2)
    clock = kept_for(runtime, "completed=1d")
    clock.advance(timedelta(days=-2))
    for _ in range(5):
        ended(runtime)
    assert Housekeeper(runtime).keep_house().purged == 5
    for _ in range(5):
        ended(runtime)
    monkeypatch.setattr(housekeeping, "_PURGE_SECONDS", 0)
    assert Housekeeper(runtime).keep_house().purged == 0  # no time for even one batch


def test_a_purge_that_fails_stops_nothing_else(
    runtime: Runtime, simple: Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = kept_for(runtime, "completed=1d")

    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("x://", "gone")

    monkeypatch.setattr(runtime.store, "find_ended", away)
    runtime.store.create_context(simple.name, 1)
    clock.advance(timedelta(minutes=1))
    housekeeper = Housekeeper(runtime)
    assert housekeeper.keep_house().purged == 0
    assert "purging failed" in caplog.text
    assert Sweeper(runtime).sweep().rung == 1
    published(runtime)
