"""Pauses: writes that the execution waits, once all other steps are recorded, and unwinds the agent."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from agent_statestore.records import AgentStep, Wait, WaitKind
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.outcome import Outcome
from celery_agents.engine.pauses.merging import merged
from celery_agents.engine.steps.scope import Opened, PutOff, StepWaits


def pause(attempt: Attempt, waiting: Wait, *, step: str | None = None, in_step: bool = False) -> NoReturn:
    """Pause on `waiting`; `in_step` says that the caller is a step that is being taken itself.

    `step` is the key of the step that waits, where that is not the key of the wait.
    """
    pause_on(attempt, [Opened(step or waiting.key, waiting)], in_step=in_step)


def pause_on(attempt: Attempt, opened: Sequence[Opened], *, in_step: bool = False) -> NoReturn:
    """Pause on all of these: whatever comes first ends the pause."""
    with attempt.course.lock:
        if attempt.course.is_pausing and not attempt.course.is_written:
            _check(attempt, opened)
            attempt.course.pausing_on += tuple(opened)
            attempt.mailbox.hand_over()
        attempt.course.check_goes_on()
        _put_off(attempt, opened)
        _pause(attempt, opened, in_step=in_step)


def pause_step(attempt: Attempt, waiting: Wait, intent: AgentStep) -> NoReturn:
    """`pause` on a timer, from inside a step that is being taken: `intent` keeps its number of tries.

    Where several steps want to wait, they do so together, until the last of them may go on.
    """
    course, opened = attempt.course, Opened(waiting.key, waiting)
    with course.lock:
        intents: tuple[AgentStep, ...] = (intent,)
        if attempt.nesting.is_concurrent:
            attempt.recorder.record(intent)
            intents = ()
            if course.stopped is None:
                _put_off(attempt, [opened])
            if len(course.pausing_on) == 1:
                first = course.pausing_on[0]
                course.pausing_on = (first._replace(wait=_waking_for(first.wait, waiting)),)
            elif course.pausing_on:
                course.pausing_on += (opened,)
            course.check_goes_on()
        _pause(attempt, [opened], intents, in_step=True)


def pause_together(attempt: Attempt, waits: PutOff) -> None:
    """Pause if there are any waits. Those for a time end with the last of them; questions come first."""
    with attempt.course.lock:
        attempt.course.check_goes_on()
        if not waits:
            return
        asking = [one for one in waits if one.wait.kind is not WaitKind.TIMER]
        if len(asking) > 1:
            pause_on(attempt, waits)
        opened = asking[0] if asking else max(waits, key=lambda one: one.wait.wake_at or one.wait.asked_at)
        for other in waits:
            opened = opened._replace(wait=_waking_for(opened.wait, other.wait))
        pause_on(attempt, [opened])


def pause_on_open_waits(attempt: Attempt) -> None:
    """Pause on what the tasks of an async agent wait for, if there still is anything."""
    with attempt.course.lock:
        attempt.course.check_goes_on()
        if attempt.course.open_waits:
            _pause(attempt, (), in_step=False)


def _put_off(attempt: Attempt, opened: Sequence[Opened]) -> None:
    """Leave the pause to whoever knows of what goes on beside this."""
    put_off = attempt.nesting.put_off
    if put_off is not None:
        _check(attempt, opened)
        put_off.extend(opened)
        attempt.mailbox.hand_over()
        raise StepWaits


def _check(attempt: Attempt, opened: Sequence[Opened], intents: tuple[AgentStep, ...] = ()) -> None:
    """Before anything is unwound: a pause that cannot be stored is an error of the agent's."""
    attempt.last_write.check_pause(_waits(attempt, opened), intents)


def _pause(
    attempt: Attempt, opened: Sequence[Opened], intents: tuple[AgentStep, ...] = (), *, in_step: bool
) -> NoReturn:
    def write(opened: tuple[Opened, ...]) -> Outcome:
        attempt.mailbox.take_over()
        return attempt.last_write.pause(_waits(attempt, opened), intents)

    open_waits = attempt.course.open_waits
    beside = [one for number in sorted(open_waits) for one in open_waits.get(number, ())]
    together = (*beside, *opened)
    _check(attempt, together, intents)
    attempt.course.pause(together, write, in_step=in_step)


def _waits(attempt: Attempt, opened: Sequence[Opened]) -> tuple[Wait, ...]:
    """Return what the store is to have. An execution that waits for what does not come fails in time nevertheless."""
    waits = merged(opened)
    deadline = attempt.limits.deadline
    if deadline is None or deadline <= attempt.now():
        return waits
    if any(wait.wake_at is not None and wait.wake_at < deadline for wait in waits):
        return waits
    return (replace(waits[0], wake_at=deadline), *waits[1:])


def _waking_for(waiting: Wait, other: Wait) -> Wait:
    """The wait, ending or looked after in time for another one that the execution is not paused on, too.

    Timers end together, with the last of them. What may never come must not keep a timer: it is waited for again.
    """
    if other.kind is not WaitKind.TIMER or other.wake_at is None:
        return waiting
    if waiting.wake_at is None:
        return replace(waiting, wake_at=other.wake_at)
    sooner_or_later = max if waiting.kind is WaitKind.TIMER else min
    return replace(waiting, wake_at=sooner_or_later(waiting.wake_at, other.wake_at))
