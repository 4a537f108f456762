"""What a delivery tells, made from the execution as the store shows it when it is told."""

import json
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, Final

from agent_statestore.records import ExecutionSummary, JSONValue, SignalKind, Wait, WaitKind
from agent_statestore.store import Store
from celery_agents.lifecycle.showing import approval_shown, moment_shown, question_shown, wait_shown
from celery_agents.settings import WebhookSettings
from celery_agents.webhooks.deliveries import AskedWait, Delivery
from celery_agents.webhooks.links import Links, links_shown

# Receivers refuse long bodies. Above this, what users wrote is left out, and the receiver may ask for it.
MOST_BYTES: Final = 256 * 1024
# How long an attempt that has noted a question may take to write its pause once its lease is gone.
_PAUSING_FOR: Final = timedelta(days=1)
_ANSWERS: Final = {WaitKind.INPUT: SignalKind.ANSWER, WaitKind.APPROVAL: SignalKind.APPROVAL}


class Untold(Enum):
    """Why a delivery is not told now."""

    NOT_YET = auto()
    """What it tells of has not come about, and may."""
    NO_MORE = auto()
    """What it tells of is over: the question is answered, or the execution is gone."""


def payload_of(
    delivery: Delivery, receiver: WebhookSettings, store: Store, now: datetime, links: Links | None = None
) -> bytes | Untold:
    """Return the body to post, JSON; with `links` to decide by, if the receiver wants them. Raise `StoreError`."""
    summary = store.get_summary(delivery.execution_id)
    if delivery.asked is None:
        data = _of_end(delivery, receiver, store, summary)
    else:
        waiting = None if summary is None else _waiting(store, summary, delivery.asked)
        if summary is None or waiting is None:
            return Untold.NOT_YET if summary is not None and _may_come(delivery, summary, now) else Untold.NO_MORE
        data = _of_wait(delivery, summary, waiting)
        if links is not None and receiver.links_as is not None:
            data["links"] = links_shown(links, delivery.execution_id, waiting, receiver.links_as)
    return _as_bytes({"type": delivery.event.value, "timestamp": moment_shown(delivery.at), "data": data})


def _waiting(store: Store, summary: ExecutionSummary, asked: AskedWait) -> Wait | None:
    """Return the wait that a delivery tells of, if it is open: what was answered is shown until a worker comes."""
    if summary.cancel_requested:
        return None
    places = ((AskedWait(kind=wait.kind.value, key=wait.key, round=wait.round), wait) for wait in summary.waits)
    waiting = next((wait for place, wait in places if place == asked), None)
    # An execution that waits for nothing but people is due only when something has come.
    if waiting is not None and summary.due_at is not None and _is_answered(store, summary.execution_id, waiting):
        return None
    return waiting


def _is_answered(store: Store, execution_id: str, waiting: Wait) -> bool:
    wanted = (_ANSWERS[waiting.kind], waiting.key, waiting.round)
    signals = (entry.signal for entry in store.get_audit(execution_id) if entry.signal is not None)
    return any((signal.kind, signal.key, signal.round) == wanted for signal in signals)


def _may_come(delivery: Delivery, summary: ExecutionSummary, now: datetime) -> bool:
    """Return whether the attempt that noted the delivery may be about to pause, or has died before it did.

    Every later attempt that pauses on the same question notes it again.
    """
    if summary.state.is_over or summary.cancel_requested or summary.attempt > delivery.attempt:
        return False
    return not summary.state.is_paused and now < summary.updated_at + _PAUSING_FOR


def _of_wait(delivery: Delivery, summary: ExecutionSummary, waiting: Wait) -> dict[str, JSONValue]:
    data = _of(delivery, summary) | {"state": summary.state.value, "waits": [wait_shown(waiting)]}
    if waiting.kind is WaitKind.INPUT:
        data["question"] = question_shown(waiting)
    else:
        data["approval"] = approval_shown(waiting)
    if delivery.reminder:
        data["reminder"] = delivery.reminder
    return data


def _of_end(
    delivery: Delivery, receiver: WebhookSettings, store: Store, summary: ExecutionSummary | None
) -> dict[str, JSONValue]:
    data = _of(delivery, summary) | {"state": delivery.state, "ended_at": moment_shown(delivery.at), "waits": []}
    # A dead letter that was released has another end by now, or none.
    if summary is None or summary.state.value != delivery.state or summary.ended_at != delivery.at:
        return data
    error = summary.error
    data["error"] = None if error is None else {"type": error.type, "message": error.message}
    if receiver.outputs:
        context = store.get_context(delivery.execution_id)
        data["output"] = None if context is None else context.output
    return data


def _of(delivery: Delivery, summary: ExecutionSummary | None) -> dict[str, JSONValue]:
    data: dict[str, JSONValue] = {"execution_id": delivery.execution_id, "agent_id": delivery.agent_id}
    if summary is not None:
        data |= {
            "session_id": summary.session_id,
            "user_id": summary.user_id,
            "parent_execution_id": summary.parent_execution_id,
        }
    return data


def _as_bytes(payload: dict[str, Any]) -> bytes:
    body = json.dumps(payload).encode()
    if len(body) <= MOST_BYTES:
        return body
    data = payload["data"]
    left_out = [name for name in ("question", "approval", "output", "error") if data.pop(name, None) is not None]
    return json.dumps(payload | {"data": data | {"left_out": left_out}}).encode()
