"""Idempotency keys of executions that live in another partition than their key.

`create` draws the id of an execution so that it falls into the partition of its key: one script sees both. An execution
that is restored from another store brings its id along, and its key points from its own partition (`idempotency`) into
another one. Two scripts are needed then, and nothing that comes between them may make two executions of one key:

1. `restore` has the key promised to the execution, in the key's partition. No two promises are the same.
2. It stores the execution, in the execution's partition, unless that promise was refused there.

A caller that finds a key whose execution is not there (it expired, or a restore has stopped half-way) first refuses the
promise in the execution's partition, which fails if the execution is there after all. Only then does it free the key.
So a restore that is late finds its promise refused, and asks for the key anew. Each step may be repeated. If a crash
leaves something between them, the next `create` or `restore` with that key puts it right, and so does `clear`.
"""

from datetime import timedelta
from typing import Final
from uuid import uuid4

from agent_statestore.redis.answers import text
from agent_statestore.redis.keys import Keys, partition_of
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Connection

# A restore that sleeps for longer between its two steps might use a promise that was refused.
_REFUSED_FOR: Final = timedelta(days=7)


def is_elsewhere(field: str, execution_id: str) -> bool:
    """Return whether an execution with this idempotency field lives outside the partition of its key."""
    return partition_of(field) != partition_of(execution_id)


def holder_of(connection: Connection, keys: Keys, field: str) -> str | None:
    """Return the execution to which a key belongs; it may be gone."""
    (holder,) = connection.send_each([("HGET", *keys.of_partition(partition_of(field), "idempotency"), field)])
    return None if holder is None else text(holder)


def reserve(connection: Connection, keys: Keys, field: str, execution_id: str) -> str | None:
    """Return the promise of a key to an execution of another partition, or None if another execution has the key."""
    names = keys.of_partition(partition_of(field), "idempotency", "promises", "expiring")
    while True:
        status, value = connection.run(script("reserve_key"), names, (field, execution_id, uuid4().hex))
        if text(status) == "OK":
            return text(value)
        if not free_if_gone(connection, keys, field, text(value)):
            return None


def free_if_gone(connection: Connection, keys: Keys, field: str, execution_id: str) -> bool:
    """Free a key if the execution that had it is not there. Return False if it is."""
    home = partition_of(field)
    if not is_elsewhere(field, execution_id):
        names = (*keys.of_partition(home, "idempotency", "promises"), keys.header(execution_id))
        return bool(connection.run(script("free_key"), names, (field, execution_id, "")))
    (promise,) = connection.send_each([("HGET", *keys.of_partition(home, "promises"), field)])
    given = "" if promise is None else text(promise)
    refusal = (keys.header(execution_id), keys.refusal(execution_id, given))
    if not connection.run(script("refuse_promise"), refusal, (_REFUSED_FOR // timedelta(milliseconds=1),)):
        return False
    take_back(connection, keys, field, execution_id, given)
    return True


def take_back(connection: Connection, keys: Keys, field: str, execution_id: str, promise: str) -> None:
    """Free a key whose promise was refused."""
    names = keys.of_partition(partition_of(field), "idempotency", "promises")
    connection.run(script("free_key"), names, (field, execution_id, promise))


def free_promises(connection: Connection, keys: Keys, partition: int) -> None:
    """Free the keys of this partition that were promised to executions that are not there."""
    (promises,) = keys.of_partition(partition, "promises")
    cursor = "0"
    while True:
        ((next_cursor, flat),) = connection.send_each([("HSCAN", promises, cursor)])
        for name in flat[::2]:
            field = text(name)
            holder = holder_of(connection, keys, field)
            if holder is not None:
                free_if_gone(connection, keys, field, holder)
        cursor = text(next_cursor)
        if cursor == "0":
            return
