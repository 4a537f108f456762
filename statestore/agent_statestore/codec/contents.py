"""Conversion of messages, facts, retrieved passages and named values to stored text and back."""

from collections.abc import Mapping
from typing import Any

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import from_us, to_us
from agent_statestore.envelope import seal, seal_value, unseal
from agent_statestore.records import Message, RagChunk


def encode_message(message: Message, max_bytes: int) -> str:
    """Return a message as stored. Raise `NotSerialisable` or `ValueTooLarge`."""
    return seal(
        "message",
        {
            "role": message.role,
            "content": message.content,
            "at": to_us(message.timestamp),
            "metadata": dict(message.metadata) or None,
            "by_run": message.by_run or None,
        },
        "message",
        max_bytes,
    )


def decode_message(text: str | bytes) -> Message:
    """Return a stored message."""
    fields = unseal(text, "message")
    return Message(
        role=fields["role"],
        content=fields.get("content"),
        timestamp=from_us(fields["at"]),
        metadata=fields.get("metadata", {}),
        by_run=fields.get("by_run", False),
    )


def encode_facts(checkpoint: Checkpoint, max_bytes: int) -> tuple[str, ...]:
    """Return the checkpoint's facts as stored. Raise `NotSerialisable` or `ValueTooLarge`."""
    by_run = checkpoint.facts_by_run or None
    return tuple([seal("fact", {"fact": fact, "by_run": by_run}, "facts", max_bytes) for fact in checkpoint.facts])


def encode_items(field: str, items: Mapping[str, Any], max_bytes: int) -> tuple[tuple[str, str], ...]:
    """Return named values as stored. Raise `NotSerialisable` or `ValueTooLarge`, naming the field and the key."""
    return tuple((key, seal_value(value, f"{field}[{key!r}]", max_bytes)) for key, value in items.items())


def encode_rag(chunk: RagChunk, max_bytes: int) -> str:
    """Return the passage as stored. Raise `NotSerialisable` or `ValueTooLarge`."""
    return seal(
        "rag_context",
        {
            "content": chunk.content,
            "source": chunk.source,
            "score": chunk.score,
            "metadata": dict(chunk.metadata) or None,
        },
        "rag_context",
        max_bytes,
    )


def decode_rag(text: str | bytes) -> RagChunk:
    """Return a stored passage."""
    fields = unseal(text, "rag_context")
    return RagChunk(
        content=fields.get("content"),
        source=fields.get("source"),
        score=fields.get("score"),
        metadata=fields.get("metadata", {}),
    )
