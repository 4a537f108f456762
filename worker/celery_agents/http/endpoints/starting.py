"""New executions: started, forked off another one, or in place of one that is rewound."""

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

from agent_statestore.errors import IdempotencyConflict
from agent_statestore.query import Query
from agent_statestore.records import ExecutionSummary, JSONValue, require_name
from agent_statestore.states import AgentState
from celery_agents.http.bodies import ANYTHING, NUMBER, NUMBER_OR_NULL, OBJECT_OR_NULL, TEXT, TEXT_OR_NULL, BodyForm
from celery_agents.http.calls import EndpointCall, forbidden
from celery_agents.http.messages import Reply
from celery_agents.http.permission import Act
from celery_agents.http.problems import Refused
from celery_agents.http.views import view
from celery_agents.lifecycle.create import create
from celery_agents.lifecycle.decider import HTTP
from celery_agents.replay import fork as fork_execution
from celery_agents.replay import rewind as rewind_execution

START: Final = BodyForm(
    required={"agent": TEXT},
    optional={
        "input": ANYTHING,
        "session_id": TEXT_OR_NULL,
        "user_id": TEXT_OR_NULL,
        "metadata": OBJECT_OR_NULL,
        "idempotency_key": TEXT_OR_NULL,
    },
)
_ANEW: Final = {
    "input": ANYTHING,
    "session_id": TEXT_OR_NULL,
    "metadata": OBJECT_OR_NULL,
    "reason": TEXT_OR_NULL,
}
FORK: Final = BodyForm(required={"at_step": NUMBER}, optional=_ANEW)
REWIND: Final = BodyForm(required={"to_step": NUMBER}, optional={**_ANEW, "wait": NUMBER_OR_NULL})

MOST_REWIND_SECONDS: Final = 30
_DEFAULT_REWIND_SECONDS: Final = 5


def start(call: EndpointCall) -> Reply:
    """Start an execution of an agent. It belongs to the sender; for another `user_id`, `permit` must allow it.

    With an idempotency key, as the header `Idempotency-Key` or as a field, the request may be repeated: the reply is
    the same execution, with the status 200. A key counts for one sender and agent.
    """
    given = call.given
    agent, session_id = given["agent"], given.get("session_id")
    owner = given.get("user_id", call.sender)
    key = _key_of(call)
    for name, value in (("agent", agent), ("session_id", session_id), ("user_id", owner)):
        if value is not None:
            require_name(name, value)
    metadata = given.get("metadata") or {}
    require_start(call, agent, session_id, owner, metadata)
    existing = None if key is None else call.services.store.get_by_idempotency_key(agent, key)
    made = create(
        call.services,
        agent,
        given.get("input"),
        session_id=session_id,
        user_id=owner,
        metadata=metadata,
        idempotency_key=key,
    )
    summary = call.handle_of(made).summary()
    if key is not None and (summary.user_id, summary.session_id) != (owner, session_id):
        raise IdempotencyConflict(agent, key, made)
    return _created(call, summary, 201 if existing is None else 200)


def fork(call: EndpointCall) -> Reply:
    """Start a new execution that shares the first steps of this one, which stays as it is."""
    made = fork_execution(call.summary.execution_id, call.given["at_step"], **_anew(call))
    return _created(call, made.summary())


def rewind(call: EndpointCall) -> Reply:
    """Cancel the execution, unless it is over, and go on from one of its steps in a new one.

    If it is being executed, its step ends first, for which this waits `wait` seconds (up to 30). With a 409 of the type
    `StillExecuting`, the cancel was asked for, and the request is to be repeated.
    """
    wait = call.given.get("wait")
    wait = _DEFAULT_REWIND_SECONDS if wait is None else wait
    if not 0 <= wait <= MOST_REWIND_SECONDS:
        raise Refused(400, "InvalidBody", f"wait: needs 0 to {MOST_REWIND_SECONDS} seconds")
    try:
        made = rewind_execution(call.summary.execution_id, call.given["to_step"], timeout=wait, **_anew(call))
    except TimeoutError as error:
        message = "the execution is still being executed; its cancel was asked for"
        raise Refused(409, "StillExecuting", message, ("Retry-After", "1")) from error
    return _created(call, made.summary())


def _anew(call: EndpointCall) -> dict[str, Any]:
    """Return what a fork and a rewind take. A field that is not there leaves all as it was; null is a value."""
    given = call.given
    if given.get("session_id") is not None:
        require_name("session_id", given["session_id"])
        _require_session(call, given["session_id"])
    return {
        **{name: given[name] for name in ("input", "session_id") if name in given},
        "metadata": given.get("metadata"),
        "reason": given.get("reason"),
        "sender": call.sender,
        "channel": HTTP,
        "runtime": call.services,
    }


def require_start(
    call: EndpointCall, agent: str, session_id: str | None, owner: str | None, metadata: dict[str, JSONValue]
) -> None:
    """Raise `Refused` unless the sender may start this execution in this session."""
    now = datetime.now(UTC)
    planned = ExecutionSummary(
        execution_id="",
        agent_id=agent,
        session_id=session_id,
        user_id=owner,
        metadata=metadata,
        state=AgentState.IDLE,
        created_at=now,
        updated_at=now,
    )
    if not call.permit(call.sender, Act.START, planned):
        raise forbidden(call.sender)
    if session_id is not None:
        _require_session(call, session_id)


def _require_session(call: EndpointCall, session_id: str) -> None:
    """Refuse a session whose newest execution the sender may not look at: its conversation is another's."""
    newest = call.services.store.find(Query(session_id=session_id, limit=1)).items
    if newest and not call.permit(call.sender, Act.LOOK, newest[0]):
        raise forbidden(call.sender)


def _key_of(call: EndpointCall) -> str | None:
    """Return the key under which the store keeps the sender's key. Others' keys are others."""
    in_header, in_body = call.request.headers.get("idempotency-key"), call.given.get("idempotency_key")
    if in_header is not None and in_body is not None and in_header != in_body:
        raise Refused(400, "InvalidBody", "idempotency_key: the header Idempotency-Key says something else")
    key = in_body if in_header is None else in_header
    if key is None:
        return None
    require_name("idempotency_key", key)
    return f"http:{sha256(repr((call.sender, key)).encode()).hexdigest()}"


def _created(call: EndpointCall, summary: ExecutionSummary, status: int = 201) -> Reply:
    where = f"{quote(call.request.prefix.rstrip('/'))}/executions/{summary.execution_id}"
    return Reply(status=status, value=view(summary), headers=(("Location", where),))
