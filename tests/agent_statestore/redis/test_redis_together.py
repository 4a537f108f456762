"""One call asks all partitions where one server holds them, and one for each partition where that is refused."""

from collections.abc import Callable
from datetime import timedelta

import redis

from agent_statestore import open_store
from agent_statestore.redis import RedisStore
from agent_statestore.redis.keys import PARTITIONS
from tests.agent_statestore.redis.redis_life import claimed, live
from tests.services.commands import wait_until
from tests.services.redis import find_redis
from tests.services.redis_cluster import ClusterNode

MINUTE = timedelta(minutes=1)
LOOKS: dict[str, Callable[[RedisStore], object]] = {
    "take_due": lambda store: store.take_due(10, MINUTE),
    "find_leases": lambda store: store.find_leases("nobody"),
    "tidy": lambda store: store.tidy(),
    "find_ended": lambda store: store.find_ended(store.now()),
}


def calls_of(raw: redis.Redis, look: Callable[[], object]) -> int:
    def calls() -> int:
        stats = raw.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))

    before = calls()
    look()
    return calls() - before


def test_a_look_at_all_partitions_is_one_call(redis_url: str, redis_prefix: str) -> None:
    with RedisStore(redis_url, key_prefix=redis_prefix) as store, redis.Redis.from_url(redis_url) as raw:
        ids = {store.create_context("a", first_ring=timedelta(0)).execution_id for _ in range(40)}
        leased = min(ids)
        claimed(store, leased)
        assert {due.execution_id for due in store.take_due(100, MINUTE)} == ids - {leased}
        assert [lease.execution_id for lease in store.find_leases("host")] == [leased]
        for look in LOOKS.values():
            look(store)
        # `tidy` asks for executions and for documents; `find_ended` asks for the time first.
        counted = {name: calls_of(raw, lambda look=look: look(store)) for name, look in LOOKS.items()}
        assert counted == {"take_due": 1, "find_leases": 1, "tidy": 2, "find_ended": 2}
        raw.script_flush()
        assert store.take_due(100, MINUTE) == ()
        store.clear()


def test_what_looks_like_one_server_may_be_a_cluster() -> None:
    """As a proxy does that hides a cluster: it answers for all keys, but no script may have keys of several slots."""
    binary = find_redis()
    assert binary is not None
    with ClusterNode(binary, node_timeout_ms=5000) as node:
        node.start()
        with node.client() as raw:
            raw.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until("it works", lambda: raw.cluster("info")["cluster_state"] == "ok")
            with open_store(node.url) as store:
                assert isinstance(store, RedisStore)
                live(store)
                assert calls_of(raw, lambda: store.take_due(10, MINUTE)) == PARTITIONS
