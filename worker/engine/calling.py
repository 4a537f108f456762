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
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Final

from worker.engine import event_loop
from worker.engine.keeper import HeldLease
from worker.errors import StepTimeout

# How long a call that overran its time is waited for after it was told to end.
STOP_SECONDS: Final = 2.0


def call(function: Callable[[], Any], *, key: str, timeout: timedelta | None, is_async: bool, held: HeldLease) -> Any:
    """What the function returns, awaited if that is a coroutine.

    Raises what it raises, and `StepTimeout`. A coroutine is cancelled when the lease is lost or a cancel is asked for;
    that raises `event_loop.Interrupted`.
    """
    value = function() if timeout is None or is_async else _in_thread(function, key, timeout)
    if inspect.iscoroutine(value):
        return _on_loop(value, key, timeout, held)
    return value


class _Overran(BaseException):
    """Raised inside a function that overran its time. Derived from BaseException, so that few catch it."""


def _in_thread(function: Callable[[], Any], key: str, timeout: timedelta) -> Any:
    done: Future[Any] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            done.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that waits
            done.set_exception(error)

    thread = threading.Thread(target=work, name=f"step {key}", daemon=True)
    thread.start()
    try:
        return done.result(timeout.total_seconds())
    except TimeoutError as error:
        if done.done() and done.exception() is error:
            raise  # the function's own
    if not done.done():
        _raise_in(thread)
        thread.join(STOP_SECONDS)
    if done.done() and not isinstance(done.exception(), _Overran):
        return done.result()  # it ended at the last moment: what it did is known, and counts
    raise StepTimeout(key, timeout.total_seconds(), still_running=thread.is_alive())


def _raise_in(thread: threading.Thread) -> None:
    """Raises `_Overran` in the thread, at its next Python instruction: a call into the kernel must return first."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Overran))


def _on_loop(coroutine: Coroutine[Any, Any, Any], key: str, timeout: timedelta | None, held: HeldLease) -> Any:
    running = event_loop.start(coroutine if timeout is None else _within(coroutine, key, timeout))
    try:
        with held.telling(running.interrupt):
            return running.result()
    except BaseException:
        if not running.done():
            # A time limit or a signal ends the attempt: the coroutine must not go on beside the next one.
            running.interrupt()
            concurrent.futures.wait((running,), STOP_SECONDS)
        raise


async def _within(coroutine: Coroutine[Any, Any, Any], key: str, timeout: timedelta) -> Any:
    task = asyncio.ensure_future(coroutine)
    try:
        await asyncio.wait({task}, timeout=timeout.total_seconds())
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_SECONDS)
        raise
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_SECONDS)
    if task.done() and not task.cancelled():
        return task.result()
    raise StepTimeout(key, timeout.total_seconds(), still_running=not task.done())
