"""The archive is killed for a while: executions go on in the hot store, and everything is archived in the end."""

from datetime import UTC, datetime
from typing import Any

import pytest

from statestore.hybrid import HybridStore
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
    return settings | {"archive_url": migrated(postgresql_server.url)}


@pytest.mark.worker(lease_seconds=8.0, imports=["tests.crash.quick_archive"])
def test_executions_complete_without_the_archive_and_are_archived_with_it(
    scene: Scene, postgresql_server: PostgresServer
) -> None:
    store = scene.runtime.store
    assert isinstance(store, HybridStore)

    def settled() -> int:
        return len(store.hot.find_ended(datetime.now(UTC), limit=1000))

    def away() -> None:
        postgresql_server.kill()
        scene.wait_until("executions end without the archive", lambda: settled() >= COMPLETED_MEANWHILE)
        postgresql_server.start()

    contexts = survive_outages(scene, [away])
    scene.wait_until("everything is archived", lambda: settled() == 0)
    for context in contexts:
        assert context.attempt == 1, "an outage of the archive disturbed an execution"
        hot, cold = store.hot.export(context.execution_id), store.cold.export(context.execution_id)
        assert hot is not None
        assert cold is not None
        assert cold.digest == hot.digest
    for worker in scene.workers:
        check_log(worker, outages=1)
