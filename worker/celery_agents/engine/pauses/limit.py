"""A limit that is reached: it fails the execution, or a person is asked to raise it.

The question stands outside the code's order. It may come while the execution waits for something else, and then says so
(`during`), so that this wait counts from when it began.
"""

from typing import Final

from agent_statestore.records import Action, JSONValue, Result, Wait, WaitKind
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.paused_on import DURING
from celery_agents.engine.limits import LIMIT, Reached
from celery_agents.engine.pauses.pause import pause
from celery_agents.engine.pauses.rounds import Round
from celery_agents.engine.pauses.signal import Standing, began, signal_or_wait

# A limit that is a float cannot be raised beyond what a float can hold.
_MOST: Final = 10**300
_ANSWER: Final[dict[str, JSONValue]] = {"type": "number", "minimum": 0}


def enter_wait(
    attempt: Attempt, *, in_step: bool = False, standing: Standing | None = None, new_steps: int = 1
) -> None:
    """A boundary, at which the execution may pause until so many new steps are taken. Raise `LimitExceeded`.

    The step of a caller that is `in_step` is counted already. `standing` is the wait that the execution is in.
    """
    # What others are beside was begun before a pause that is about to be written, and may join it.
    attempt.course.enter_boundary(is_expected=in_step or attempt.nesting.put_off is not None)
    coming = len(attempt.course.unrecorded) + (0 if in_step else new_steps)
    keep_within_limits(attempt, attempt.journal.last_number + coming, in_step=in_step, standing=standing)


def keep_within_limits(attempt: Attempt, steps: int, *, in_step: bool, standing: Standing | None = None) -> None:
    """Raise `LimitExceeded`, or unwind the agent to ask a person, if a limit is reached.

    `steps` is the number of the step that is about to be taken.
    """
    while (reached := attempt.limits.reached(steps)) is not None:
        if not reached.may_ask:
            raise reached.error
        with attempt.course.lock:
            # A task beside this one may have got an answer meanwhile.
            reached = attempt.limits.reached(steps)
            if reached is not None and reached.may_ask:
                _ask(attempt, reached, in_step=in_step, standing=standing)


# Under the lock of the course.
def _ask(attempt: Attempt, reached: Reached, *, in_step: bool, standing: Standing | None) -> None:
    what = reached.what
    key = attempt.limits.next_question(what)
    asked: dict[str, JSONValue] = {"limit": what}
    if standing is not None:
        own: JSONValue = {"step": standing.step, "since": standing.since.isoformat()}
        others = attempt.recorder.paused_on.interrupted(standing.kind, standing.key, standing.step)
        asked[DURING] = [own, *others] if others else own
    since = began(attempt, WaitKind.INPUT, key, key)
    attempt.course.enter_boundary()
    action = Action(kind=LIMIT, input=asked)
    intent = attempt.journal.step(key) if attempt.journal.has(key) else None
    in_round = Round.of(intent)
    while True:
        waited = signal_or_wait(
            attempt,
            WaitKind.INPUT,
            key,
            since=since,
            prompt={"question": f"{reached.error}. How many {what} more may it use? 0 lets it fail.", **asked},
            schema=_ANSWER,
            asked=in_round,
        )
        if isinstance(waited, Wait):
            pause(attempt, waited, in_step=in_step)
        assert waited.signal is not None, "a question without a deadline"
        more = waited.signal.payload
        problems = [*waited.problems]
        if not problems and isinstance(more, int | float) and not isinstance(more, bool) and more >= 0:
            break
        problems = problems or [f"{more!r:.200} is no number of at least 0"]
        in_round = in_round.refuse(attempt, key, action, waited.signal, problems, since)
    more = min(more, _MOST)
    # A refusal to raise it is recorded too, so that code that goes on past the error is not asked for ever.
    result = Result(success=True, output=more)
    # Before the pause is forgotten: tasks beside this one look since when they wait.
    attempt.limits.keep_interrupted(asked)
    attempt.recorder.record(in_round.on(attempt.recorder.make_step(key, action, result, started=since)))
    attempt.journal.pass_by((key,))
    attempt.limits.take_in(asked, more)
    if not more:
        raise reached.error
