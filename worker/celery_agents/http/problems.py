"""Errors as replies: a status and `{"error": {"type": ..., "message": ...}}`, and never a traceback."""

from typing import Final

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
from celery_agents.errors import InvalidAnswer, InvalidArguments, InvalidEvent, NoApprovalAsked
from celery_agents.http.messages import Reply
from celery_agents.lifecycle.signals import SeveralAsked

log = line_logger(__name__)

# The first class that fits counts.
_STATUSES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (ExecutionNotFound, 404),
    (ExecutionOver, 410),
    (AlreadyAnswered, 409),
    (IdempotencyConflict, 409),
    (MailboxFull, 429),
    (QuestionNotAsked, 409),
    (NoApprovalAsked, 409),
    (SeveralAsked, 409),
    (InvalidAnswer, 400),
    (InvalidEvent, 400),
    (InvalidArguments, 400),
    (ValueTooLarge, 413),
    (ContextTooLarge, 413),
    (InvalidRecord, 400),
)


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
            return problem(status, type(error).__name__, str(error), problems=problems, keys=keys)
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
    error: dict[str, JSONValue] = {"type": type, "message": message}
    if problems is not None:
        error["problems"] = problems
    if keys is not None:
        error["keys"] = keys
    return Reply(status=status, value={"error": error}, headers=headers)
