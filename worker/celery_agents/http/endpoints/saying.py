"""The endpoint by which somebody says something to an execution."""

from collections.abc import Mapping
from typing import Any, Final

from celery_agents.http.bodies import NUMBER_OR_NULL, TEXT, TEXT_OR_NULL, BodyForm
from celery_agents.http.calls import EndpointCall
from celery_agents.http.messages import Reply
from celery_agents.http.problems import Refused
from celery_agents.http.shapes import DoneView
from celery_agents.lifecycle.decider import HTTP
from celery_agents.lifecycle.saying import DEFAULT_MODE, ROLLBACK
from celery_agents.replay import roll_back

# A request waits no longer for a worker to stop.
_PATIENCE_SECONDS: Final = 10.0

SAY: Final = BodyForm(
    required={"text": TEXT},
    optional={"mode": TEXT_OR_NULL, "message_id": TEXT_OR_NULL, "to_step": NUMBER_OR_NULL},
)


def say(call: EndpointCall) -> Reply:
    """Say something to the execution, which listens by the `mode`; with a `message_id` it may be sent again.

    With the mode `rollback` and `to_step`, another execution goes on from that step with the message: the reply names
    it.
    """
    given = call.given
    mode, to_step = given.get("mode"), given.get("to_step")
    if (mode == ROLLBACK) != (to_step is not None):
        raise Refused(400, "InvalidBody", "to_step: is needed with the mode rollback, and with no other")
    if to_step is not None:
        return _rolled_back(call, given, to_step)
    call.execution.say(
        given["text"],
        mode=DEFAULT_MODE if mode is None else mode,
        message_id=given.get("message_id"),
        sender=call.sender,
    )
    value: DoneView = {"execution_id": call.summary.execution_id, "result": "said"}
    return Reply(status=200, value=value)


def _rolled_back(call: EndpointCall, given: Mapping[str, Any], to_step: int) -> Reply:
    """Go on from an earlier step, in another execution. Refuse it while the worker has not stopped: to be repeated."""
    execution = call.execution
    try:
        new = roll_back(
            execution.id,
            to_step,
            given["text"],
            message_id=given.get("message_id"),
            sender=call.sender,
            channel=HTTP,
            timeout=_PATIENCE_SECONDS,
            runtime=execution.services,
        )
    except TimeoutError as error:
        raise Refused(409, "StillExecuted", f"{error}; send the same again, with a message_id") from error
    value: DoneView = {"execution_id": new.id, "result": "rolled back"}
    return Reply(status=200, value=value)
