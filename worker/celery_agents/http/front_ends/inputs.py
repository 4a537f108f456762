"""What a front end sends as the input of an agent, and the execution that is started with it."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent_statestore.errors import ExecutionNotFound
from agent_statestore.records import ExecutionSummary, JSONValue
from celery_agents.define.agent import AgentDefinition
from celery_agents.http.calls import EndpointCall
from celery_agents.http.endpoints.starting import require_start
from celery_agents.lifecycle.create import create

# Names executions after the requests that start them, so that a request may be repeated.
_NAMES: Final = uuid.UUID("6f1c8f0e-5d0b-4f0e-9d1c-3a7c2b1e4d5f")


def id_of(*names: str) -> str:
    """Return the id of the execution that this request starts: the same for the same names."""
    return str(uuid.uuid5(_NAMES, repr(names)))


def started(call: EndpointCall, execution_id: str, session_id: str, sent: Mapping[str, JSONValue]) -> ExecutionSummary:
    """Start an execution of the agent in the path, which belongs to the sender; return the one that is there already.

    Raise `Refused`, and what `create` raises.
    """
    handle = call.handle_of(execution_id)
    try:
        return handle.summary()
    except ExecutionNotFound:
        pass
    name = call.parts["agent"]
    require_start(call, name, session_id, call.sender, {})
    call.services.load_agents()
    agent = call.services.registry.agent(name)
    create(
        call.services,
        agent,
        input_of(agent, sent),
        session_id=session_id,
        user_id=call.sender,
        execution_id=execution_id,
    )
    return handle.summary()


def input_of(agent: AgentDefinition, sent: Mapping[str, JSONValue]) -> JSONValue:
    """Return what an agent takes of a front end's request.

    An agent that takes a text gets the last message of the user, and one that takes a list gets all messages. One that
    takes an object gets those of `text`, `messages`, `thread_id`, `tools`, `context`, `state` and `props` that its
    schema names, and one that takes anything gets them all.
    """
    schema = agent.input_schema
    if schema.get("type") == "string":
        return sent.get("text")
    if schema.get("type") == "array":
        return sent.get("messages")
    known = schema.get("properties")
    return {name: value for name, value in sent.items() if not isinstance(known, dict) or name in known}


def last_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the user's last message, "" if there is none. Both protocols have texts as parts, too."""
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content", message.get("parts"))
            if isinstance(content, str):
                return content
            parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
            return "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")
    return ""
