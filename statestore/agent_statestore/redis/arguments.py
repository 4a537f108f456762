"""Records as the arguments of the scripts. An empty text stands for null: no stored text is empty."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import chain
from typing import Any

from agent_statestore.clock import duration_us
from agent_statestore.codec import (
    WITHOUT_INTENT,
    AuditRow,
    EncodedCheckpoint,
    EncodedStep,
    mailbox_key,
    noted_as,
)
from agent_statestore.codec.exported import LEFT_BEHIND, ExportedExecution, ExportedSignal
from agent_statestore.codec.headers import new_bytes
from agent_statestore.codec.signals import BOUNDED
from agent_statestore.codec.waits import encode_awaited
from agent_statestore.envelope import LOWEST, format_of
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import Signal, SignalKind
from agent_statestore.redis.keys import PARTS, Card
from agent_statestore.states import AgentState, sources_of

_SOURCES = {state: f",{','.join(sorted(source.value for source in sources_of(state)))}," for state in AgentState}
_UP_TO_INTENTS = PARTS.index("intents") + 1
PARTS_OF_CONTEXT = PARTS.index("signals") + 1
_ANSWERS = (SignalKind.ANSWER, SignalKind.APPROVAL)
_UNSENT = ("created_us", "updated_us", "due_us")


def milliseconds(name: str, ttl: timedelta | None) -> str:
    """Return a time to live as the scripts take it. Raise `InvalidRecord` for one below a millisecond."""
    if ttl is None:
        return ""
    if not isinstance(ttl, timedelta) or ttl < timedelta(milliseconds=1):
        raise InvalidRecord(name, "needs a timedelta of at least a millisecond, or None for no expiry")
    return str(ttl // timedelta(milliseconds=1))


def new_card(header: dict[str, Any]) -> Card:
    """Return the card of a new execution; the script puts the time of creation in front."""
    return card_of({**header, "created_us": None})


def card_of(header: dict[str, Any]) -> Card:
    """Return the card of an execution."""
    return Card(**{name: "" if header[name] is None else str(header[name]) for name in Card._fields})


def said(text: str | None) -> str:
    """Return a `by` or `reason` as the audit trail keeps it: an empty text differs from None."""
    return "" if text is None else f"={text}"


def new_execution(
    now: str | int, header: dict[str, Any], card: Card, idempotency: str, first_ring: timedelta
) -> list[str | int]:
    """Return the arguments of `create.lua`."""
    due_us = header["due_us"]
    present = ((name, value) for name, value in header.items() if value is not None and name not in _UNSENT)
    return [
        now,
        header["execution_id"],
        idempotency,
        "" if due_us is None else due_us,
        duration_us(first_ring),
        card.text().removeprefix("\0"),
        header["rings"],
        *chain.from_iterable(present),
        "context_bytes",
        new_bytes(header),
    ]


def parts_of(change: EncodedCheckpoint) -> int:
    """Return how many of an execution's parts, in the order of `keys.PARTS`, a checkpoint needs at least."""
    if change.consumed:
        return PARTS_OF_CONTEXT
    if change.facts or change.entities or change.rag_context:
        return PARTS.index("rag") + 1
    if change.messages or change.working_memory or change.forget:
        return PARTS.index("memory") + 1
    return _UP_TO_INTENTS


def only_step(change: EncodedCheckpoint) -> EncodedStep | None:
    """Return the step of a checkpoint that has nothing else, if its action has no intent that it could replace."""
    if len(change.steps) != 1 or change.state is not None or parts_of(change) > _UP_TO_INTENTS:
        return None
    (step,) = change.steps
    return step if step.is_done and step.kind in WITHOUT_INTENT and change.format == LOWEST else None


def append_step(now: str | int, change: EncodedCheckpoint, token: int, step: EncodedStep) -> tuple[str | int, ...]:
    """Return the arguments of `append_step.lua`."""
    after, most = said(change.after_checkpoint), change.max_context_bytes
    arguments = (now, change.checkpoint_id, token, step.number, step.text, after, most)
    return arguments if change.stream is None else (*arguments, change.stream.place, *change.stream.texts)


def checkpoint(
    now: str | int, execution_id: str, change: EncodedCheckpoint, token: int | None, ttl_ms: str
) -> list[str | int]:
    """Return the arguments of `checkpoint.lua`."""
    counts = [
        len(change.steps),
        len(change.messages),
        len(change.working_memory),
        len(change.forget),
        len(change.facts),
        len(change.entities),
        len(change.rag_context),
        len(change.consumed),
        0 if change.stream is None else len(change.stream.texts),
    ]
    while counts and not counts[-1]:
        counts.pop()
    arguments: list[str | int] = [
        now,
        execution_id,
        change.checkpoint_id,
        "" if token is None else token,
        ttl_ms,
        said(change.after_checkpoint),
        f"{change.max_context_bytes}:{','.join(map(str, counts))}",
    ]
    if change.format > LOWEST:
        arguments[-1] = f"{arguments[-1]}:{change.format}"
    if change.state is None:
        arguments.append("")
    else:
        optional = (
            change.waits,
            encode_awaited(change.awaited),
            change.wake_us,
            change.output,
            change.error,
            change.announce_us,
        )
        arguments += [change.state.value, _SOURCES[change.state]]
        arguments += ["" if value is None else value for value in optional]
        arguments += [said(change.by), said(change.reason), change.via or ""]
    for step in change.steps:
        arguments += [step.number, step.name, "1" if step.is_done else "0", step.text]
    arguments += change.messages
    arguments += chain.from_iterable(change.working_memory)
    arguments += change.forget
    arguments += change.facts
    arguments += chain.from_iterable(change.entities)
    arguments += change.rag_context
    arguments += change.consumed
    if change.stream is not None:
        arguments += [change.stream.place, *change.stream.texts]
    return arguments


def send(
    where: tuple[str | int, str, str], signal: Signal, text: str, told: str | None, max_mailbox: int, max_bytes: int
) -> list[str | int]:
    """Return the arguments of `send.lua`; `where` are the time, the execution, and a working one's ttl in ms."""
    now, execution_id, ttl_ms = where
    arguments: list[str | int] = [
        now,
        execution_id,
        signal.signal_id,
        signal.kind.value,
        mailbox_key(signal.key, signal.round),
        text,
        "1" if signal.kind in _ANSWERS else "0",
        "1" if signal.kind is SignalKind.CANCEL else "0",
        ttl_ms,
        noted_as(signal) or "",
        said(signal.sender),
        said(signal.reason),
        max_mailbox,
        "1" if signal.kind in BOUNDED else "0",
        max_bytes,
        format_of(text) if format_of(text) > LOWEST else "",
    ]
    return arguments if told is None else [*arguments, told]


def restored(
    now: str | int, exported: ExportedExecution, card: Card, field: str, is_elsewhere: bool, ttl_ms: str
) -> list[str | int]:
    """Return the arguments of `restore.lua`."""
    header = exported.header
    due_us, ended_us = header["due_us"], header["ended_us"]
    intents = [(step.number, step.name) for step in exported.steps if not step.is_done]
    pending = [signal for signal in exported.signals if signal.text is not None]
    stored = header | LEFT_BEHIND | {"context_bytes": exported.context_bytes}
    if exported.events or exported.trimmed_to:
        stored |= {"stream_last": exported.events[-1][0] if exported.events else exported.trimmed_to, "stream_place": 0}
    if exported.trimmed_to:
        stored["stream_trimmed"] = exported.trimmed_to
    parts: list[list[str | int]] = [
        _flat((name, value) for name, value in stored.items() if name != "due_us" and value is not None),
        [step.text for step in exported.steps],
        _flat(intents),
        [*exported.messages],
        _flat(exported.working_memory),
        [*exported.facts],
        _flat(exported.entities),
        [*exported.rag_context],
        _flat(enumerate((signal.signal_id for signal in pending), 1)),
        _flat(_signals(exported.signals)),
        [_audit_entry(row) for row in exported.audit],
        _flat(exported.events),
    ]
    return [
        now,
        exported.execution_id,
        *exported.place,
        header["state"],
        field,
        "1" if is_elsewhere else "0",
        ttl_ms,
        card.text(),
        "" if due_us is None else due_us,
        "" if ended_us is None else ended_us,
        ",".join(str(len(part)) for part in parts),
        *chain.from_iterable(parts),
    ]


def _signals(signals: Iterable[ExportedSignal]) -> Iterator[tuple[str, str | int]]:
    """Yield the fields of `signals:<id>`; see `execution.lua`."""
    unconsumed: Counter[str] = Counter()
    number = 0
    for number, signal in enumerate(signals, 1):
        address = f"{signal.kind}:{signal.key}"
        yield f"s{signal.signal_id}", address
        if signal.is_answer:
            yield f"a{address}", 1
        else:
            yield f"c{number}", signal.signal_id
        if signal.text is not None:
            yield f"t{signal.signal_id}", signal.text
            unconsumed[address] += 1
    if number:
        yield "c", number
    yield from ((f"n{address}", count) for address, count in unconsumed.items())


def _audit_entry(row: AuditRow) -> str:
    """Return an entry of the audit trail as `audit.lua` writes it."""
    words = (row.at_us, row.event, row.from_state, row.to_state, row.attempt, said(row.by), said(row.reason))
    return "\0".join("" if word is None else str(word) for word in (*words, row.signal, row.worker))


def _flat(pairs: Iterable[tuple[str | int, str | int]]) -> list[str | int]:
    return [*chain.from_iterable(pairs)]
