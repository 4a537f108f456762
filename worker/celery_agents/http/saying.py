"""The endpoint by which somebody says something to an execution."""

from typing import Final

from celery_agents.http.bodies import TEXT, TEXT_OR_NULL, BodyForm
from celery_agents.http.calls import EndpointCall
from celery_agents.http.messages import Reply
from celery_agents.http.shapes import DoneView
from celery_agents.lifecycle.saying import DEFAULT_MODE

SAY: Final = BodyForm(required={"text": TEXT}, optional={"mode": TEXT_OR_NULL, "message_id": TEXT_OR_NULL})


def say(call: EndpointCall) -> Reply:
    """Say something to the execution, which listens by the `mode`; with a `message_id` it may be sent again."""
    given = call.given
    mode = given.get("mode")
    call.execution.say(
        given["text"],
        mode=DEFAULT_MODE if mode is None else mode,
        message_id=given.get("message_id"),
        sender=call.sender,
    )
    value: DoneView = {"execution_id": call.summary.execution_id, "result": "said"}
    return Reply(status=200, value=value)
