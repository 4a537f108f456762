"""A master of Redis is killed and its replica takes over in the middle of 50 executions: they complete.

Redis replicates after it has answered, so a fail-over may lose what was acknowledged last. With `replicas=1` in the
URL an answer means that a replica has it too (WAIT). As there is one replica, it is that one which takes over, and
nothing acknowledged is lost: no recorded step is lost or repeated. With more replicas than `replicas` says, one could
be promoted that is behind. What was written and not confirmed counts as not written, and is written again; a claim of
which nobody knows whether it was made holds its execution until the lease has run out.
"""

import pytest

from tests.crash.outages import check_log, fail_over_cluster, fail_over_sentinel, survive_outages
from tests.crash.scene import Cell, Scene
from tests.services.redis_cluster import RedisCluster
from tests.services.redis_sentinel import RedisSentinel

LEASE = {"lease_seconds": 6.0, "ring_seconds": 2.0}


@pytest.mark.full
class TestCluster:
    """One of three masters is killed: a third of all executions is on it."""

    @pytest.fixture
    def cell(self) -> Cell:
        return Cell("embedded", "redis", "prefork")

    @pytest.fixture
    def store_url(self, redis_cluster: RedisCluster) -> str:
        return f"{redis_cluster.url}?replicas=1"

    @pytest.mark.worker(**LEASE)
    def test_executions_complete(self, scene: Scene, redis_cluster: RedisCluster) -> None:
        survive_outages(scene, [fail_over_cluster(redis_cluster)], repeats=True)
        for worker in scene.workers:
            check_log(worker, outages=1)


class TestSentinel:
    """The master is killed, and the sentinels promote its replica."""

    @pytest.fixture
    def cell(self) -> Cell:
        return Cell("embedded", "redis", "prefork")

    @pytest.fixture
    def store_url(self, redis_sentinel: RedisSentinel) -> str:
        return f"{redis_sentinel.url}&replicas=1"

    @pytest.mark.worker(**LEASE)
    def test_executions_complete(self, scene: Scene, redis_sentinel: RedisSentinel) -> None:
        survive_outages(scene, [fail_over_sentinel(redis_sentinel)], repeats=True)
        for worker in scene.workers:
            check_log(worker, outages=1)
