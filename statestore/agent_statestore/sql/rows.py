"""The parts of an execution as rows, and rows as the parts of a context or of an exported execution."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from agent_statestore.codec import AuditRow, EncodedCheckpoint, EncodedStep, decode_context
from agent_statestore.codec.exported import EXPORTED_FIELDS, LEFT_BEHIND, ExportedExecution, ExportedSignal
from agent_statestore.codec.signals import address_of
from agent_statestore.records import AgentContext
from agent_statestore.sql.tables import ENTITY, FACT, MESSAGE, RAG, WORKING


def notes_of(change: EncodedCheckpoint | ExportedExecution) -> list[tuple[str, str]]:
    """Return what a checkpoint appends, or all notes of an exported execution, as (kind, text)."""
    return [
        *((MESSAGE, text) for text in change.messages),
        *((FACT, text) for text in change.facts),
        *((RAG, text) for text in change.rag_context),
    ]


def values_of(change: EncodedCheckpoint | ExportedExecution) -> list[tuple[str, str, str]]:
    """Return what a checkpoint sets by key, or all values of an exported execution, as (kind, key, text).

    A key that a checkpoint both sets and forgets is left out.
    """
    forget = change.forget if isinstance(change, EncodedCheckpoint) else ()
    return [
        *((WORKING, key, text) for key, text in change.working_memory if key not in forget),
        *((ENTITY, key, text) for key, text in change.entities),
    ]


def signals_of(exported: ExportedExecution) -> list[tuple[str, str, str, str]]:
    """Return all signals of an exported execution, as (id, kind, key, text). A consumed one has lost its text."""
    return [(signal.signal_id, signal.kind, signal.key, signal.text or "") for signal in exported.signals]


def header_to_restore(exported: ExportedExecution) -> dict[str, Any]:
    """Return the values of all `COLUMNS` for an exported execution."""
    return {
        **exported.header,
        **LEFT_BEHIND,
        "intents": json.dumps({str(step.number): step.name for step in exported.steps if not step.is_done}),
        "pending": json.dumps(
            {
                signal.signal_id: address_of(signal.kind, signal.key)
                for signal in exported.signals
                if signal.text is not None
            }
        ),
        "note_count": len(exported.messages) + len(exported.facts) + len(exported.rag_context),
        "signal_count": len(exported.signals),
        "audit_count": len(exported.audit),
        "context_bytes": exported.context_bytes,
    }


def stream_end_of(exported: ExportedExecution) -> dict[str, int]:
    """Return the values of `STREAM_COLUMNS` for an exported execution: no attempt from before writes to it."""
    last = exported.events[-1][0] if exported.events else exported.trimmed_to
    return {"stream_last": last, "stream_place": 0, "stream_trimmed": exported.trimmed_to}


def context_of(
    header: Mapping[str, Any],
    *,
    steps: Iterable[str] = (),
    notes: Iterable[tuple[str, str]] = (),
    values: Iterable[tuple[str, str, str]] = (),
    signals: Iterable[str] = (),
) -> AgentContext:
    """Return the context of a header and of rows as `notes_of` and `values_of` give them, each in its order."""
    appended, named = _by_kind(notes, values)
    return decode_context(
        header,
        steps=steps,
        messages=appended[MESSAGE],
        working_memory=named[WORKING],
        facts=appended[FACT],
        entities=named[ENTITY],
        rag_context=appended[RAG],
        signals=signals,
    )


def exported_of(
    header: Mapping[str, Any],
    *,
    steps: Iterable[tuple[int, str, bool, str]],
    notes: Iterable[tuple[str, str]],
    values: Iterable[tuple[str, str, str]],
    signals: Iterable[tuple[str, str, str, str]],
    audit: Iterable[tuple[Any, ...]],
    events: Iterable[tuple[int, str]],
    trimmed_to: int,
) -> ExportedExecution:
    """Return the exported execution of a header and rows, each in its order.

    `header` is that of `agent_statestore.sql.headers.header_of`. Steps are (number, name, whether done, text), the
    others as `notes_of`, `values_of` and `signals_of` give them; rows of `audit` have `AUDIT_COLUMNS`.
    """
    appended, named = _by_kind(notes, values)
    pending = header["pending"]
    mailbox, consumed = [], []
    for signal_id, kind, key, text in signals:
        if signal_id in pending:
            mailbox.append(ExportedSignal(signal_id, kind, key, text))
        else:
            consumed.append(ExportedSignal(signal_id, kind, key, None))
    return ExportedExecution(
        header={name: header[name] for name in EXPORTED_FIELDS},
        steps=tuple(EncodedStep(number, name, text, bool(is_done)) for number, name, is_done, text in steps),
        messages=tuple(appended[MESSAGE]),
        working_memory=tuple(sorted(named[WORKING].items())),
        facts=tuple(appended[FACT]),
        entities=tuple(sorted(named[ENTITY].items())),
        rag_context=tuple(appended[RAG]),
        signals=(*mailbox, *sorted(consumed)),
        audit=tuple(AuditRow(*row) for row in audit),
        leased_until_us=header["lease_until_us"],
        events=tuple(events),
        trimmed_to=trimmed_to,
    )


def _by_kind(
    notes: Iterable[tuple[str, str]], values: Iterable[tuple[str, str, str]]
) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    appended: dict[str, list[str]] = {MESSAGE: [], FACT: [], RAG: []}
    for kind, text in notes:
        appended[kind].append(text)
    named: dict[str, dict[str, str]] = {WORKING: {}, ENTITY: {}}
    for kind, name, text in values:
        named[kind][name] = text
    return appended, named
