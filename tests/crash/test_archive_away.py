"""The archive is away for a while: executions go on in the hot store, and everything is archived in the end."""

from datetime import UTC, datetime
from typing import Any

import pytest

from agent_statestore.hybrid import HybridStore
from tests.crash.outages import check_log, survive_outages
from tests.crash.scene import Cell, Scene
from tests.crash.stores import migrated
from tests.services.postgresql import PostgresServer
from tests.services.redis import RedisServer

COMPLETED_MEANWHILE = 15


@pytest.fixture
def cell() -> Cell:
    return Cell("embedded", "redis", "prefork")


@pytest.fixture
def store_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture
def settings(settings: dict[str, Any], postgresql_server: PostgresServer) -> dict[str, Any]:
    """With an archive whose client would wait for an answer for longer than any test does."""
    return settings | {"archive_url": f"{migrated(postgresql_server.url)}?answer_timeout_ms=600000"}


@pytest.mark.worker(lease_seconds=8.0, imports=["tests.crash.quick_archive"])
def test_executions_complete_while_the_archive_is_dead(scene: Scene, postgresql_server: PostgresServer) -> None:
    def away() -> None:
        postgresql_server.kill()
        wait_for_ends(scene)
        postgresql_server.start()

    survive_without_the_archive(scene, away)
    for worker in scene.workers:
        check_log(worker, outages=1)


@pytest.mark.worker(lease_seconds=8.0, imports=["tests.crash.quick_archive"])
def test_executions_complete_while_the_archive_hangs(scene: Scene, postgresql_server: PostgresServer) -> None:
    survive_without_the_archive(scene, lambda: hang(scene, postgresql_server))
    for worker in scene.workers:
        assert "Traceback" not in worker.logs()


@pytest.mark.worker(sabotage="no_background_archiving", lease_seconds=8.0)
def test_they_would_not_without_a_thread_for_it(scene: Scene, postgresql_server: PostgresServer) -> None:
    with pytest.raises(AssertionError, match="end without the archive"):
        survive_without_the_archive(scene, lambda: hang(scene.with_patience(5.0), postgresql_server))


def hang(scene: Scene, archive: PostgresServer) -> None:
    with archive.frozen():
        wait_for_ends(scene)


def waiting_for_the_archive(scene: Scene) -> int:
    store = scene.runtime.store
    assert isinstance(store, HybridStore)
    return len(store.hot.find_ended(datetime.now(UTC), limit=1000))


def wait_for_ends(scene: Scene) -> None:
    scene.wait_until(
        "executions end without the archive", lambda: waiting_for_the_archive(scene) >= COMPLETED_MEANWHILE
    )


def survive_without_the_archive(scene: Scene, away: Any) -> None:
    store = scene.runtime.store
    assert isinstance(store, HybridStore)
    contexts = survive_outages(scene, [away])
    scene.wait_until("everything is archived", lambda: waiting_for_the_archive(scene) == 0)
    for context in contexts:
        assert context.attempt == 1, "an outage of the archive disturbed an execution"
        hot, cold = store.hot.export(context.execution_id), store.cold.export(context.execution_id)
        assert hot is not None
        assert cold is not None
        assert cold.digest == hot.digest
