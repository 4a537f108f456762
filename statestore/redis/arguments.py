"""Records as the arguments of the scripts. An empty text stands for null: no stored text is empty."""

from datetime import timedelta
from itertools import chain
from typing import Any

from statestore.clock import duration_us
from statestore.codec import EncodedCheckpoint
from statestore.errors import InvalidRecord
from statestore.redis.keys import PARTS, Card
from statestore.states import AgentState, sources_of

_SOURCES = {state: f",{','.join(sorted(source.value for source in sources_of(state)))}," for state in AgentState}
_UNSENT = ("created_us", "updated_us", "due_us")


def milliseconds(name: str, ttl: timedelta | None) -> str:
    """A time to live as the scripts take it. Raises `InvalidRecord` for one below a millisecond."""
    if ttl is None:
        return ""
    if not isinstance(ttl, timedelta) or ttl < timedelta(milliseconds=1):
        raise InvalidRecord(name, "needs a timedelta of at least a millisecond, or None for no expiry")
    return str(ttl // timedelta(milliseconds=1))


def new_card(header: dict[str, Any]) -> Card:
    """The card of a new execution; the script puts the time of creation in front."""
    values = {name: header[name] for name in Card._fields if name != "created_us"}
    return Card(created_us="", **{name: "" if value is None else str(value) for name, value in values.items()})


def new_execution(
    now: str | int, header: dict[str, Any], card: Card, idempotency: str, first_ring: timedelta
) -> list[str | int]:
    """The arguments of `create.lua`."""
    due_us = header["due_us"]
    present = ((name, value) for name, value in header.items() if value is not None and name not in _UNSENT)
    return [
        now,
        header["execution_id"],
        idempotency,
        "" if due_us is None else due_us,
        duration_us(first_ring),
        card.text().removeprefix("\0"),
        *chain.from_iterable(present),
    ]


def parts_of(change: EncodedCheckpoint) -> int:
    """How many of an execution's parts, in the order of `keys.PARTS`, a checkpoint needs at least."""
    if change.consumed:
        return len(PARTS)
    if change.facts or change.entities or change.rag_context:
        return PARTS.index("rag") + 1
    if change.messages or change.working_memory or change.forget:
        return PARTS.index("memory") + 1
    return PARTS.index("intents") + 1


def checkpoint(
    now: str | int, execution_id: str, change: EncodedCheckpoint, token: int | None, ttl_ms: str
) -> list[str | int]:
    """The arguments of `checkpoint.lua`."""
    counts = [
        len(change.steps),
        len(change.messages),
        len(change.working_memory),
        len(change.forget),
        len(change.facts),
        len(change.entities),
        len(change.rag_context),
        len(change.consumed),
    ]
    while counts and not counts[-1]:
        counts.pop()
    arguments: list[str | int] = [
        now,
        execution_id,
        change.checkpoint_id,
        "" if token is None else token,
        ttl_ms,
        ",".join(map(str, counts)),
    ]
    if change.state is None:
        arguments.append("")
    else:
        optional = (
            change.waiting,
            change.wait_key,
            change.wait_signal,
            change.wake_us,
            change.output,
            change.error,
            change.announce_us,
        )
        arguments += [change.state.value, _SOURCES[change.state]]
        arguments += ["" if value is None else value for value in optional]
    for step in change.steps:
        arguments += [step.number, step.name, "1" if step.is_done else "0", step.text]
    arguments += change.messages
    arguments += chain.from_iterable(change.working_memory)
    arguments += change.forget
    arguments += change.facts
    arguments += chain.from_iterable(change.entities)
    arguments += change.rag_context
    arguments += change.consumed
    return arguments
