"""A pause until a signal comes or a moment is reached: what questions, approvals, events, timers and children share."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import Action, JSONValue, Result, Signal, SignalKind, Wait, WaitKind, require_ringable
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.pauses.pause import pause
from celery_agents.engine.pauses.states import STATE_OF_WAIT

if TYPE_CHECKING:
    from celery_agents.engine.attempt import Attempt

_SIGNALS: Final = {
    WaitKind.INPUT: SignalKind.ANSWER,
    WaitKind.APPROVAL: SignalKind.APPROVAL,
    WaitKind.EVENT: SignalKind.EVENT,
    WaitKind.CHILD: SignalKind.CHILD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A wait that the execution is in: the key of its step, and since when."""

    step: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """The end of a wait: the signal that came, or None if its time was up first."""

    signal: Signal | None
    since: datetime


def wait(
    attempt: "Attempt",
    kind: WaitKind,
    key: str,
    *,
    timeout: timedelta | None,
    step: str | None = None,
    prompt: JSONValue = None,
    schema: dict[str, JSONValue] | None = None,
    in_step: bool = False,
    beyond_limits: bool = False,
) -> Waited:
    """Returns when there is a signal of this address or the `timeout` has passed; until then, unwinds the agent.

    `key` is what a signal names, `step` the key of the waiting step where that is another. The timeout counts from when
    the execution first came here. `in_step` says that the caller is a step that is being taken; `beyond_limits` that it
    asks whether a limit may be raised. Raises `LimitExceeded`, and `InvalidRecord` for a timeout that is none.
    """
    since = began(attempt, kind, key, step or key)
    wake_at = None if timeout is None else _after(timeout, since)
    # Before a signal is taken: what is taken goes with the next write, which may be the question whether to go on.
    if beyond_limits:
        attempt.enter_boundary()
    else:
        attempt.enter_wait(in_step=in_step, standing=Standing(step=step or key, since=since))
    wanted = _SIGNALS.get(kind)
    signal = None if wanted is None else attempt.take_signal(wanted, key)
    if signal is not None:
        return Waited(signal=signal, since=since)
    if wake_at is not None and attempt.now() >= wake_at:
        return Waited(signal=None, since=since)
    return pause(
        attempt,
        STATE_OF_WAIT[kind],
        Wait(kind=kind, key=key, prompt=prompt, schema=schema, asked_at=since, wake_at=wake_at),
        in_step=in_step,
    )


def _after(timeout: timedelta, since: datetime) -> datetime:
    if not isinstance(timeout, timedelta):
        raise InvalidRecord("timeout", f"needs a timedelta, not {timeout!r:.80}")
    try:
        wake_at = since + timeout
    except OverflowError as error:
        raise InvalidRecord("timeout", f"{timeout} is too long") from error
    require_ringable("timeout", wake_at)
    return wake_at


def began(attempt: "Attempt", kind: WaitKind, key: str, step: str) -> datetime:
    """When the execution first came to this wait: now, unless it was paused on it before this claim."""
    waiting = attempt.waiting
    if waiting is not None:
        if (waiting.kind, waiting.key) == (kind, key):
            return waiting.asked_at
        during = waiting.prompt.get("during") if isinstance(waiting.prompt, dict) else None
        if isinstance(during, dict) and during.get("step") == step:
            # A limit was reached meanwhile, and a person is asked whether to go on.
            return datetime.fromisoformat(during["since"])
    return attempt.limits.began_waiting(step) or attempt.now()


def conclude(attempt: "Attempt", key: str, action: Action, result: Result, since: datetime) -> Result:
    """Records how a wait ended; returns what is recorded, which is a failure if the result is too large for a step."""
    with attempt.lock:
        try:
            attempt.record(attempt.make_step(key, action, result, started=since))
        except InvalidRecord as error:
            # What came is taken out of the mailbox. Unrecorded, a replay would wait for another one in its place.
            result = Result(success=False, error=describe(error))
            attempt.record(attempt.make_step(key, action, result, started=since))
    return result
