"""The CPU that all use together: producer, workers and servers. Other work of the machine does not count."""

import time
from collections.abc import Iterable

import psutil
import psycopg
import redis

from benchmarks.servers import Servers
from benchmarks.workers import Frozen
from tests.services.postgresql import driver_url


class Machine:
    """The servers' processes, found by asking them."""

    def __init__(self, servers: Servers) -> None:
        with redis.Redis.from_url(servers.redis_url(0)) as client:
            self._redis = psutil.Process(client.info("server")["process_id"])
        with psycopg.connect(driver_url(servers.postgresql)) as connection:
            postmaster = psutil.Process(connection.info.backend_pid).parent()
        assert postmaster is not None
        self._postgresql = postmaster

    def cpu_seconds(self, workers: Iterable[Frozen]) -> float:
        """Return what this process, the servers and these workers have used so far."""
        trees = [self._redis, self._postgresql, *(psutil.Process(worker.pid) for worker in workers)]
        processes = [process for tree in trees for process in (tree, *tree.children(recursive=True))]
        return time.process_time() + sum(map(cpu_of, processes))


def cpu_of(process: psutil.Process) -> float:
    """Return what a process has used so far, with those of its children that have ended.

    A server's process for a connection ends with the connection. What it used must not vanish with it.
    """
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
