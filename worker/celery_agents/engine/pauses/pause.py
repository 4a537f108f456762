"""Pauses: writes that the execution waits, once all other steps are recorded, and unwinds the agent."""

from dataclasses import replace
from typing import NoReturn

from agent_statestore.records import AgentStep, Wait, WaitKind
from agent_statestore.states import AgentState
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.outcome import Outcome
from celery_agents.engine.steps.scope import PutOff, StepWaits


def pause(attempt: Attempt, state: AgentState, waiting: Wait, *, in_step: bool = False) -> NoReturn:
    """Pause on `waiting`; `in_step` says that the caller is a step that is being taken itself."""
    with attempt.course.lock:
        attempt.course.check_goes_on()
        if in_step:
            _put_off(attempt, state, waiting)
        _pause(attempt, state, waiting, in_step=in_step)


def pause_step(attempt: Attempt, waiting: Wait, intent: AgentStep) -> NoReturn:
    """`pause` on a timer, from inside a step that is being taken: `intent` keeps its number of tries.

    Where several steps want to wait, they do so together, until the last of them may go on.
    """
    course = attempt.course
    with course.lock:
        intents: tuple[AgentStep, ...] = (intent,)
        if attempt.nesting.is_concurrent:
            attempt.recorder.record_intent(intent)
            intents = ()
            _put_off(attempt, AgentState.WAITING, waiting)
            if course.pausing_on is not None:
                course.pausing_on = _waking_for(course.pausing_on, waiting)
            course.check_goes_on()
        _pause(attempt, AgentState.WAITING, waiting, intents, in_step=True)


def pause_together(attempt: Attempt, waits: PutOff) -> None:
    """Pause if there are any waits. Those for a time end with the last of them; a question comes first."""
    with attempt.course.lock:
        attempt.course.check_goes_on()
        if waits:
            asking = [one for one in waits if one[1].kind is not WaitKind.TIMER]
            latest = max(waits, key=lambda one: one[1].wake_at or one[1].asked_at)
            state, waiting = asking[0] if asking else latest
            for _, other in waits:
                waiting = _waking_for(waiting, other)
            _pause(attempt, state, waiting, in_step=False)


def _put_off(attempt: Attempt, state: AgentState, waiting: Wait) -> None:
    """Leave the pause to `pause_together`, where steps are taken beside this one."""
    put_off = attempt.nesting.put_off
    if put_off is not None and attempt.course.stopped is None:
        attempt.last_write.check_pause(state, waiting)
        put_off.append((state, waiting))
        raise StepWaits


def _pause(
    attempt: Attempt, state: AgentState, waiting: Wait, intents: tuple[AgentStep, ...] = (), *, in_step: bool
) -> NoReturn:
    def write(waiting: Wait) -> Outcome:
        return attempt.last_write.pause(state, _awake_at_deadline(attempt, waiting), intents)

    waiting = _awake_at_deadline(attempt, waiting)
    # Before anything is unwound: a pause that cannot be stored is an error of the agent's.
    attempt.last_write.check_pause(state, waiting, intents)
    attempt.course.pause(waiting, write, in_step=in_step)


def _awake_at_deadline(attempt: Attempt, waiting: Wait) -> Wait:
    """An execution that waits for what does not come fails in time nevertheless."""
    deadline = attempt.limits.deadline
    if deadline is None or deadline <= attempt.now() or (waiting.wake_at is not None and waiting.wake_at < deadline):
        return waiting
    return replace(waiting, wake_at=deadline)


def _waking_for(waiting: Wait, other: Wait) -> Wait:
    """The wait, ending or looked after in time for another one that the execution cannot be paused on, too.

    Timers end together, with the last of them. What may never come must not keep a timer: it is waited for again.
    """
    if other.kind is not WaitKind.TIMER or other.wake_at is None:
        return waiting
    if waiting.wake_at is None:
        return replace(waiting, wake_at=other.wake_at)
    sooner_or_later = max if waiting.kind is WaitKind.TIMER else min
    return replace(waiting, wake_at=sooner_or_later(waiting.wake_at, other.wake_at))
