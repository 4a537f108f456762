"""`POST /agui/{agent}`: a run of AG-UI, as `HttpAgent` of `@ag-ui/client` asks for it."""

from collections.abc import Mapping
from typing import Any, Final

from agent_statestore.records import require_name
from celery_agents.http.bodies import ANYTHING, TEXT, BodyForm
from celery_agents.http.calls import EndpointCall
from celery_agents.http.formats.agui import AGUI, AGUIRun
from celery_agents.http.formats.asks import Ask
from celery_agents.http.front_ends.answering import GivenAnswer, answered
from celery_agents.http.front_ends.forms import OBJECTS, objects
from celery_agents.http.front_ends.inputs import id_of, last_text, started
from celery_agents.http.front_ends.streaming import streamed
from celery_agents.http.messages import Reply
from celery_agents.http.permission import Act
from celery_agents.http.problems import Refused

RUN: Final = BodyForm(
    is_open=True,
    required={"threadId": TEXT, "runId": TEXT, "messages": OBJECTS},
    optional={
        "tools": OBJECTS,
        "context": OBJECTS,
        "state": ANYTHING,
        "forwardedProps": ANYTHING,
        "resume": OBJECTS,
    },
)


def run_agui(call: EndpointCall) -> Reply:
    """Run the agent for a front end that speaks AG-UI: start an execution, or answer what one has asked, and follow it.

    The thread is the session, and the execution belongs to the sender. A run that is asked for again is the same one.
    The response ends with the run: where the execution is over, or waits for a person.
    """
    given = call.given
    thread, messages = given["threadId"], objects(given, "messages")
    require_name("threadId", thread)
    require_name("runId", given["runId"])
    entries = objects(given, "resume")
    if entries:
        summary, after = answered(call, [_answer(entry) for entry in entries])
    else:
        sent = {
            "text": last_text(messages),
            "messages": messages,
            "thread_id": thread,
            "tools": objects(given, "tools"),
            "context": objects(given, "context"),
            "state": given.get("state"),
            "props": given.get("forwardedProps"),
        }
        execution_id = id_of("agui", call.sender, call.parts["agent"], thread, given["runId"])
        summary, after = started(call, execution_id, thread, sent), 0
        call.require(Act.READ, summary)
    names = frozenset(str(tool.get("name")) for tool in objects(given, "tools"))
    asked_for = AGUIRun(thread_id=thread, run_id=given["runId"], history=tuple(messages), tools=names)
    return streamed(call, summary, AGUI(summary, asked_for), after)


def _answer(entry: Mapping[str, Any]) -> GivenAnswer:
    ask = Ask.read(str(entry.get("interruptId")))
    if ask is None:
        raise Refused(400, "InvalidBody", f"resume: {entry.get('interruptId')!a:.80} is no interrupt of ours")
    status, payload = entry.get("status"), entry.get("payload")
    if status not in ("resolved", "cancelled"):
        raise Refused(400, "InvalidBody", "resume: status is resolved or cancelled")
    if status == "cancelled":
        return GivenAnswer(ask=ask, is_refused=True)
    if not ask.is_approval:
        return GivenAnswer(ask=ask, value=payload)
    if not isinstance(payload, dict) or not isinstance(payload.get("approved"), bool):
        raise Refused(400, "InvalidBody", "resume: the payload for a call needs `approved`, true or false")
    arguments, reason = payload.get("editedArgs"), payload.get("reason")
    return GivenAnswer(
        ask=ask,
        is_refused=not payload["approved"],
        arguments=arguments if isinstance(arguments, dict) else None,
        reason=reason if isinstance(reason, str) else None,
    )
