"""Whole contexts, made from stored headers and parts."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

from agent_statestore.codec.contents import decode_message, decode_rag
from agent_statestore.codec.headers import summary_fields, text_of
from agent_statestore.codec.signals import decode_signal
from agent_statestore.codec.steps import decode_step
from agent_statestore.envelope import reading, unseal, unseal_value
from agent_statestore.errors import ExecutionUnreadable
from agent_statestore.records import AgentContext, AgentStep, Memory

T = TypeVar("T")

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def emptied(texts: list[T]) -> Iterator[T]:
    """Yield the items of a list, which is emptied meanwhile: of a long execution memory holds no second copy."""
    texts.reverse()
    while texts:
        yield texts.pop()


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
    """Return the context of a stored header and the parts in their order. `signals` are the unconsumed ones.

    Raise `FormatTooNew`, and `ExecutionUnreadable` for a part that is damaged. The steps are compared with their number
    in the header: tables that were restored from different times do not fit together.
    """
    execution_id = str(text_of(header.get("execution_id")))
    known = reading(execution_id, "header", lambda: summary_fields(header))
    output = header.get("output")
    noted = reading(execution_id, "facts", lambda: [unseal(text, "fact") for text in facts])
    return AgentContext(
        **known,
        input=reading(execution_id, "input", lambda: unseal_value(header["input"])),
        output=None if output is None else reading(execution_id, "output", lambda: unseal_value(output)),
        steps=_whole(
            execution_id,
            reading(execution_id, "steps", lambda: tuple([decode_step(text) for text in steps])),
            known["step_count"],
        ),
        memory=reading(
            execution_id,
            "memory",
            lambda: Memory(
                conversation_history=tuple(decode_message(text) for text in messages),
                working_memory={key: unseal_value(text) for key, text in working_memory.items()},
                facts=tuple(fields.get("fact") for fields in noted),
                run_facts=tuple(fields.get("fact") for fields in noted if fields.get("by_run")),
                entities={key: unseal_value(text) for key, text in entities.items()},
            ),
        ),
        rag_context=reading(execution_id, "rag_context", lambda: tuple(decode_rag(text) for text in rag_context)),
        signals=reading(execution_id, "signals", lambda: tuple(decode_signal(text) for text in signals)),
        last_checkpoint=text_of(header.get("checkpoint_id")) or "",
    )


def _whole(execution_id: str, steps: tuple[AgentStep, ...], count: int) -> tuple[AgentStep, ...]:
    """Return the steps if they are all there, numbered from 1 without a gap."""
    if len(steps) != count:
        raise ExecutionUnreadable(execution_id, "steps", f"{count} were recorded, and {len(steps)} are there")
    for number, step in enumerate(steps, 1):
        if step.step_number != number:
            raise ExecutionUnreadable(execution_id, "steps", f"in place of number {number} is {step.step_number}")
    return steps
