"""Erasure reaches what Celery's result backend keeps of an execution, and every file of the embedded defaults."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from agent_statestore import ManualClock, open_store
from celery_agents import Registry, Run, agent, enqueue
from celery_agents.celery import make_app
from celery_agents.client.execution import Execution
from celery_agents.errors import ResultBackendUnavailable
from celery_agents.host import announcing
from celery_agents.host.owner import this_process
from celery_agents.host.recovery.housekeeper import Housekeeper
from celery_agents.host.runtime import Runtime, runtime_of
from celery_agents.lifecycle import delete
from celery_agents.lifecycle.decider import Decider
from tests.celery_agents.cli.cli_driving import CLI

SECRET = "4111-1111-1111-1111"


def secretive(run: Run, input: int) -> str:
    return SECRET


def ended(runtime: Runtime) -> Execution:
    """An execution that is completed and announced."""
    known = runtime.registry.find("secretive")
    execution = enqueue(known or agent(registry=runtime.registry)(secretive), 1, runtime=runtime)
    runtime.executor.execute(execution.id, this_process())
    runtime.app.backend.mark_as_done(execution.id, execution.context().output)
    runtime.store.settle(execution.id)
    assert runtime.app.AsyncResult(execution.id).get() == SECRET
    return execution


def keep_house(runtime: Runtime, _: Execution) -> None:
    runtime._settings = runtime.settings.model_copy(update={"retention": "completed=1d,deleted=1d"})
    assert Housekeeper(runtime).keep_house().purged == 1


def delete_in_the_store_and_keep_house(runtime: Runtime, execution: Execution) -> None:
    runtime.store.delete_context(execution.id)
    keep_house(runtime, execution)


def delete_in_the_store_and_purge(runtime: Runtime, execution: Execution) -> None:
    runtime.store.delete_context(execution.id)
    command("purge", "--older-than", "1h", "--deleted")(runtime, execution)


def command(*words: str) -> Callable[[Runtime, Execution], None]:
    def run(runtime: Runtime, execution: Execution) -> None:
        result = CLI(runtime.app)(*(execution.id if word == "ID" else word for word in words), "--yes")
        assert result.exit_code == 0, result.output

    return run


REMOVALS: dict[str, Callable[[Runtime, Execution], Any]] = {
    "Execution.delete": lambda _, execution: execution.delete(),
    "AsyncExecution.delete": lambda _, execution: asyncio.run(execution.aio.delete()),
    "a purge of one": lambda runtime, execution: delete.purge(runtime, execution.id, by=Decider()),
    "agents delete": command("delete", "ID"),
    "agents purge ID": command("purge", "ID"),
    "agents purge by age": command("purge", "--older-than", "1h", "--state", "completed"),
    "agents purge of deleted ones": delete_in_the_store_and_purge,
    "retention": keep_house,
    "retention of deleted ones": delete_in_the_store_and_keep_house,
}


@pytest.fixture
def two_days_ago(runtime: Runtime) -> Runtime:
    """An installation whose store's clock is behind."""
    clock = ManualClock(datetime.now(UTC) - timedelta(days=2))
    runtime._store = open_store(runtime.settings.store_url, clock=clock)
    return runtime


@pytest.mark.parametrize("removal", REMOVALS)
def test_the_result_goes_with_the_execution(two_days_ago: Runtime, removal: str) -> None:
    execution, results = ended(two_days_ago), two_days_ago.app.backend
    REMOVALS[removal](two_days_ago, execution)
    assert two_days_ago.store.get_summary(execution.id) is None
    assert results.get_state(execution.id) == "PENDING"


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_result_backend_that_is_away_keeps_the_execution(
    two_days_ago: Runtime, removal: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise nobody would know any more of which results there are."""
    execution = ended(two_days_ago)

    def away(*_: Any) -> None:
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(type(two_days_ago.app.backend), "_forget", away)  # each thread has a backend of its own
    said = ""
    try:
        REMOVALS[removal](two_days_ago, execution)
    except (ResultBackendUnavailable, AssertionError) as error:
        said = str(error)
    assert "the result backend: ConnectionRefusedError: nobody listens" in said + caplog.text
    *_, last = two_days_ago.store.get_audit(execution.id)
    assert last.event.value == "deleted" if "deleted" in removal else two_days_ago.store.get_summary(execution.id)

    monkeypatch.undo()
    REMOVALS[removal](two_days_ago, execution)
    assert two_days_ago.app.backend.get_state(execution.id) == "PENDING"


def test_the_result_of_a_task_that_is_no_execution_stays(runtime: Runtime) -> None:
    """Its id may be given by mistake: the result backend holds those of all tasks of the project."""
    runtime.app.backend.mark_as_done("theirs", "their result")
    assert not Execution("theirs", runtime).delete()
    assert not delete.purge(runtime, "theirs", by=Decider())
    assert runtime.app.AsyncResult("theirs").get() == "their result"


def test_a_purge_of_one_that_the_store_alone_deleted_removes_its_result(runtime: Runtime) -> None:
    execution = ended(runtime)
    runtime.store.delete_context(execution.id)
    assert delete.purge(runtime, execution.id, by=Decider())
    assert runtime.app.backend.get_state(execution.id) == "PENDING"


def test_without_a_result_backend_there_is_nothing_to_forget(runtime: Runtime) -> None:
    execution = ended(runtime)
    runtime.app.conf.result_backend = "disabled://"
    runtime.app._backend_cache = None
    runtime.app._local.__dict__.pop("backend", None)
    with pytest.raises(NotImplementedError):
        runtime.app.backend.get_state(execution.id)
    assert delete.purge(runtime, execution.id, by=Decider())


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """The ready-made app on its files, with an archive that takes at once what is over."""
    monkeypatch.setenv("AGENTS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AGENTS_ARCHIVE_URL", f"sqlite:///{tmp_path}/home/archive.db")
    app = make_app()
    runtime = runtime_of(app)
    runtime.registry = Registry()
    yield runtime
    runtime.store.close()
    app.close()


def test_no_file_of_the_embedded_defaults_keeps_what_is_purged(embedded: Runtime, tmp_path: Path) -> None:
    execution, kept = ended(embedded), ended(embedded)
    assert delete.purge(embedded, execution.id, by=Decider())
    assert kept.context().output == SECRET
    assert delete.purge(embedded, kept.id, by=Decider())
    embedded.store.close()
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"executions.db", "archive.db", "results.db"}
    assert [path.name for path in files if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery
def test_no_key_of_redis_keeps_what_is_purged(
    redis_url: str, redis_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AGENTS_RESULT_BACKEND", redis_url)
    monkeypatch.setenv("AGENTS_STORE_URL", f"{redis_url}?key_prefix={redis_prefix}")
    app = make_app()
    runtime = runtime_of(app)
    runtime.registry = Registry()
    with redis.Redis.from_url(redis_url) as raw:
        execution = ended(runtime)
        assert raw.exists(f"celery-task-meta-{execution.id}")
        assert delete.purge(runtime, execution.id, by=Decider())
        assert [key for key in raw.scan_iter("*") if execution.id.encode() in key] == []
    runtime.store.close()
    app.close()


def test_the_housekeeper_tells_that_results_stay(
    two_days_ago: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    execution = ended(two_days_ago)
    forget = announcing.forget
    monkeypatch.setattr(announcing, "forget", lambda *_: (_ for _ in ()).throw(ResultBackendUnavailable("gone")))
    two_days_ago._settings = two_days_ago.settings.model_copy(update={"retention": "completed=1d"})
    housekeeper = Housekeeper(two_days_ago)
    assert housekeeper.keep_house().purged == 0
    assert "purging" in caplog.text
    assert "the result backend: gone" in caplog.text
    monkeypatch.setattr(announcing, "forget", forget)
    housekeeper._purged_at = -1e9
    assert housekeeper.keep_house().purged == 1
    assert two_days_ago.store.get_summary(execution.id) is None
