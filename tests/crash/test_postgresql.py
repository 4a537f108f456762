"""PostgreSQL as it stands in production, in the middle of 50 executions: a standby takes over, a pooler is killed."""

from collections.abc import Iterator

import pytest

from tests.crash.outages import check_log, kill_and_start, survive_outages
from tests.crash.scene import Cell, Scene
from tests.crash.stores import migrated
from tests.services.pgbouncer import PgBouncer
from tests.services.postgresql import PostgresServer
from tests.services.postgresql_standby import PostgresStandby, fence, url_of

pytestmark = pytest.mark.full
LEASE = {"lease_seconds": 6.0, "ring_seconds": 2.0}


@pytest.fixture
def cell() -> Cell:
    return Cell("embedded", "postgresql", "prefork")


class TestSwitchOver:
    """The primary refuses writes and leaves all sessions open; the standby is promoted."""

    @pytest.fixture
    def standby(self, postgresql_server: PostgresServer) -> Iterator[PostgresStandby]:
        migrated(postgresql_server.url)
        with PostgresStandby(postgresql_server) as standby:
            yield standby.start()

    @pytest.fixture
    def store_url(self, postgresql_server: PostgresServer, standby: PostgresStandby) -> str:
        return url_of(postgresql_server, standby, options="&target_session_attrs=read-write")

    @pytest.mark.worker(**LEASE)
    def test_executions_complete(
        self, scene: Scene, postgresql_server: PostgresServer, standby: PostgresStandby
    ) -> None:
        def switch_over() -> None:
            fence(postgresql_server)
            standby.catch_up()
            standby.promote()

        survive_outages(scene, [switch_over], repeats=True)
        assert postgresql_server.is_running
        for worker in scene.workers:
            check_log(worker, outages=1)


class TestPgBouncer:
    """A pooler in transaction mode, with fewer sessions than the workers have connections."""

    @pytest.fixture
    def store_url(self, pgbouncer: PgBouncer) -> str:
        return pgbouncer.url

    @pytest.mark.worker(**LEASE)
    def test_executions_complete(self, scene: Scene, pgbouncer: PgBouncer) -> None:
        survive_outages(scene, [kill_and_start(pgbouncer, down_seconds=1.0)], repeats=True)
        for worker in scene.workers:
            check_log(worker, outages=1)
