"""The parts of a checkpoint as rows, and rows as the parts of a context."""

from collections.abc import Iterable, Mapping
from typing import Any

from statestore.codec import EncodedCheckpoint, decode_context
from statestore.records import AgentContext
from statestore.sql.tables import ENTITY, FACT, MESSAGE, RAG, WORKING


def notes_of(change: EncodedCheckpoint) -> list[tuple[str, str]]:
    """What the checkpoint appends, as (kind, text)."""
    return [
        *((MESSAGE, text) for text in change.messages),
        *((FACT, text) for text in change.facts),
        *((RAG, text) for text in change.rag_context),
    ]


def values_of(change: EncodedCheckpoint) -> list[tuple[str, str, str]]:
    """What the checkpoint sets by key, as (kind, key, text). What it sets and forgets at once is left out."""
    return [
        *((WORKING, key, text) for key, text in change.working_memory if key not in change.forget),
        *((ENTITY, key, text) for key, text in change.entities),
    ]


def context_of(
    header: Mapping[str, Any],
    *,
    steps: Iterable[str] = (),
    notes: Iterable[tuple[str, str]] = (),
    values: Iterable[tuple[str, str, str]] = (),
    signals: Iterable[str] = (),
) -> AgentContext:
    """The context made of a header and rows as `notes_of` and `values_of` give them, each in its order."""
    appended: dict[str, list[str]] = {MESSAGE: [], FACT: [], RAG: []}
    for kind, text in notes:
        appended[kind].append(text)
    named: dict[str, dict[str, str]] = {WORKING: {}, ENTITY: {}}
    for kind, name, text in values:
        named[kind][name] = text
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
