"""Calls at the same moment from several threads."""

import sys
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
SWITCH_SECONDS = 1e-6  # threads take turns after a few instructions, so that a missing lock shows


def together(*calls: Callable[[], T]) -> list[T | Exception]:
    """Call all of them at once, each in a separate thread.

    Return what each returned or raised, in their order.
    """
    started: list[int] = []
    outcomes: list[T | Exception] = [TimeoutError("the call did not end")] * len(calls)

    def run(place: int, call: Callable[[], T]) -> None:
        started.append(place)
        while len(started) < len(calls):  # no barrier: that would let them go one after the other
            pass
        try:
            outcomes[place] = call()
        except Exception as error:  # noqa: BLE001 - an outcome like any other, judged by the test
            outcomes[place] = error

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(calls)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    finally:
        sys.setswitchinterval(interval)
    return outcomes


def succeeded(outcomes: Sequence[T | Exception]) -> list[T]:
    """Return the results of the calls that did not raise."""
    return [outcome for outcome in outcomes if not isinstance(outcome, Exception)]


def raised(outcomes: Sequence[T | Exception]) -> list[type[Exception]]:
    """Return the types of the errors that the calls raised."""
    return [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)]


def all_succeeded(outcomes: Sequence[T | Exception]) -> list[T]:
    """Return the results of the calls; raise what one of them raised."""
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return succeeded(outcomes)
