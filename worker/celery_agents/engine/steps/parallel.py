"""`run.parallel`: several steps at once, each recorded as it ends. A crash repeats only the unfinished ones."""

import contextvars
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any, Final, TypeVar

from celery_agents.engine.attempt import Attempt
from celery_agents.engine.outcome import ExecutionStopped
from celery_agents.engine.pauses.pause import pause_on, pause_together
from celery_agents.engine.steps.call import CallOptions, Place
from celery_agents.engine.steps.calling import STOP_SECONDS
from celery_agents.engine.steps.scope import StepWaits
from celery_agents.engine.steps.taking import ReachedStep
from celery_agents.engine.thread_ends import EndingThreads

DEFAULT_LIMIT: Final = 16

R = TypeVar("R")


def allow_all(attempt: Attempt, places: Sequence[Place], options: CallOptions) -> list[ReachedStep | Exception]:
    """Return the steps of these calls, as people have allowed them, or in their places what keeps them from being made.

    All approvals are open at once, and the agent is unwound until each of them is decided.
    """
    allowed: list[ReachedStep | Exception] = []
    with attempt.nesting.putting_pauses_off() as waits:
        for place in places:
            try:
                allowed.append(caught(partial(place.allowed, options), attempt.course.interrupts))
            except StepWaits:
                continue
    if waits:
        pause_on(attempt, waits)
    return allowed


def take_all(attempt: Attempt, reached: Sequence[ReachedStep | Exception], limit: int) -> list[Any]:
    """The results of the steps in their order, or the exceptions that they raised. Blocks until all have ended.

    An exception in the place of a step is its result. Raises `ValueError` for a limit below 1.
    """
    check_limit(limit)
    open_steps = [one for one in reached if isinstance(one, ReachedStep) and not one.is_recorded]
    done: dict[str, Future[Any]] = {}
    if open_steps:
        with attempt.nesting.beside_each_other([one.key for one in open_steps]) as waits:
            pool = EndingThreads(min(limit, len(open_steps)), thread_name_prefix="step")
            try:
                for one in open_steps:
                    # A copy each: a context can be entered once at a time.
                    done[one.key] = pool.submit(contextvars.copy_context().run, _finish, one)
                _wait(done.values(), attempt.course.interrupts)
            except BaseException:
                # The attempt is being ended from outside, and the next one must not run beside what is in flight. For a
                # while, that is: who ends it may be about to kill the process.
                attempt.course.abandon()
                pool.shutdown(wait=False, cancel_futures=True)
                wait([one for one in done.values() if not one.cancelled()], STOP_SECONDS)
                raise
            pool.shutdown(wait=False)
        pause_together(attempt, waits)
    return [
        caught(one.finish if one.key not in done else done[one.key].result, attempt.course.interrupts)
        if isinstance(one, ReachedStep)
        else one
        for one in reached
    ]


def _finish(one: ReachedStep) -> Any:
    with one.attempt.course.abandoned_by_interrupts:
        return one.finish()


def check_limit(limit: int) -> None:
    """Raises `ValueError` for a number of steps that nothing can be done with."""
    if limit < 1:
        raise ValueError(f"limit needs a number of at least 1, not {limit}")


def caught(function: Callable[[], R], interrupts: tuple[type[BaseException], ...]) -> R | Exception:
    """What the function returns, or the exception that it raised, to be handed over in its place."""
    try:
        return function()
    except interrupts:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        return error


def first_error(results: Sequence[Any]) -> None:
    """Raises the first result that is an exception."""
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _wait(futures: Iterable[Future[Any]], interrupts: tuple[type[BaseException], ...]) -> None:
    """Returns when all are done; raises at once what ends the attempt from outside."""
    waiting = set(futures)
    while waiting:
        ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in ended:
            error = future.exception()
            if isinstance(error, interrupts) and not isinstance(error, ExecutionStopped):
                raise error
