"""Calling the function of a step: in place, in a thread that can be left, or on the event loop.

A timeout cannot end a Python thread that waits in the kernel. So a call that overran its time may still be going on:
`StepTimeout.still_running` says so, and such a step is not tried again beside itself.
"""

import asyncio
import concurrent.futures
import contextvars
import ctypes
import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

from celery_agents.define.saying import CallInterrupted
from celery_agents.engine.cutting import CuttableCall
from celery_agents.engine.lease import HeldLease
from celery_agents.engine.run import event_loop
from celery_agents.engine.thread_ends import end_thread
from celery_agents.errors import StepTimeout

# How long a call that overran its time is waited for after it was told to end.
STOP_SECONDS: Final = 2.0
# How soon it is noticed that somebody has cut a call off.
_LOOK_SECONDS: Final = 0.1


def in_time(function: Callable[[], Any], key: str, timeout: timedelta, cut: CuttableCall | None = None) -> Any:
    """Return what the function returns. Raise what it raises, and `StepTimeout`. It has a thread, which can be left.

    With `cut`, somebody may end it before: that raises what comes of it, or `StepTimeout` if it does not end.
    """
    called = _ThreadedCall(function, f"step {key}")
    seconds = timeout.total_seconds()
    try:
        called.begin()
        has_ended = called.wait(seconds) if cut is None else _wait_or_cut(called, seconds, cut)
    except BaseException:
        # A time limit or a signal ends the attempt: the function must not go on beside the next one.
        called.stop()
        raise
    if has_ended:
        return called.result()
    if (cut is not None and cut.was_cut) or not called.stop():
        raise StepTimeout(key, timeout.total_seconds(), still_running=True)
    if called.was_stopped:
        raise StepTimeout(key, timeout.total_seconds())
    return called.result()  # it ended at the last moment: what it did is known, and counts


def awaited(
    value: Any, *, key: str, timeout: timedelta | None, held: HeldLease, cut: CuttableCall | None = None
) -> Any:
    """Return what a function has returned; if that is a coroutine, what that returns.

    Raise what it raises, and `StepTimeout`. A coroutine is cancelled when the lease is lost, a cancel is asked for, or
    somebody cuts it off; that raises `event_loop.Interrupted`.
    """
    return _on_loop(value, key, timeout, held, cut) if inspect.iscoroutine(value) else value


_NOTHING: Final = object()


class _Overran(BaseException):
    """Raised inside a function that overran its time. Derived from BaseException, so that few catch it."""


class _ThreadedCall:
    """A call in a thread of its own, which can be left behind.

    What is raised in the thread from outside may come between any two of its instructions. It must come only while the
    function runs, as no lock that Python code takes and gives back is safe from it. So the thread shuts `_gate` when
    the function has ended, and all that it does around that is to call plain locks.
    """

    def __init__(self, function: Callable[[], Any], name: str) -> None:
        self._function = function
        self._gate = threading.Lock()  # open while the function runs
        self._ended = threading.Lock()  # let go of at the end
        self._gate.acquire()
        self._ended.acquire()
        self._value: Any = _NOTHING
        self._error: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name=name, daemon=True)

    def begin(self) -> None:
        """Starts it."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended by then."""
        if not self._ended.acquire(timeout=seconds):
            return False
        self._ended.release()
        return True

    def stop(self) -> bool:
        """Raises `_Overran` in the function, which notices at its next Python instruction; whether it has ended.

        A call into the kernel has to return first.
        """
        if not self._gate.acquire(timeout=STOP_SECONDS):
            return self.wait(0)
        try:
            if self._ended.locked():
                thread = ctypes.c_ulong(self._thread.ident or 0)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_Overran))
        finally:
            self._gate.release()
        return self.wait(STOP_SECONDS)

    @property
    def was_stopped(self) -> bool:
        """Whether it ended because of `stop`, and not by itself, at the last moment."""
        error = self._error if self._value is _NOTHING else None
        while error is not None and not isinstance(error, _Overran):
            error = error.__cause__ or error.__context__
        return error is not None

    def result(self) -> Any:
        """What the function returned. Raises what it raised."""
        if self._error is not None and self._value is _NOTHING:
            raise self._error
        return self._value

    def _work(self) -> None:
        try:
            try:
                self._gate.release()
                self._value = self._function()
            finally:
                self._gate.acquire()
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that waits
            self._error = error
        self._ended.release()
        # Nobody waits for this, nor interrupts it: the gate stays shut.
        end_thread()
        self._gate.release()


def _wait_or_cut(called: _ThreadedCall, seconds: float, cut: CuttableCall) -> bool:
    """Whether it has ended by then, or soon after somebody has cut it off."""
    give_up_at = time.monotonic() + seconds
    # In a thread of its own: whoever hears of a message keeps leases, too.
    cut.ends_by(lambda: threading.Thread(target=called.stop, name="cut", daemon=True).start())
    while (remaining := give_up_at - time.monotonic()) > 0 and not cut.was_cut:
        if called.wait(min(remaining, _LOOK_SECONDS)):
            return True
    return called.wait(STOP_SECONDS if cut.was_cut else 0)


def _on_loop(
    coroutine: Coroutine[Any, Any, Any],
    key: str,
    timeout: timedelta | None,
    held: HeldLease,
    cut: CuttableCall | None,
) -> Any:
    running = event_loop.start(coroutine if timeout is None else within(coroutine, key, timeout))
    try:
        if cut is not None:
            cut.ends_by(running.interrupt)
        with held.telling(running.interrupt):
            return running.result()
    except BaseException:
        if not running.done():
            # A time limit or a signal ends the attempt: the coroutine must not go on beside the next one.
            running.interrupt()
            concurrent.futures.wait((running,), STOP_SECONDS)
        raise
    finally:
        if running.done() and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
            coroutine.close()  # interrupted before it began


async def within(coroutine: Coroutine[Any, Any, Any], key: str, timeout: timedelta) -> Any:
    """Return what the coroutine returns. Raise what it raises, and `StepTimeout`, when it was cancelled."""
    task = asyncio.ensure_future(coroutine)
    try:
        await asyncio.wait({task}, timeout=timeout.total_seconds())
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_SECONDS)
        if task.done() and not task.cancelled() and isinstance(told := task.exception(), CallInterrupted):
            raise told from None  # it knows what it had said
        raise
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_SECONDS)
    if task.done() and not task.cancelled():
        return task.result()
    raise StepTimeout(key, timeout.total_seconds(), still_running=not task.done())
