"""`run.parallel`: several steps at once, each recorded as it ends. A crash repeats only the unfinished ones."""

import contextvars
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from worker.engine.attempt import Attempt
from worker.engine.outcome import ExecutionStopped
from worker.engine.stepping import ReachedStep

DEFAULT_LIMIT: Final = 16

R = TypeVar("R")


def take_all(attempt: Attempt, reached: Sequence[ReachedStep | Exception], limit: int) -> list[Any]:
    """The results of the steps in their order, or the exceptions that they raised. Blocks until all have ended.

    An exception in the place of a step is its result.
    """
    open_steps = [one for one in reached if isinstance(one, ReachedStep) and not one.is_recorded]
    done: dict[str, Future[Any]] = {}
    if open_steps:
        with beside_each_other(attempt):
            pool = ThreadPoolExecutor(min(limit, len(open_steps)), thread_name_prefix="step")
            try:
                for one in open_steps:
                    # A copy each: a context can be entered once at a time.
                    done[one.key] = pool.submit(contextvars.copy_context().run, one.finish)
                _wait(done.values())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    return [
        caught(one.finish if one.key not in done else done[one.key].result) if isinstance(one, ReachedStep) else one
        for one in reached
    ]


def caught(function: Callable[[], R]) -> R | Exception:
    """What the function returns, or the exception that it raised, to be handed over in its place."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - see above
        return error


def first_error(results: Sequence[Any]) -> None:
    """Raises the first result that is an exception."""
    for result in results:
        if isinstance(result, BaseException):
            raise result


@contextmanager
def beside_each_other(attempt: Attempt) -> Iterator[None]:
    """Steps are taken beside each other in this block, and no other step from the agent's function."""
    was, attempt.is_concurrent = attempt.is_concurrent, True
    try:
        yield
    finally:
        attempt.is_concurrent = was


def _wait(futures: Iterable[Future[Any]]) -> None:
    """Returns when all are done; raises at once what ends the attempt from outside."""
    waiting = set(futures)
    while waiting:
        ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in ended:
            error = future.exception()
            if error is not None and not isinstance(error, Exception | ExecutionStopped):
                raise error
