"""A pause until a signal comes or a moment is reached: what questions, approvals, events, timers and children share."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from statestore.records import JSONValue, Signal, SignalKind, Wait, WaitKind
from worker.engine.wait_states import STATE_OF_WAIT

if TYPE_CHECKING:
    from worker.engine.attempt import Attempt

_SIGNALS: Final = {
    WaitKind.INPUT: SignalKind.ANSWER,
    WaitKind.APPROVAL: SignalKind.APPROVAL,
    WaitKind.EVENT: SignalKind.EVENT,
    WaitKind.CHILD: SignalKind.CHILD,
}


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
    prompt: JSONValue = None,
    schema: dict[str, JSONValue] | None = None,
    in_step: bool = False,
    beyond_limits: bool = False,
) -> Waited:
    """Returns when there is a signal of this address or the `timeout` has passed; until then, unwinds the agent.

    `key` is what a signal names. The timeout counts from when the execution first came here. `in_step` says that the
    caller is a step that is being taken; `beyond_limits` that it asks whether a limit may be raised.
    """
    waiting = attempt.waiting
    if waiting is not None and (waiting.kind, waiting.key) != (kind, key):
        waiting = None
    since = attempt.now() if waiting is None else waiting.asked_at
    wanted = _SIGNALS.get(kind)
    signal = None if wanted is None else attempt.take_signal(wanted, key)
    if signal is not None:
        return Waited(signal=signal, since=since)
    wake_at = None if timeout is None else since + timeout
    if wake_at is not None and attempt.now() >= wake_at:
        return Waited(signal=None, since=since)
    if beyond_limits:
        attempt.enter_boundary()
    else:
        attempt.enter_wait(in_step=in_step)
    return attempt.pause(
        STATE_OF_WAIT[kind],
        Wait(kind=kind, key=key, prompt=prompt, schema=schema, asked_at=since, wake_at=wake_at),
        in_step=in_step,
    )
