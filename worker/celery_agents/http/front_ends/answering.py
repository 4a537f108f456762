"""Answers of front ends to what executions ask, and where in its stream an execution goes on after them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from agent_statestore.errors import AlreadyAnswered, ExecutionOver, QuestionNotAsked
from agent_statestore.records import ExecutionSummary
from agent_statestore.store import Store
from agent_statestore.streams import StreamKind
from agent_statestore.streams.records import MOST_READ
from celery_agents.errors import NoApprovalAsked
from celery_agents.http.calls import EndpointCall
from celery_agents.http.formats.asks import Ask
from celery_agents.http.permission import Act
from celery_agents.http.problems import Refused

# Somebody was first, or time has run out: the stream tells what came of it.
_TOO_LATE: Final = (AlreadyAnswered, ExecutionOver, NoApprovalAsked, QuestionNotAsked)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAnswer:
    """An answer. `is_refused` refuses a call, or gives a question up, which cancels the execution.

    `value` is the answer to a question; `arguments` those with which a call is approved, if not its own.
    """

    ask: Ask
    is_refused: bool = False
    value: Any = None
    arguments: dict[str, Any] | None = None
    reason: str | None = None


def answered(call: EndpointCall, answers: Sequence[GivenAnswer]) -> tuple[ExecutionSummary, int]:
    """Send the answers; return their execution, and the number of the event behind which it goes on.

    An answer that comes too late is left out: the stream tells what came of the question. Raise `Refused` for answers
    to several executions or to none, `ExecutionNotFound`, and what the methods of `Execution` raise for answers that do
    not fit.
    """
    ids = {answer.ask.execution_id for answer in answers}
    if len(ids) != 1:
        raise Refused(400, "InvalidBody", "the answers need to be those to one execution")
    [execution_id] = ids
    summary = call.handle_of(execution_id).summary()
    call.require(Act.READ, summary)
    goes_on_behind = _last_pause(call.services.store, execution_id, answers)
    for answer in answers:
        _send(call, summary, answer)
    return summary, goes_on_behind


def _send(call: EndpointCall, summary: ExecutionSummary, answer: GivenAnswer) -> None:
    """Send an answer, if the execution waits for it."""
    ask, execution = answer.ask, call.handle_of(summary.execution_id)
    if not any((wait.key, wait.round) == (ask.key, ask.round) for wait in summary.waits):
        return
    with suppress(*_TOO_LATE):
        if ask.is_approval:
            call.require(Act.REJECT if answer.is_refused else Act.APPROVE, summary)
            told: dict[str, Any] = {"key": ask.key, "digest": ask.digest, "sender": call.sender}
            if answer.is_refused:
                execution.reject(**told, reason=answer.reason)
            else:
                execution.approve(**told, arguments=answer.arguments, reason=answer.reason)
        elif answer.is_refused:
            call.require(Act.CANCEL, summary)
            execution.cancel(sender=call.sender, reason=answer.reason or "its question was given up")
        else:
            call.require(Act.ANSWER, summary)
            execution.resume(answer.value, key=ask.key, round=ask.round, sender=call.sender, reason=answer.reason)


def _last_pause(store: Store, execution_id: str, answers: Sequence[GivenAnswer]) -> int:
    """Return the number of the last pause in which one of these was asked; 0 if the stream has none."""
    asked = {(answer.ask.key, answer.ask.round) for answer in answers}
    found, after = 0, 0
    while (page := store.read_events(execution_id, after, MOST_READ)) is not None and page.events:
        for event in page.events:
            after = event.number or after
            waits = event.data.get("waits") if event.kind == StreamKind.PAUSED else None
            for wait in waits if isinstance(waits, list | tuple) else ():
                if isinstance(wait, dict) and (wait.get("key"), wait.get("round")) in asked:
                    found = after
        if not page.has_more:
            break
    return found
