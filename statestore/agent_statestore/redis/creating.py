"""The call that creates an execution, as keys and arguments of `create.lua`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent_statestore.checkpoint import NewExecution, new_execution_id
from agent_statestore.clock import duration_us
from agent_statestore.codec import decode_context, encode_new
from agent_statestore.records import AgentContext
from agent_statestore.redis import answers, arguments
from agent_statestore.redis.keys import Keys, idempotency_field, partition_of, partition_of_idempotency_key
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Connection
from agent_statestore.states import AgentState


@dataclass(frozen=True, slots=True)
class Creation:
    """An execution that is about to be created. `field` is that of its idempotency key, or empty."""

    new: NewExecution
    execution_id: str
    header: dict[str, Any]
    field: str
    keys: list[bytes]
    arguments: list[str | int]

    def context(self, created_us: int) -> AgentContext:
        """Return the context of the execution, which the server has created now."""
        header = self.header | {"created_us": created_us, "updated_us": created_us}
        if header["due_us"] is None:
            header["due_us"] = created_us + duration_us(self.new.first_ring)
        return decode_context(header)


def creation_of(keys: Keys, new: NewExecution, now: str | int, max_value_bytes: int) -> Creation:
    """Return the creation under an id that is chosen now, unless the caller has chosen one.

    Raise `NotSerialisable` or `ValueTooLarge`.
    """
    field = "" if new.idempotency_key is None else idempotency_field(new.agent_id, new.idempotency_key)
    execution_id = _new_id(new)
    header = encode_new(execution_id, new, None, max_value_bytes)
    card = arguments.new_card(header)
    partition = partition_of(execution_id)
    names = [
        keys.header(execution_id),
        *keys.of_partition(partition, "due", "bells", "cards", "expiring", "idempotency"),
        keys.audit(execution_id),
        keys.index(partition, "state", AgentState.IDLE.value),
        *keys.placing(partition, card),
    ]
    values = arguments.new_execution(now, header, card, field, new.first_ring)
    return Creation(new, execution_id, header, field, names, values)


def create_at_once(connection: Connection, creations: Sequence[Creation]) -> list[AgentContext | None]:
    """Create executions in one round trip to each server; return None for those whose key or id is taken."""
    answered = connection.run_each(script("create"), [(one.keys, one.arguments) for one in creations])
    return [
        one.context(int(answer)) if answers.text(status) == "OK" else None
        for one, (status, answer) in zip(creations, answered, strict=True)
    ]


def _new_id(new: NewExecution) -> str:
    """Return a new execution id, for an idempotency key one in the key's partition.

    That takes about 16 tries of a microsecond each.
    """
    execution_id = new.execution_id or new_execution_id()
    if new.idempotency_key is not None:
        partition = partition_of_idempotency_key(new.agent_id, new.idempotency_key)
        while partition_of(execution_id) != partition:
            execution_id = new_execution_id()
    return execution_id
