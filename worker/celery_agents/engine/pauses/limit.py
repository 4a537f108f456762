"""A limit that is reached: it fails the execution, or a person is asked to raise it.

The question stands outside the code's order. It may come while the execution waits for something else, and then says so
(`during`), so that this wait counts from when it began.
"""

from typing import Final

from agent_statestore.records import Action, JSONValue, Result, WaitKind
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.limits import LIMIT, Reached
from celery_agents.engine.pauses.signal import Standing, began, signal_or_pause

# A limit that is a float cannot be raised beyond what a float can hold.
_MOST: Final = 10**300
_ANSWER: Final[dict[str, JSONValue]] = {"type": "number", "minimum": 0}


def enter_wait(
    attempt: Attempt, *, in_step: bool = False, standing: Standing | None = None, new_steps: int = 1
) -> None:
    """A boundary, at which the execution may pause until so many new steps are taken. Raise `LimitExceeded`.

    The step of a caller that is `in_step` is counted already. `standing` is the wait that the execution is in.
    """
    attempt.course.enter_boundary()
    coming = len(attempt.course.unrecorded) + (0 if in_step else new_steps)
    keep_within_limits(attempt, attempt.journal.last_number + coming, in_step=in_step, standing=standing)


def keep_within_limits(attempt: Attempt, steps: int, *, in_step: bool, standing: Standing | None = None) -> None:
    """Raise `LimitExceeded`, or unwind the agent to ask a person, if a limit is reached.

    `steps` is the number of the step that is about to be taken.
    """
    while (reached := attempt.limits.reached(steps)) is not None:
        if not reached.may_ask:
            raise reached.error
        _ask(attempt, reached, in_step=in_step, standing=standing)


def _ask(attempt: Attempt, reached: Reached, *, in_step: bool, standing: Standing | None) -> None:
    what = reached.what
    with attempt.course.lock:
        key = attempt.limits.next_question(what)
        asked: dict[str, JSONValue] = {"limit": what}
        if standing is not None:
            asked["during"] = {"step": standing.step, "since": standing.since.isoformat()}
        since = began(attempt, WaitKind.INPUT, key, key)
        attempt.course.enter_boundary()
        waited = signal_or_pause(
            attempt,
            WaitKind.INPUT,
            key,
            since=since,
            prompt={"question": f"{reached.error}. How many {what} more may it use? 0 lets it fail.", **asked},
            schema=_ANSWER,
            in_step=in_step,
        )
        assert waited.signal is not None, "a question without a deadline"
        # A refusal is recorded too, so that code that goes on past the error is not asked about for ever.
        more = _amount(waited.signal.payload)
        action, result = Action(kind=LIMIT, input=asked), Result(success=True, output=more)
        attempt.recorder.record(attempt.recorder.make_step(key, action, result, started=since))
        attempt.journal.pass_by((key,))
        attempt.limits.take_in(asked, more)
    if not more:
        raise reached.error


def _amount(answer: JSONValue) -> float:
    """Return what a person adds. An answer that came past the client's check, and is no amount, adds nothing."""
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        return 0
    return min(max(answer, 0), _MOST)
