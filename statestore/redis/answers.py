"""What the scripts answer, as records; works with clients that decode answers and with those that do not."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

from statestore.codec import HEADER_FIELDS, decode_context
from statestore.envelope import FORMAT
from statestore.errors import (
    AlreadyAnswered,
    ExecutionNotFound,
    ExecutionOver,
    FormatTooNew,
    IllegalTransition,
    LeaseHeld,
    LeaseLost,
    QuestionNotAsked,
    StepConflict,
    StoreError,
)
from statestore.records import AgentContext

# What `decode_summary` reads, `execution_id` first: every header has it.
SUMMARY_FIELDS: Final = tuple(name for name in HEADER_FIELDS if name not in ("input", "output", "due_us"))


def text(value: str | bytes) -> str:
    """A name or an id of an answer."""
    return value.decode() if isinstance(value, bytes) else value


def pairs(flat: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """The names and values of a hash."""
    return zip(map(text, flat[::2]), flat[1::2], strict=True)


def summary_header(values: Sequence[Any]) -> Mapping[str, Any]:
    """The header that `get_summary.lua` answered."""
    *fields, due_us = values
    return {**dict(zip(SUMMARY_FIELDS, fields, strict=True)), "due_us": due_us}


def context(parts: Sequence[Any]) -> AgentContext:
    """The context that `get_context.lua` or `claim.lua` answered."""
    header, steps, messages, memory, facts, entities, rag, signals = parts
    return decode_context(
        dict(pairs(header)),
        steps=steps,
        messages=messages,
        working_memory=dict(pairs(memory)),
        facts=facts,
        entities=dict(pairs(entities)),
        rag_context=rag,
        signals=signals,
    )


def refuse(answer: Sequence[Any], execution_id: str, *, token: int = 0, new_state: str = "", key: str = "") -> NoReturn:
    """Raises the error that a script's status stands for."""
    status, *facts = (text(item) for item in answer)
    errors: dict[str, StoreError] = {
        "NOT_FOUND": ExecutionNotFound(execution_id),
        "LEASE_LOST": LeaseLost(execution_id, token),
        "LEASE_HELD": LeaseHeld(execution_id),
        "ALREADY_ANSWERED": AlreadyAnswered(execution_id, key),
        "NOT_ASKED": QuestionNotAsked(execution_id, key),
    }
    match status, facts:
        case "OVER", [state]:
            raise ExecutionOver(execution_id, state)
        case "ILLEGAL", [current]:
            raise IllegalTransition(execution_id, current, new_state)
        case "STEP_CONFLICT", [number, recorded]:
            raise StepConflict(execution_id, int(number), int(recorded))
        case "FORMAT_TOO_NEW", [found]:
            raise FormatTooNew(f"execution {execution_id}", int(found), FORMAT)
    raise errors[status]
