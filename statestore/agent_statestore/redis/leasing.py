"""What is asked of the leases and duties of a whole store."""

from datetime import timedelta

from agent_statestore.clock import duration_us, from_us
from agent_statestore.contract import Duty
from agent_statestore.records import Lease
from agent_statestore.redis.answers import text
from agent_statestore.redis.keys import PARTITIONS, Keys
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Connection

# All duties are in one partition: there are few, and no script touches a duty together with an execution.
_DUTIES_AT = 0


def find_leases(connection: Connection, keys: Keys, now: str | int, owner_prefix: str) -> tuple[Lease, ...]:
    """Return the live leases of owners; see `StorePrimitives.find_leases`."""
    calls = [
        (keys.of_partition(partition, "leases", "holders"), (now, owner_prefix)) for partition in range(PARTITIONS)
    ]
    found = []
    for now_us, *flat in connection.run_each(script("find_leases"), calls):
        for at in range(0, len(flat), 3):
            execution_id, until_us, holder = (text(item) for item in flat[at : at + 3])
            token, _, owner = holder.partition(":")
            found.append(
                Lease(
                    execution_id=execution_id,
                    token=int(token),
                    owner=owner,
                    ttl=timedelta(microseconds=int(until_us) - int(now_us)),
                    expires_at=from_us(int(until_us)),
                )
            )
    return tuple(found)


def take_duty(
    connection: Connection, keys: Keys, now: str | int, duty: str, owner: str, ttl: timedelta, instead: bool
) -> Duty:
    """Take or keep a duty; see `StorePrimitives.take_duty`."""
    values = (now, duty, owner, duration_us(ttl), "1" if instead else "0")
    held = connection.run(script("take_duty"), duties_key(keys), values)
    if held is None:
        return Duty(owner=owner, left=ttl)
    return Duty(owner=text(held[0]), left=timedelta(microseconds=int(held[1])))


def duties_key(keys: Keys) -> tuple[bytes, ...]:
    """Return the key of all duties."""
    return keys.of_partition(_DUTIES_AT, "duties")
