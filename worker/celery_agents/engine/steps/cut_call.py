"""Calling the function of a step that somebody may cut off by saying something.

A coroutine is cancelled. A plain function that has a timeout runs in a thread of its own, which is told to end, and
left if it does not. Any other plain function is told to end where it runs: an exception is raised in it at its next
Python instruction. A call into the kernel has to return first, so that a model's answer that comes in pieces is cut at
the next piece, and one that comes as a whole when it is there.
"""

import ctypes
import threading
from collections.abc import Callable
from datetime import timedelta
from types import CoroutineType
from typing import Any

from celery_agents.engine.attempt import Attempt
from celery_agents.engine.cutting import CuttableCall
from celery_agents.engine.steps.calling import awaited, in_time

# How long whoever cuts waits for a call that is just ending by itself.
_PATIENCE_SECONDS = 0.5


def call_cuttable(
    function: Callable[[], Any], attempt: Attempt, key: str, timeout: timedelta | None, *, is_async: bool
) -> Any:
    """Return what the function returns, awaited if it is async. Raise what it raises, and `CallInterrupted`."""
    held = attempt.held
    with held.cuttable.call(key) as cut:
        try:
            value: Any
            if is_async:
                value = function()
            elif timeout is not None:
                value = in_time(function, key, timeout, cut)
            else:
                value = _InPlace(function).call(cut)
            if isinstance(value, CoroutineType):
                value = awaited(value, key=key, timeout=timeout, held=held, cut=cut)
            return value
        except BaseException as error:
            is_from_elsewhere = attempt.course.is_interrupt(error) or held.is_lost or held.cancel_requested
            if is_from_elsewhere or not cut.was_cut:
                raise
            raise cut.interrupted(error) from error


class _Cut(BaseException):
    """Raised inside a function that is cut off. Derived from BaseException, so that few catch it."""


class _InPlace:
    """A call in the thread that needs it. The gate is open while the function runs; see `_ThreadedCall`."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._thread = threading.get_ident()
        self._gate = threading.Lock()
        self._gate.acquire()

    def call(self, cut: CuttableCall) -> Any:
        """Return what the function returns. Raise what it raises, and `_Cut`."""
        cut.ends_by(self._end)
        try:
            self._gate.release()
            return self._function()
        finally:
            self._gate.acquire()  # for good: what is raised from outside comes before the next instruction
            for _ in range(2):
                pass

    def _end(self) -> None:
        # In a thread of its own: whoever hears of a message keeps leases, too.
        threading.Thread(target=self._raise_in_thread, name="cut", daemon=True).start()

    def _raise_in_thread(self) -> None:
        if self._gate.acquire(timeout=_PATIENCE_SECONDS):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(_Cut))
            self._gate.release()
