"""Executions on their way between stores: exported whole, stored whole, and let go of once another store has them."""

from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.envelope import reading, require_readable
from agent_statestore.errors import IdempotencyKeyTaken
from agent_statestore.redis import answers, arguments, idempotency
from agent_statestore.redis.keys import Card, Keys, idempotency_field, partition_of
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Connection


def export(connection: Connection, keys: Keys, execution_id: str) -> ExportedExecution | None:
    """Return everything of an execution; see `StorePrimitives.export`."""
    parts = connection.run(script("export"), keys.execution(execution_id), (execution_id,))
    return None if parts is None else reading(execution_id, "its contents", lambda: answers.exported(parts))


def restore(connection: Connection, keys: Keys, now: str | int, exported: ExportedExecution, ttl_ms: str) -> bool:
    """Store an exported execution; see `StorePrimitives.restore`.

    `ttl_ms` applies to an execution that is over, or else to one that is working. One script does it, unless the
    execution's idempotency key belongs to another partition: then the key is promised to it first. A crash in between
    leaves a key of an execution that is not there. A repetition of this call uses it, and anybody else who wants it
    frees it (see `agent_statestore.redis.idempotency`).
    """
    header, execution_id = exported.header, exported.execution_id
    require_readable(f"execution {execution_id}", header["format"])
    agent_id, key = header["agent_id"], header["idempotency_key"]
    field = "" if key is None else idempotency_field(agent_id, key)
    is_elsewhere = bool(field) and idempotency.is_elsewhere(field, execution_id)
    while True:
        promise = idempotency.reserve(connection, keys, field, execution_id) if is_elsewhere else ""
        if promise is None:
            raise IdempotencyKeyTaken(agent_id, key)
        card = arguments.card_of(header)
        status, *facts = (
            answers.text(word)
            for word in connection.run(
                script("restore"),
                _keys(keys, execution_id, card, promise),
                arguments.restored(now, exported, card, "" if is_elsewhere else field, is_elsewhere, ttl_ms),
            )
        )
        match status:
            case "OK":
                return True
            case "KEPT":
                return False
            case "REFUSED":
                idempotency.take_back(connection, keys, field, execution_id, promise)
            case "TAKEN":
                if not idempotency.free_if_gone(connection, keys, field, facts[0]):
                    raise IdempotencyKeyTaken(agent_id, key)
            case _:
                answers.refuse((status, *facts), execution_id)


def drop_archived(
    connection: Connection, keys: Keys, execution_id: str, place: tuple[int, int, int], over_ttls: list[str]
) -> bool:
    """Let go of an archived execution; see `StorePrimitives.drop_archived`.

    `over_ttls` are those of the states that are over, in their order.
    """
    names = (*keys.execution_and_shared(execution_id), *keys.ended(partition_of(execution_id)))
    return bool(connection.run(script("drop_archived"), names, (execution_id, *place, *over_ttls)))


def _keys(keys: Keys, execution_id: str, card: Card, promise: str) -> list[bytes]:
    partition = partition_of(execution_id)
    return [
        *keys.execution_and_shared(execution_id, with_states=True),
        *keys.ended(partition),
        *keys.of_partition(partition, "cards", "idempotency"),
        keys.refusal(execution_id, promise),
        *keys.placing(partition, card),
    ]
