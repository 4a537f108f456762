"""`POST /chat/{agent}` and `GET /chat/{agent}/{chat_id}/stream`: what `useChat` of the AI SDK asks for."""

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent_statestore.query import Query
from agent_statestore.records import require_name
from celery_agents.http.bodies import TEXT, BodyForm
from celery_agents.http.calls import EndpointCall
from celery_agents.http.formats.asks import Ask
from celery_agents.http.formats.ui_messages import ASK_TOOL, UIMessages
from celery_agents.http.front_ends.answering import GivenAnswer, answered
from celery_agents.http.front_ends.forms import OBJECTS, objects
from celery_agents.http.front_ends.inputs import id_of, last_text, started
from celery_agents.http.front_ends.streaming import streamed
from celery_agents.http.messages import Reply
from celery_agents.http.permission import Act
from celery_agents.http.problems import Refused

CHAT: Final = BodyForm(is_open=True, required={"id": TEXT, "messages": OBJECTS}, optional={"trigger": TEXT})
_REGENERATE: Final = "regenerate-message"


def chat(call: EndpointCall) -> Reply:
    """Answer the last message of a chat made with `useChat`: start an execution, or answer what one has asked.

    The chat is the session, and the execution belongs to the sender. The same message sent again gets the same
    execution. The response ends where that is over, or waits for a person.
    """
    chat_id, messages = call.given["id"], objects(call.given, "messages")
    require_name("id", chat_id)
    last = messages[-1] if messages else {}
    if last.get("role") == "assistant":
        answers = list(_answers_in(last))
        if not answers:
            raise Refused(400, "InvalidBody", "messages: the last one is neither a user's nor has an answer in it")
        summary, after = answered(call, answers)
    elif last.get("role") == "user":
        again = uuid.uuid4().hex if call.given.get("trigger") == _REGENERATE else ""
        said = json.dumps(last, sort_keys=True)
        execution_id = id_of("chat", call.sender, call.parts["agent"], chat_id, said, again)
        sent = {"text": last_text(messages), "messages": messages, "thread_id": chat_id}
        summary, after = started(call, execution_id, chat_id, sent), 0
        call.require(Act.READ, summary)
    else:
        raise Refused(400, "InvalidBody", "messages: needs one of the user at its end")
    return streamed(call, summary, UIMessages(summary), after)


def resume_chat(call: EndpointCall) -> Reply:
    """Tell the last message of the assistant in a chat from its beginning, live; 204 if there is none.

    That it is over does not matter: a page that was cut off in the middle of it gets the rest. One whose events were
    removed is not told.
    """
    chat_id, agent = call.parts["chat_id"], call.parts["agent"]
    require_name("chat_id", chat_id)
    newest = next(iter(call.services.store.find(Query(session_id=chat_id, agent_id=agent, limit=1)).items), None)
    if newest is None:
        return Reply(status=204)
    call.require(Act.READ, newest)
    page = call.services.store.read_events(newest.execution_id, 0, 1)
    if page is None or page.trimmed_to or (newest.state.is_over and not page.events):
        return Reply(status=204)
    return streamed(call, newest, UIMessages(newest), 0)


def _answers_in(message: Mapping[str, Any]) -> Iterator[GivenAnswer]:
    """Yield the answers in a message of the assistant, also those that were sent before."""
    parts = message.get("parts")
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, dict):
            continue
        approval = part.get("approval")
        if isinstance(approval, dict) and isinstance(approval.get("approved"), bool):
            ask, reason = Ask.read(str(approval.get("id"))), approval.get("reason")
            if ask is not None and ask.is_approval:
                text = reason if isinstance(reason, str) else None
                yield GivenAnswer(ask=ask, is_refused=not approval["approved"], reason=text)
        elif part.get("type") == f"tool-{ASK_TOOL}" and part.get("state") == "output-available":
            ask = Ask.read(str(part.get("toolCallId")))
            if ask is not None and not ask.is_approval:
                yield GivenAnswer(ask=ask, value=part.get("output"))
