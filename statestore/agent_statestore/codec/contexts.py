"""Whole contexts, made from stored headers and parts."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from agent_statestore.codec.contents import decode_message, decode_rag
from agent_statestore.codec.headers import summary_fields, text_of
from agent_statestore.codec.signals import decode_signal
from agent_statestore.codec.steps import decode_step
from agent_statestore.envelope import load, unseal
from agent_statestore.records import AgentContext, Memory

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def decode_context(
    header: Mapping[str, Any],
    *,
    steps: Iterable[str | bytes] = (),
    messages: Iterable[str | bytes] = (),
    working_memory: Mapping[str, str | bytes] = _NOTHING,
    facts: Iterable[str | bytes] = (),
    entities: Mapping[str, str | bytes] = _NOTHING,
    rag_context: Iterable[str | bytes] = (),
    signals: Iterable[str | bytes] = (),
) -> AgentContext:
    """Return the context of a stored header and the parts in their order. `signals` are the unconsumed ones."""
    output = header.get("output")
    noted = [unseal(text, "fact") for text in facts]
    return AgentContext(
        **summary_fields(header),
        input=load(header["input"]),
        output=None if output is None else load(output),
        steps=tuple(decode_step(text) for text in steps),
        memory=Memory(
            conversation_history=tuple(decode_message(text) for text in messages),
            working_memory={key: load(text) for key, text in working_memory.items()},
            facts=tuple(fields.get("fact") for fields in noted),
            run_facts=tuple(fields.get("fact") for fields in noted if fields.get("by_run")),
            entities={key: load(text) for key, text in entities.items()},
        ),
        rag_context=tuple(decode_rag(text) for text in rag_context),
        signals=tuple(decode_signal(text) for text in signals),
        last_checkpoint=text_of(header.get("checkpoint_id")) or "",
    )
