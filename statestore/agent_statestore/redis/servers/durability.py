"""The data that the servers would forget, as far as they say so."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from agent_statestore.errors import StoreUnavailable
from agent_statestore.redis.servers.connection import Connection


def durability_warning(connection: Connection, url: str) -> str | None:
    """Return one sentence on missing persistence and on eviction, or None; in a cluster every primary is asked.

    It asks INFO, which tells the same as CONFIG GET and is allowed where managed servers forbid CONFIG. A server that
    forbids both gets a sentence too, because silence would read as a promise.
    """
    try:
        persistence = connection.call_each("info", "persistence")
        memory = dict(connection.call_each("info", "memory"))
    except StoreUnavailable as error:
        return f"cannot tell whether the store at {url} keeps executions over a crash: {error.reason}"
    servers: defaultdict[str, list[str]] = defaultdict(list)
    for address, answer in persistence:
        faults = _faults(answer, memory.get(address, {}))
        if faults:
            servers[" and ".join(faults)].append(address)
    if not servers:
        return None
    if len(persistence) == 1:
        return f"the store at {url} {next(iter(servers))}"
    each = "; ".join(f"{', '.join(addresses)}: {faults}" for faults, addresses in servers.items())
    return f"the store at {url} has primaries that may lose executions: {each}"


def _faults(persistence: Mapping[str, Any], memory: Mapping[str, Any]) -> list[str]:
    faults = []
    if not persistence["aof_enabled"]:
        faults.append(
            "runs without an append-only file (appendonly no), so that what was written since its last snapshot is "
            "lost when it crashes"
        )
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and memory.get("maxmemory", 0):
        faults.append(f"evicts keys when its memory is full (maxmemory-policy {policy}), which tears executions apart")
    return faults
