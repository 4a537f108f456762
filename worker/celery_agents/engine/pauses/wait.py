"""A wait for a signal, as questions, approvals and events have it: within the limits of the execution, and recorded."""

from datetime import datetime, timedelta

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import Action, JSONValue, Result, Wait, WaitKind, require_ringable
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.pauses.limit import enter_wait
from celery_agents.engine.pauses.rounds import FIRST, Round
from celery_agents.engine.pauses.signal import Standing, Waited, signal_or_wait


def look_for(
    attempt: Attempt,
    kind: WaitKind,
    key: str,
    *,
    since: datetime,
    wake_at: datetime | None,
    step: str | None = None,
    prompt: JSONValue = None,
    schema: dict[str, JSONValue] | None = None,
    in_step: bool = False,
    asked: Round = FIRST,
    answer_type: JSONValue = None,
) -> Waited | Wait:
    """Return what has ended this wait: a signal of this address, or `wake_at`; else what is to be paused on.

    `key` is what a signal names, `step` the key of the waiting step where that is another. `asked` is the round of a
    question. `in_step` says that the caller is a step that is being taken. Raise `LimitExceeded`.
    """
    # Before a signal is taken: what is taken goes with the next write, which may be the question whether to go on.
    new_steps = 1 if asked.number == 1 else 0  # a question that is asked anew has its number already
    standing = Standing(kind=kind, key=key, step=step or key, since=since)
    enter_wait(attempt, in_step=in_step, standing=standing, new_steps=new_steps)
    return signal_or_wait(
        attempt,
        kind,
        key,
        since=since,
        wake_at=wake_at,
        prompt=prompt,
        schema=schema,
        asked=asked,
        answer_type=answer_type,
    )


def end_of_time(timeout: timedelta | None, since: datetime) -> datetime | None:
    """Return the deadline of what began then. Raise `InvalidRecord` for an invalid timeout."""
    if timeout is None:
        return None
    if not isinstance(timeout, timedelta):
        raise InvalidRecord("timeout", f"needs a timedelta, not {timeout!r:.80}")
    try:
        wake_at = since + timeout
    except OverflowError as error:
        raise InvalidRecord("timeout", f"{timeout} is too long") from error
    require_ringable("timeout", wake_at)
    return wake_at


def conclude(
    attempt: Attempt, key: str, action: Action, result: Result, since: datetime, asked: Round = FIRST
) -> Result:
    """Record how a wait ended; return what is recorded, which is a failure if the result is too large for a step."""
    recorder = attempt.recorder
    with attempt.course.lock:
        try:
            recorder.record(asked.on(recorder.make_step(key, action, result, started=since)))
        except InvalidRecord as error:
            # What came is taken out of the mailbox. Unrecorded, a replay would wait for another one in its place.
            result = Result(success=False, error=describe(error))
            recorder.record(asked.on(recorder.make_step(key, action, result, started=since)))
    return result
