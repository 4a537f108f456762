"""What a crash in the middle of a call means."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from celery_agents.errors import RegistrationError


class CrashPolicy(StrEnum):
    """What is done about a call during which the process died.

    `RETRY` repeats it: it gets the same `idempotency_key` each time. `ASK` pauses, and asks a person what to do.
    `FAIL` raises `StepInterrupted`. `RECONCILE` asks the function that was given. For all but `RETRY` an intent is
    recorded before the call, which costs one more write.
    """

    RETRY = "retry"
    ASK = "ask"
    FAIL = "fail"
    RECONCILE = "reconcile"


@dataclass(frozen=True, slots=True)
class Happened:
    """What a reconcile function returns for a call that did take effect: the result that it had, or would have had."""

    output: Any = None


# Called with the arguments of the interrupted call, a tool's by name: `Happened(output)`, or None if it did not take
# effect.
Reconcile: TypeAlias = Callable[..., Happened | None]
OnCrash: TypeAlias = CrashPolicy | str | Reconcile


def crash_policy(name: str, given: OnCrash) -> tuple[CrashPolicy, Reconcile | None]:
    """The policy, and its function if it has one. Raises `RegistrationError`."""
    if callable(given):
        return CrashPolicy.RECONCILE, given
    if given == CrashPolicy.RECONCILE:
        raise RegistrationError(name, "on_crash needs the function that looks whether it happened, not 'reconcile'")
    try:
        return CrashPolicy(given), None
    except ValueError as error:
        raise RegistrationError(name, f"on_crash is 'retry', 'ask', 'fail' or a function, not {given!r}") from error
