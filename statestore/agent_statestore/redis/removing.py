"""Removal of executions: one, all under a prefix, and the traces of expired ones in indexes."""

from collections.abc import Sequence
from typing import Final

from agent_statestore.redis import idempotency
from agent_statestore.redis.answers import pairs, text
from agent_statestore.redis.keys import PARTITIONS, Card, Keys, entry_of, idempotency_field, partition_of
from agent_statestore.redis.leasing import duties_key
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Connection

_BATCH: Final = 256


def delete(connection: Connection, keys: Keys, execution_id: str) -> bool:
    """Remove one execution. Its card, read first, never changes: the script alone decides what happens."""
    partition = partition_of(execution_id)
    (card,) = connection.send_each([("HGET", *keys.of_partition(partition, "cards"), execution_id)])
    if card is None:
        return False
    ((was_there, _),) = _delete_each(connection, keys, [(execution_id, text(card))], only_expired=False)
    return bool(was_there)


def clear(connection: Connection, keys: Keys) -> int:
    """Remove every execution that the cards of this prefix list, so that no foreign key is ever named."""
    count = 0
    for partition in range(PARTITIONS):
        (cards_key,) = keys.of_partition(partition, "cards")
        cursor = "0"
        while True:
            ((next_cursor, flat),) = connection.send_each([("HSCAN", cards_key, cursor, "COUNT", _BATCH)])
            cards = [(execution_id, text(card)) for execution_id, card in pairs(flat)]
            count += sum(was_there for was_there, _ in _delete_each(connection, keys, cards, only_expired=False))
            cursor = text(next_cursor)
            if cursor == "0":
                break
    for partition in range(PARTITIONS):
        idempotency.free_promises(connection, keys, partition)
    shared = [key for partition in range(PARTITIONS) for key in keys.of_partition(partition, "rates")]
    connection.send_each([("DEL", key) for key in (*shared, *duties_key(keys))])
    return count


def tidy(connection: Connection, keys: Keys, limit: int) -> int:
    """Remove what expired executions left behind."""
    share = -(-limit // PARTITIONS)
    calls = [(keys.of_partition(partition, "expiring", "cards"), (share,)) for partition in range(PARTITIONS)]
    expired: list[tuple[str, str]] = []
    for answer in connection.run_each(script("list_expired"), calls):
        expired += ((text(answer[at]), text(answer[at + 1])) for at in range(0, len(answer), 2))
    removed = 0
    for start in range(0, min(len(expired), limit), _BATCH):
        batch = expired[start : min(start + _BATCH, limit)]
        removed += sum(was_removed for _, was_removed in _delete_each(connection, keys, batch, only_expired=True))
    return removed


def _delete_each(
    connection: Connection, keys: Keys, cards: Sequence[tuple[str, str]], *, only_expired: bool
) -> list[tuple[int, int]]:
    calls: list[tuple[Sequence[bytes], Sequence[str]]] = []
    elsewhere: dict[int, str] = {}
    for number, (execution_id, card_text) in enumerate(cards):
        card, partition = Card.parse(card_text), partition_of(execution_id)
        execution_keys = [
            *keys.execution_and_shared(execution_id),
            *keys.of_partition(partition, "cards", "idempotency"),
            *keys.ended(partition),
            *keys.listing(partition, card),
        ]
        field = idempotency_field(card.agent_id, card.idempotency_key) if card.idempotency_key else ""
        if field and idempotency.is_elsewhere(field, execution_id):
            elsewhere[number], field = field, ""
        entry = entry_of(int(card.created_us), execution_id)
        calls.append((execution_keys, (execution_id, entry, field, "1" if only_expired else "0")))
    answers = [(answer[0], answer[1]) for answer in connection.run_each(script("delete"), calls)]
    for number, field in elsewhere.items():
        # Only if the execution still has the key: after an expiry it may belong to another one already.
        execution_id = cards[number][0]
        if any(answers[number]) and idempotency.holder_of(connection, keys, field) == execution_id:
            idempotency.free_if_gone(connection, keys, field, execution_id)
    return answers
