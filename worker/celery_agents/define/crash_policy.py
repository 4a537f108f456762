"""The policy for a crash in the middle of a call."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from celery_agents.errors import RegistrationError


class CrashPolicy(StrEnum):
    """What happens to a call during which the process died.

    `RETRY` repeats the call, with the same `idempotency_key` each time. `ASK` pauses, and asks a person what to do.
    `FAIL` raises `StepInterrupted`. `RECONCILE` asks the function that was given. All but `RETRY` record an intent
    before the call, which costs one more write.
    """

    RETRY = "retry"
    ASK = "ask"
    FAIL = "fail"
    RECONCILE = "reconcile"


@dataclass(frozen=True, slots=True)
class Happened:
    """What a reconcile function returns for a call that took effect: the result that it had, or would have had."""

    output: Any = None


# Called with the arguments of the interrupted call, by name for a tool. It returns `Happened(output)`, or None if the
# call did not take effect.
Reconcile: TypeAlias = Callable[..., Happened | None]
OnCrash: TypeAlias = CrashPolicy | str | Reconcile


def crash_policy(name: str, given: OnCrash) -> tuple[CrashPolicy, Reconcile | None]:
    """Return the policy, and its function if it has one. Raise `RegistrationError`."""
    if callable(given):
        return CrashPolicy.RECONCILE, given
    if given == CrashPolicy.RECONCILE:
        raise RegistrationError(name, "on_crash needs the function that looks whether it happened, not 'reconcile'")
    try:
        return CrashPolicy(given), None
    except ValueError as error:
        raise RegistrationError(name, f"on_crash is 'retry', 'ask', 'fail' or a function, not {given!r}") from error
