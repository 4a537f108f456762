"""Errors as replies: a status and a problem as RFC 9457 has it, and never a traceback."""

import re
from collections.abc import Callable
from typing import Any, Final

from agent_statestore.errors import (
    AlreadyAnswered,
    ContextTooLarge,
    ExecutionNotFound,
    ExecutionOver,
    IdempotencyConflict,
    InvalidRecord,
    MailboxFull,
    QuestionNotAsked,
    StoreUnavailable,
    ValueTooLarge,
)
from agent_statestore.plain_text import line_logger
from agent_statestore.records import JSONValue
from celery_agents.errors import (
    InvalidAnswer,
    InvalidArguments,
    InvalidEvent,
    InvalidInput,
    NoApprovalAsked,
    SessionBusy,
    UnknownAgent,
)
from celery_agents.http.messages import Reply
from celery_agents.lifecycle.signals import SeveralAsked
from celery_agents.lifecycle.voting import NotAnApprover

log = line_logger(__name__)

PROBLEM_JSON: Final = "application/problem+json"
TYPES: Final = "urn:celery-agents:problem:"

# The first class that fits counts.
_STATUSES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (ExecutionNotFound, 404),
    (ExecutionOver, 410),
    (AlreadyAnswered, 409),
    (IdempotencyConflict, 409),
    (SessionBusy, 409),
    (MailboxFull, 429),
    (QuestionNotAsked, 409),
    (NoApprovalAsked, 409),
    (NotAnApprover, 403),
    (SeveralAsked, 409),
    (UnknownAgent, 400),
    (InvalidInput, 400),
    (InvalidAnswer, 400),
    (InvalidEvent, 400),
    (InvalidArguments, 400),
    (ValueTooLarge, 413),
    (ContextTooLarge, 413),
    (InvalidRecord, 400),
)
# What is said in place of the error's own text, which names what the sender may not know of.
_SAID: Final[dict[type[Exception], Callable[[Any], str]]] = {
    UnknownAgent: lambda error: f"there is no agent {error.name!a:.80} here",
    SessionBusy: lambda error: f"session {error.session_id!a:.80} is busy with another execution",
    IdempotencyConflict: lambda _: "the idempotency key was used for another request",
}


class Refused(Exception):
    """A request that is wrong in itself. `type` is a short name of the fault."""

    def __init__(self, status: int, type: str, message: str, *headers: tuple[str, str]) -> None:  # noqa: A002
        super().__init__(status, type, message, *headers)
        self.status = status
        self.type = type
        self.message = message
        self.headers = headers


def reply_to(error: Exception) -> Reply:
    """Return the reply to a request that ended in this error. Log internal facts, and do not tell them."""
    if isinstance(error, Refused):
        return problem(error.status, error.type, error.message, *error.headers)
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            problems: list[str] | None = getattr(error, "problems", None)
            keys = error.keys if isinstance(error, SeveralAsked) else None
            said = _SAID.get(kind, str)(error)
            return problem(status, type(error).__name__, said, problems=problems, keys=keys)
    if isinstance(error, StoreUnavailable):
        log.error("a request was not answered: %s", error)  # its text names the store's host
        return problem(503, "StoreUnavailable", "the store cannot be reached; try again", ("Retry-After", "5"))
    log.error("a request was not answered", exc_info=error)
    return problem(500, "InternalError", "something went wrong here; the server's log says what")


def problem(
    status: int,
    type: str,  # noqa: A002 - the name of the field
    message: str,
    *headers: tuple[str, str],
    problems: list[str] | None = None,
    keys: list[str] | None = None,
) -> Reply:
    """Return a reply that says what is wrong; `problems` has one sentence per fault of the request.

    `keys` are those of which the request needs one.
    """
    said: dict[str, JSONValue] = {
        "type": TYPES + type,
        "title": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type).capitalize(),
        "status": status,
        "detail": message,
    }
    if problems is not None:
        said["problems"] = problems
    if keys is not None:
        said["keys"] = keys
    return Reply(status=status, value=said, headers=headers, content_type=PROBLEM_JSON)
