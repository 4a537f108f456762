"""What a sweeper does across all partitions: taking what is due, recording rings, removing what has expired."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta

from agent_statestore.clock import duration_us
from agent_statestore.records import Due
from agent_statestore.redis import idempotency
from agent_statestore.redis.answers import pairs, text
from agent_statestore.redis.keys import PARTITIONS, Card, Keys, entry_of, idempotency_field, partition_of
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Connection

_TIDY_BATCH = 256


def take_due(connection: Connection, keys: Keys, now: str | int, limit: int, grace: timedelta) -> tuple[Due, ...]:
    """Takes up to `limit`, in one round trip unless a partition holds more than its share of them.

    Shares are dealt out at random, so that several sweepers behind a long backlog take from different partitions and
    no partition waits for ever. Within a partition the longest due come first. Of a cluster, a server that is away has
    nothing due, so that what was taken from the others is not lost until their grace has passed.
    """
    taken: list[tuple[float, Due]] = []
    open_partitions = list(range(PARTITIONS))
    waiting = dict.fromkeys(open_partitions, limit)
    is_counted = False
    while open_partitions and len(taken) < limit:
        random.shuffle(open_partitions)
        shares = _deal(limit - len(taken), open_partitions, waiting)
        calls = [
            (keys.of_partition(partition, "due", "bells", "cards", "expiring"), (now, share, duration_us(grace)))
            for partition, share in shares.items()
        ]
        answers = connection.run_each(script("take_due"), calls, unavailable=(0,))
        for partition, answer in zip(shares, answers, strict=True):
            # Without a grace, what was taken is due again at once: after the first count it must not be counted anew.
            waiting[partition] = min(answer[0], waiting[partition] - shares[partition]) if is_counted else answer[0]
            taken += (_due(*answer[at : at + 4]) for at in range(1, len(answer), 4))
        is_counted = True
        open_partitions = [partition for partition in open_partitions if waiting[partition]]
    taken.sort(key=lambda item: (item[0], item[1].execution_id))
    return tuple(due for _, due in taken)


def mark_rung(
    connection: Connection,
    keys: Keys,
    now: str | int,
    rung: Iterable[tuple[str, int]],
    first: timedelta,
    maximum: timedelta,
) -> None:
    """One script call for each partition, in one round trip."""
    by_partition: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    for execution_id, token in rung:
        by_partition[partition_of(execution_id)].append((execution_id, token))
    calls = []
    for partition, bells in by_partition.items():
        arguments: list[str | int] = [now, duration_us(first), duration_us(maximum)]
        for bell in bells:
            arguments += bell
        headers = (keys.header(execution_id) for execution_id, _ in bells)
        calls.append(((*keys.of_partition(partition, "due", "bells"), *headers), arguments))
    connection.run_each(script("mark_rung"), calls)


def delete(connection: Connection, keys: Keys, execution_id: str) -> bool:
    """Removes one execution. Its card, read first, never changes: the script alone decides what happens."""
    partition = partition_of(execution_id)
    (card,) = connection.send_each([("HGET", *keys.of_partition(partition, "cards"), execution_id)])
    if card is None:
        return False
    ((was_there, _),) = _delete_each(connection, keys, [(execution_id, text(card))], only_expired=False)
    return bool(was_there)


def clear(connection: Connection, keys: Keys) -> int:
    """Removes every execution that the cards of this prefix list, so that no foreign key is ever named."""
    count = 0
    for partition in range(PARTITIONS):
        (cards_key,) = keys.of_partition(partition, "cards")
        cursor = "0"
        while True:
            ((next_cursor, flat),) = connection.send_each([("HSCAN", cards_key, cursor, "COUNT", _TIDY_BATCH)])
            cards = [(execution_id, text(card)) for execution_id, card in pairs(flat)]
            count += sum(was_there for was_there, _ in _delete_each(connection, keys, cards, only_expired=False))
            cursor = text(next_cursor)
            if cursor == "0":
                break
    for partition in range(PARTITIONS):
        idempotency.free_promises(connection, keys, partition)
    connection.send_each([("DEL", *keys.of_partition(partition, "rates")) for partition in range(PARTITIONS)])
    return count


def tidy(connection: Connection, keys: Keys, limit: int) -> int:
    """Removes what expired executions left behind."""
    share = -(-limit // PARTITIONS)
    calls = [(keys.of_partition(partition, "expiring", "cards"), (share,)) for partition in range(PARTITIONS)]
    expired: list[tuple[str, str]] = []
    for answer in connection.run_each(script("list_expired"), calls):
        expired += ((text(answer[at]), text(answer[at + 1])) for at in range(0, len(answer), 2))
    removed = 0
    for start in range(0, min(len(expired), limit), _TIDY_BATCH):
        batch = expired[start : min(start + _TIDY_BATCH, limit)]
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
        # Only if the key is still its own: after an expiry it may belong to another execution already.
        execution_id = cards[number][0]
        if any(answers[number]) and idempotency.holder_of(connection, keys, field) == execution_id:
            idempotency.free_if_gone(connection, keys, field, execution_id)
    return answers


def _deal(cards: int, partitions: Sequence[int], waiting: dict[int, int]) -> dict[int, int]:
    """As equal shares as fit what waits in each partition. A share may be 0: the script then only counts."""
    shares = dict.fromkeys(partitions, 0)
    hungry = [partition for partition in partitions if waiting[partition]]
    while cards and hungry:
        share = max(cards // len(hungry), 1)
        for partition in hungry[:cards]:
            more = min(share, waiting[partition] - shares[partition])
            shares[partition] += more
            cards -= more
        hungry = [partition for partition in hungry if shares[partition] < waiting[partition]]
    return shares


def _due(
    execution_id: str | bytes, due_us: str | bytes, bell: str | bytes, card_text: str | bytes
) -> tuple[float, Due]:
    token, rings, cancel_requested, over = text(bell).split(":")
    card = Card.parse(text(card_text))
    return float(due_us), Due(
        execution_id=text(execution_id),
        agent_id=card.agent_id,
        queue=card.queue or None,
        priority=int(card.priority) if card.priority else None,
        token=int(token),
        rings=int(rings),
        cancel_requested=cancel_requested == "1",
        over=over == "1",
    )
