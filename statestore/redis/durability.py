"""What the server would forget, as far as it says so."""

from statestore.errors import StoreUnavailable
from statestore.redis.connection import Connection


def durability_warning(connection: Connection, url: str) -> str | None:
    """One sentence on missing persistence and on eviction, or None.

    Asks INFO, which tells the same as CONFIG GET and is allowed where managed servers forbid CONFIG. A server that
    forbids both gets a sentence too, because silence would read as a promise.
    """
    try:
        persistence = connection.call("info", "persistence")
        memory = connection.call("info", "memory")
    except StoreUnavailable as error:
        return f"cannot tell whether the store at {url} keeps executions over a crash: {error.reason}"
    if not isinstance(persistence.get("aof_enabled"), int):
        return None  # a cluster answers for each node: no single sentence is true of all
    faults = []
    if not persistence["aof_enabled"]:
        faults.append(
            "runs without an append-only file (appendonly no), so that what was written since its last snapshot is "
            "lost when it crashes"
        )
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and memory.get("maxmemory", 0):
        faults.append(f"evicts keys when its memory is full (maxmemory-policy {policy}), which tears executions apart")
    return f"the store at {url} {', and '.join(faults)}" if faults else None
