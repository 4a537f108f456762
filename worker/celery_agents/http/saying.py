"""The endpoint by which somebody says something to an execution."""

from celery_agents.http.bodies import TEXT, TEXT_OR_NULL, read
from celery_agents.http.endpoints import EndpointCall
from celery_agents.http.messages import Reply
from celery_agents.lifecycle.saying import DEFAULT_MODE


def say(call: EndpointCall) -> Reply:
    """POST /executions/{id}/say: `text`, and optionally `mode` and `message_id`."""
    given = read(call.request, required={"text": TEXT}, optional={"mode": TEXT_OR_NULL, "message_id": TEXT_OR_NULL})
    mode = given.get("mode")
    call.execution.say(
        given["text"],
        mode=DEFAULT_MODE if mode is None else mode,
        message_id=given.get("message_id"),
        sender=call.sender,
    )
    return Reply(status=200, value={"execution_id": call.execution.id, "result": "said"})
