"""The work of each endpoint: read the body, call `celery_agents.Execution`, and say what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from agent_statestore.errors import ExecutionOver
from agent_statestore.records import JSONValue
from agent_statestore.states import AgentState
from celery_agents.client.execution import Execution
from celery_agents.http.bodies import ANYTHING, BOOLEAN, NUMBER_OR_NULL, OBJECT_OR_NULL, TEXT, TEXT_OR_NULL, read
from celery_agents.http.messages import Reply, Request
from celery_agents.http.views import view, view_of_spent


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointCall:
    """A request that has found its execution. `name` is the name of the event, if it sends one."""

    execution: Execution
    sender: str
    request: Request
    name: str = ""


Endpoint: TypeAlias = Callable[[EndpointCall], Reply]


def look(call: EndpointCall) -> Reply:
    """GET /executions/{id}"""
    return Reply(status=200, value=view(call.execution.summary()))


def spent(call: EndpointCall) -> Reply:
    """GET /executions/{id}/spent"""
    return Reply(status=200, value=view_of_spent(call.execution.context()))


def answer(call: EndpointCall) -> Reply:
    """POST /executions/{id}/answer: `answer`, and optionally `key`, `round` and `reason`."""
    given = read(
        call.request,
        required={"answer": ANYTHING},
        optional={"key": TEXT_OR_NULL, "round": NUMBER_OR_NULL, "reason": TEXT_OR_NULL},
    )
    call.execution.resume(
        given["answer"],
        key=given.get("key"),
        round=given.get("round"),
        sender=call.sender,
        reason=given.get("reason"),
    )
    return _done(call, "answered")


def approve(call: EndpointCall) -> Reply:
    """POST /executions/{id}/approve: `digest`, and optionally `key`, `arguments` and `reason`.

    The digest is required: a page may have been open for hours.
    """
    given = read(
        call.request,
        required={"digest": TEXT},
        optional={"key": TEXT_OR_NULL, "arguments": OBJECT_OR_NULL, "reason": TEXT_OR_NULL},
    )
    call.execution.approve(
        key=given.get("key"),
        digest=given["digest"],
        arguments=given.get("arguments"),
        sender=call.sender,
        reason=given.get("reason"),
    )
    return _done(call, "approved")


def reject(call: EndpointCall) -> Reply:
    """POST /executions/{id}/reject: `digest`, and optionally `key` and `reason`."""
    given = read(call.request, required={"digest": TEXT}, optional={"key": TEXT_OR_NULL, "reason": TEXT_OR_NULL})
    call.execution.reject(key=given.get("key"), digest=given["digest"], sender=call.sender, reason=given.get("reason"))
    return _done(call, "rejected")


def send_event(call: EndpointCall) -> Reply:
    """POST /executions/{id}/events/{name}: optionally `payload` and `event_id`."""
    given = read(call.request, optional={"payload": ANYTHING, "event_id": TEXT_OR_NULL})
    call.execution.send_event(call.name, given.get("payload"), event_id=given.get("event_id"), sender=call.sender)
    return _done(call, "sent")


def cancel(call: EndpointCall) -> Reply:
    """POST /executions/{id}/cancel: optionally `reason`, `now`. May be repeated."""
    given = read(call.request, optional={"reason": TEXT_OR_NULL, "now": BOOLEAN})
    accepted = call.execution.cancel(sender=call.sender, reason=given.get("reason"), now=given.get("now", False))
    state = call.execution.state
    if state is AgentState.CANCELLED:
        return _done(call, "cancelled")
    if not accepted:
        raise ExecutionOver(call.execution.id, state.value)
    return _done(call, "cancelling")


def _done(call: EndpointCall, result: str) -> Reply:
    value: dict[str, JSONValue] = {"execution_id": call.execution.id, "result": result}
    return Reply(status=200, value=value)
