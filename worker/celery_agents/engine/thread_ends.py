"""What belongs to a thread (a database connection, a session) is closed when a step in that thread has ended.

A worker takes the steps of an execution in the thread of its task, of which Celery and its fixups take care. Steps
beside each other, with a timeout, or of an async agent get other threads, which nobody else knows of: what they leave
open stays open until Python collects it.
"""

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from agent_statestore.plain_text import line_logger

log = line_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[[], object])

# In the order in which they were given; a dict, so that giving one again (a reload) changes nothing.
_functions: Final[dict[Callable[[], object], None]] = {}


def at_thread_end(function: F) -> F:
    """Have `function` called, without arguments, whenever a step has ended in a thread that is not the task's own.

    It is called in that thread, and closes what belongs to it, such as `Session.remove` of a SQLAlchemy
    `scoped_session`. It may be called where nothing is open. Its errors are logged and change nothing. Return
    `function`, so that this is also a decorator.
    """
    _functions[function] = None
    return function


def end_thread() -> None:
    """A step has ended in the current thread, which is not a task's own."""
    for function in tuple(_functions):
        try:
            function()
        except Exception:
            log.exception("%s, which closes what belongs to a thread, failed; the execution goes on", function)


def ending_thread(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function, which is called in another thread than a task's, with `end_thread` behind it."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        finally:
            end_thread()

    return called


class EndingThreads(ThreadPoolExecutor):
    """Threads in which each call is followed by `end_thread`."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return super().submit(ending_thread(fn), *args, **kwargs)
