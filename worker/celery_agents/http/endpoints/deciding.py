"""What people tell an execution: answers, decisions, events, a cancel."""

from collections.abc import Callable
from typing import Any, Final

from agent_statestore.errors import ExecutionOver
from agent_statestore.states import AgentState
from celery_agents.http.bodies import (
    ANYTHING,
    BOOLEAN,
    LIST,
    NUMBER_OR_NULL,
    OBJECT_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    BodyForm,
)
from celery_agents.http.calls import EndpointCall
from celery_agents.http.messages import Reply
from celery_agents.http.permission import Act
from celery_agents.http.problems import Refused, reply_to
from celery_agents.http.shapes import DecisionsView, DecisionView, DoneView

ANSWER: Final = BodyForm(
    required={"answer": ANYTHING}, optional={"key": TEXT_OR_NULL, "round": NUMBER_OR_NULL, "reason": TEXT_OR_NULL}
)
APPROVE: Final = BodyForm(
    required={"digest": TEXT},
    optional={"key": TEXT_OR_NULL, "arguments": OBJECT_OR_NULL, "reason": TEXT_OR_NULL},
)
REJECT: Final = BodyForm(required={"digest": TEXT}, optional={"key": TEXT_OR_NULL, "reason": TEXT_OR_NULL})
DECIDE: Final = BodyForm(required={"decisions": LIST})
SEND_EVENT: Final = BodyForm(optional={"payload": ANYTHING, "event_id": TEXT_OR_NULL})
CANCEL: Final = BodyForm(optional={"reason": TEXT_OR_NULL, "now": BOOLEAN})

MOST_DECISIONS: Final = 100


def answer(call: EndpointCall) -> Reply:
    """Answer a question. Where several are open, `key` says which one; `round` guards against an outdated page."""
    _answer(call, call.given)
    return _done(call, "answered")


def approve(call: EndpointCall) -> Reply:
    """Approve the call that was shown with this digest, with other arguments if they are given.

    The digest is required: a page may have been open for hours.
    """
    _approve(call, call.given)
    return _done(call, "approved")


def reject(call: EndpointCall) -> Reply:
    """Refuse the call that was shown with this digest."""
    _reject(call, call.given)
    return _done(call, "rejected")


def decide(call: EndpointCall) -> Reply:
    """Send several answers and decisions at once.

    Each is an object with `do` ("answer", "approve" or "reject") and the fields of that. All are checked for their form
    before the first is sent. Then they are sent in order, and each succeeds or fails by itself.
    """
    decisions = [_form_of(place, decision) for place, decision in enumerate(call.given["decisions"])]
    if not 0 < len(decisions) <= MOST_DECISIONS:
        raise Refused(400, "InvalidBody", f"decisions: needs 1 to {MOST_DECISIONS}, not {len(decisions)}")
    results = [_result(call, name, given) for name, given in decisions]
    value: DecisionsView = {"execution_id": call.summary.execution_id, "results": results}
    return Reply(status=200, value=value)


def send_event(call: EndpointCall) -> Reply:
    """Send an event. It is kept until the execution waits for it; with an `event_id` it may be sent again."""
    given = call.given
    call.execution.send_event(
        call.parts["name"], given.get("payload"), event_id=given.get("event_id"), sender=call.sender
    )
    return _done(call, "sent")


def cancel(call: EndpointCall) -> Reply:
    """Cancel the execution; with `now`, without waiting for the end of its step. May be repeated."""
    accepted = call.execution.cancel(
        sender=call.sender, reason=call.given.get("reason"), now=call.given.get("now", False)
    )
    state = call.execution.state
    if state is AgentState.CANCELLED:
        return _done(call, "cancelled")
    if not accepted:
        raise ExecutionOver(call.summary.execution_id, state.value)
    return _done(call, "cancelling")


def _answer(call: EndpointCall, given: Any) -> None:
    call.execution.resume(
        given["answer"],
        key=given.get("key"),
        round=given.get("round"),
        sender=call.sender,
        reason=given.get("reason"),
    )


def _approve(call: EndpointCall, given: Any) -> None:
    call.execution.approve(
        key=given.get("key"),
        digest=given["digest"],
        arguments=given.get("arguments"),
        sender=call.sender,
        reason=given.get("reason"),
    )


def _reject(call: EndpointCall, given: Any) -> None:
    call.execution.reject(key=given.get("key"), digest=given["digest"], sender=call.sender, reason=given.get("reason"))


# What a decision among several may do: its form, its act, its deed, its result.
_DECISIONS: Final[dict[str, tuple[BodyForm, Act, Callable[[EndpointCall, Any], None], str]]] = {
    "answer": (ANSWER, Act.ANSWER, _answer, "answered"),
    "approve": (APPROVE, Act.APPROVE, _approve, "approved"),
    "reject": (REJECT, Act.REJECT, _reject, "rejected"),
}


def _form_of(place: int, decision: Any) -> tuple[str, dict[str, Any]]:
    what = f"decisions[{place}]"
    name = decision.get("do") if isinstance(decision, dict) else None
    if not isinstance(name, str) or name not in _DECISIONS:
        raise Refused(400, "InvalidBody", f"{what}: needs a `do`, which is one of {', '.join(_DECISIONS)}")
    fields = {field: value for field, value in decision.items() if field != "do"}
    try:
        return name, _DECISIONS[name][0].check(fields, what)
    except Refused as error:
        raise Refused(error.status, error.type, f"{what}: {error.message}") from error


def _result(call: EndpointCall, name: str, given: dict[str, Any]) -> DecisionView:
    _, act, do, result = _DECISIONS[name]
    try:
        call.require(act, call.summary)
        do(call, given)
    except Exception as error:  # noqa: BLE001 - a reply of its own, as if it had been sent alone
        return {"result": None, "problem": reply_to(error).value}
    return {"result": result, "problem": None}


def _done(call: EndpointCall, result: str) -> Reply:
    value: DoneView = {"execution_id": call.summary.execution_id, "result": result}
    return Reply(status=200, value=value)
