"""A wait for a signal, as questions, approvals and events have it: within the limits of the execution, and recorded."""

from datetime import datetime, timedelta

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import Action, JSONValue, Result, WaitKind, require_ringable
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.pauses.limit import enter_wait
from celery_agents.engine.pauses.rounds import FIRST, Round
from celery_agents.engine.pauses.signal import Standing, Waited, began, signal_or_pause


def wait(
    attempt: Attempt,
    kind: WaitKind,
    key: str,
    *,
    timeout: timedelta | None,
    step: str | None = None,
    prompt: JSONValue = None,
    schema: dict[str, JSONValue] | None = None,
    in_step: bool = False,
    asked: Round = FIRST,
    answer_type: JSONValue = None,
) -> Waited:
    """Return when there is a signal of this address or the `timeout` has passed; until then, unwind the agent.

    `key` is what a signal names, `step` the key of the waiting step where that is another. The timeout counts from when
    the execution first came here. `asked` is the round of a question. `in_step` says that the caller is a step that is
    being taken. Raise `LimitExceeded`, and `InvalidRecord` for an invalid timeout.
    """
    since = began(attempt, kind, key, step or key, asked)
    wake_at = None if timeout is None else _after(timeout, since)
    # Before a signal is taken: what is taken goes with the next write, which may be the question whether to go on.
    new_steps = 1 if asked.number == 1 else 0  # a question that is asked anew has its number already
    enter_wait(attempt, in_step=in_step, standing=Standing(step=step or key, since=since), new_steps=new_steps)
    return signal_or_pause(
        attempt,
        kind,
        key,
        since=since,
        wake_at=wake_at,
        prompt=prompt,
        schema=schema,
        in_step=in_step,
        asked=asked,
        answer_type=answer_type,
    )


def _after(timeout: timedelta, since: datetime) -> datetime:
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
