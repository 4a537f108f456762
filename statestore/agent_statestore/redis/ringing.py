"""Ringing across all partitions: due executions are taken, and rings are recorded."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from agent_statestore.clock import duration_us
from agent_statestore.records import Due
from agent_statestore.redis.answers import text
from agent_statestore.redis.keys import PARTITIONS, Card, Keys, partition_of
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Connection

# The bell of an entry whose bell is lost.
_NO_BELL: Final = ("0", "0", "0", "0")
_BELL_PARTS: Final = len(_NO_BELL)


def take_due(connection: Connection, keys: Keys, now: str | int, limit: int, grace: timedelta) -> tuple[Due, ...]:
    """Take up to `limit`, in one round trip unless a partition holds more than its share of them.

    Shares are dealt out at random, so that several sweepers behind a long backlog take from different partitions and no
    partition waits for ever. Within a partition the longest due come first. In a cluster, a server that is away counts
    as having nothing due; otherwise what was taken from the others would be lost until their grace has passed.
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
    """Run one script call for each partition, in one round trip."""
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


def _deal(cards: int, partitions: Sequence[int], waiting: dict[int, int]) -> dict[int, int]:
    """Return as equal shares as fit what waits in each partition. A share may be 0: the script then only counts."""
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
    """Return one entry. One whose bell or card is lost or damaged is rung like one that was never claimed."""
    parts = text(bell).split(":")
    token, rings, cancel_requested, over = parts if len(parts) == _BELL_PARTS and parts[0].isdigit() else _NO_BELL
    fields = text(card_text).split("\0")
    card = Card(*fields) if len(fields) == len(Card._fields) else Card(*[""] * len(Card._fields))
    return float(due_us), Due(
        execution_id=text(execution_id),
        agent_id=card.agent_id,
        queue=card.queue or None,
        priority=int(card.priority) if card.priority.isdigit() else None,
        token=int(token),
        rings=int(rings) if rings.isdigit() else 0,
        cancel_requested=cancel_requested == "1",
        over=over == "1",
    )
