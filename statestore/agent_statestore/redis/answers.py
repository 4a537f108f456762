"""The scripts' answers as records."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

from agent_statestore.codec import HEADER_FIELDS, AuditRow, EncodedCheckpoint, EncodedStep, decode_context
from agent_statestore.codec.contexts import emptied
from agent_statestore.codec.exported import EXPORTED_FIELDS, ExportedExecution, ExportedSignal
from agent_statestore.envelope import FORMAT, require_readable, unseal
from agent_statestore.errors import (
    AlreadyAnswered,
    CheckpointConflict,
    ContextTooLarge,
    ExecutionNotFound,
    ExecutionOver,
    ExecutionUnreadable,
    FormatTooNew,
    IllegalTransition,
    LeaseHeld,
    LeaseLost,
    MailboxFull,
    QuestionNotAsked,
    StepConflict,
    StoreError,
)
from agent_statestore.records import AgentContext, Checkpointed
from agent_statestore.states import OVER

# The fields that `decode_summary` reads, `execution_id` first: every header has it.
SUMMARY_FIELDS: Final = tuple(name for name in HEADER_FIELDS if name not in ("input", "output", "due_us"))

# The fields of a header that are numbers; the rest is text.
_NUMBERS: Final = frozenset(
    {
        *("format", "priority", "version", "token", "crashes", "cancel_requested", "not_before_us", "due_us"),
        *("step_count", "created_us", "updated_us", "ended_us"),
    }
)


def text(value: str | bytes) -> str:
    """Return a name or an id of an answer as text."""
    return value.decode() if isinstance(value, bytes) else value


def pairs(flat: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of a hash."""
    return zip(map(text, flat[::2]), flat[1::2], strict=True)


def summary_header(values: Sequence[Any], execution_id: str) -> Mapping[str, Any]:
    """Return the header that `get_summary.lua` answered."""
    *fields, due_us = values
    header = {**dict(zip(SUMMARY_FIELDS, fields, strict=True)), "due_us": due_us}
    return with_end(header | {"execution_id": execution_id})


def with_end(header: dict[str, Any]) -> dict[str, Any]:
    """Return the header with the right `ended_us`, also where an older version of this package has written last.

    An older version left it out, and did not clear it when it released a dead letter. Nothing is written to an
    execution after its end, so the last write was the end.
    """
    is_over = header.get("state") is not None and text(header["state"]) in OVER
    header["ended_us"] = (header.get("ended_us") or header.get("updated_us")) if is_over else None
    return header


def context(parts: Sequence[Any]) -> AgentContext:
    """Return the context that `get_context.lua` or `claim.lua` answered."""
    header, steps, messages, memory, facts, entities, rag, signals = parts
    return decode_context(
        with_end(dict(pairs(header))),
        steps=emptied(steps),
        messages=messages,
        working_memory=dict(pairs(memory)),
        facts=facts,
        entities=dict(pairs(entities)),
        rag_context=rag,
        signals=signals,
    )


def audit_rows(entries: Sequence[str | bytes]) -> Iterator[AuditRow]:
    """Yield the audit trail of `audit:<id>`; `audit.lua` lists the parts of an entry."""
    for position, entry in enumerate(entries, 1):
        at_us, event, before, after, attempt, by, reason, signal, worker = text(entry).split("\0", 8)
        yield AuditRow(
            position=position,
            at_us=int(at_us),
            event=event,
            from_state=before or None,
            to_state=after or None,
            attempt=int(attempt),
            worker=worker or None,
            by=by[1:] if by else None,
            reason=reason[1:] if reason else None,
            signal=signal or None,
        )


def exported(parts: Sequence[Any]) -> ExportedExecution:
    """Return the execution that `export.lua` answered. Raise `FormatTooNew`."""
    stored, due_us, steps, messages, memory, facts, entities, rag, mailbox, signals, audit, events = parts
    header = with_end({**dict(pairs(stored)), "due_us": due_us})
    require_readable(f"execution {text(header['execution_id'])}", int(header["format"]))
    return ExportedExecution(
        header={name: _typed(name, header.get(name)) for name in EXPORTED_FIELDS},
        steps=tuple(_step(number, text(step)) for number, step in enumerate(steps, 1)),
        messages=tuple(map(text, messages)),
        working_memory=_sorted_pairs(memory),
        facts=tuple(map(text, facts)),
        entities=_sorted_pairs(entities),
        rag_context=tuple(map(text, rag)),
        signals=tuple(_signals([text(signal_id) for signal_id in mailbox], dict(pairs(signals)))),
        audit=tuple(audit_rows(audit)),
        leased_until_us=int(header["lease_until_us"]),
        events=tuple((int(number), text(event)) for number, event in zip(events[::2], events[1::2], strict=True)),
        trimmed_to=int(header.get("stream_trimmed") or 0),
    )


def _typed(name: str, value: Any) -> str | int | None:
    if value is None:
        return None
    return int(value) if name in _NUMBERS else text(value)


def _step(number: int, stored: str) -> EncodedStep:
    fields = unseal(stored, "step")
    return EncodedStep(number, fields["name"], stored, fields.get("result") is not None)


def _sorted_pairs(flat: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, text(value)) for name, value in pairs(flat)))


def _signals(mailbox: Sequence[str], stored: Mapping[str, Any]) -> Iterator[ExportedSignal]:
    """Yield the unconsumed signals in the order of their arrival, then the consumed ones by id."""
    # A value without a colon is not an address but the number of an older version.
    ids = (name[1:] for name, value in stored.items() if name.startswith("s") and ":" in text(value))
    for signal_id in (*mailbox, *sorted(set(ids) - set(mailbox))):
        kind, _, key = text(stored[f"s{signal_id}"]).partition(":")
        kept = stored.get(f"t{signal_id}")
        yield ExportedSignal(signal_id, kind, key, None if kept is None else text(kept))


def checkpointed(
    answer: Sequence[Any], execution_id: str, change: EncodedCheckpoint, token: int | None
) -> Checkpointed:
    """Return what `checkpoint.lua` says it did. Raise the error that it says otherwise."""
    if text(answer[0]) != "OK":
        refuse(
            answer,
            execution_id,
            token=token or 0,
            new_state="" if change.state is None else change.state.value,
            after=change.after_checkpoint or "",
        )
    version, cancel_requested, due_now = (int(number) for number in answer[1:])
    return Checkpointed(version=version, cancel_requested=bool(cancel_requested), due_now=bool(due_now))


def refuse(
    answer: Sequence[Any],
    execution_id: str,
    *,
    token: int = 0,
    new_state: str = "",
    key: str = "",
    after: str = "",
    limit: int = 0,
) -> NoReturn:
    """Raise the error that a script's status stands for."""
    status, *facts = (text(item) for item in answer)
    errors: dict[str, StoreError] = {
        "NOT_FOUND": ExecutionNotFound(execution_id),
        "LEASE_LOST": LeaseLost(execution_id, token),
        "LEASE_HELD": LeaseHeld(execution_id),
        "ALREADY_ANSWERED": AlreadyAnswered(execution_id, key),
        "NOT_ASKED": QuestionNotAsked(execution_id, key),
        "MAILBOX_FULL": MailboxFull(execution_id, key, limit),
    }
    match status, facts:
        case "OVER", [state]:
            raise ExecutionOver(execution_id, state)
        case "CONFLICT", [last]:
            raise CheckpointConflict(execution_id, after, last)
        case "ILLEGAL", [current]:
            raise IllegalTransition(execution_id, current, new_state)
        case "STEP_CONFLICT", [number, recorded]:
            raise StepConflict(execution_id, int(number), int(recorded))
        case "UNREADABLE", [field]:
            raise ExecutionUnreadable(execution_id, "header", f"its {field} is damaged")
        case "TOO_LARGE", [size, most]:
            raise ContextTooLarge(execution_id, int(size), int(most))
        case "FORMAT_TOO_NEW", [found]:
            raise FormatTooNew(f"execution {execution_id}", int(found), FORMAT)
    raise errors[status]
