"""Lists of executions, which show only what the sender may look at, and the inbox among them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from agent_statestore.clock import to_us
from agent_statestore.query import Cursor, Query, encode_cursor
from agent_statestore.records import ExecutionSummary
from agent_statestore.states import AgentState
from celery_agents.http.calls import EndpointCall
from celery_agents.http.messages import Reply
from celery_agents.http.permission import Act, is_own
from celery_agents.http.queries import Parameter, bad_query
from celery_agents.http.shapes import ExecutionsPage
from celery_agents.http.views import view
from celery_agents.lifecycle.signals import approvals_of, questions_of

MOST_LISTED: Final = 200
_DEFAULT_LISTED: Final = 50
# How many executions one request looks at, to find those that the sender may see.
MOST_LOOKED_AT: Final = 1000
_READ_AT_ONCE: Final = MOST_LISTED + 1
_PAUSED: Final = frozenset({AgentState.WAITING, AgentState.WAITING_FOR_INPUT, AgentState.WAITING_FOR_APPROVAL})

_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": 255}
LIST_QUERY: Final = (
    Parameter(name="agent", description="Only executions of this agent.", schema=_TEXT),
    Parameter(
        name="state",
        description="Only executions in this state, or in one of these.",
        schema={"type": "string", "enum": [state.value for state in AgentState]},
        repeats=True,
    ),
    Parameter(name="session", description="Only executions of this session.", schema=_TEXT),
    Parameter(name="user", description="Only executions of this user.", schema=_TEXT),
    Parameter(
        name="waiting",
        description='"me": the inbox, those that wait for a person and that the sender may answer or decide.',
        schema={"type": "string", "enum": ["me"]},
    ),
    Parameter(
        name="order",
        description="By the time of creation.",
        schema={"type": "string", "enum": ["newest", "oldest"], "default": "newest"},
    ),
    Parameter(
        name="limit",
        description="At most so many executions.",
        schema={"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": _DEFAULT_LISTED},
    ),
    Parameter(
        name="cursor",
        description="The `next_cursor` of the page before, asked with the same other parameters.",
        schema=_TEXT,
    ),
)


def list_executions(call: EndpointCall) -> Reply:
    """List executions, by page: of all that fit, those that the sender may look at.

    Where a rule of the application's own hides many, a page may have fewer than were asked for, or none: the end is
    where `next_cursor` is null.
    """
    query, inbox = _query_of(call.asked), call.asked.get("waiting") == "me"
    if call.permit is is_own:
        if query.user_id not in (None, call.sender):
            return _page([], None)
        query = replace(query, user_id=call.sender)
    limit = query.limit
    found: list[ExecutionSummary] = []
    for looked_at, summary in enumerate(_each(call, query), 1):
        if _is_shown(call, summary, inbox):
            if len(found) == limit:
                # Behind what is shown, not behind what is hidden: a cursor names its execution.
                return _page(found, _place_of(found[-1]))
            found.append(summary)
        elif looked_at >= MOST_LOOKED_AT:
            return _page(found, _place_of(summary))
    return _page(found, None)


def _query_of(asked: Any) -> Query:
    states: Any = asked.get("state")
    if states is not None:
        states = frozenset(AgentState(state) for state in states)
    if asked.get("waiting") == "me":
        states = _PAUSED if states is None else states & _PAUSED
        if not states:
            raise bad_query("an execution in none of these states waits for anybody")
    query = Query(
        agent_id=asked.get("agent"),
        session_id=asked.get("session"),
        user_id=asked.get("user"),
        states=states,
        limit=asked.get("limit", _DEFAULT_LISTED),
        cursor=asked.get("cursor"),
        oldest_first=asked.get("order") == "oldest",
    )
    if query.behind is not None and query.behind.created_us < 0:
        raise bad_query("cursor: is not one of this list")
    return query


def _each(call: EndpointCall, query: Query) -> Iterator[ExecutionSummary]:
    """Yield executions, read page by page: larger ones where a rule may hide most of them."""
    query = replace(query, limit=query.limit + 1 if call.permit is is_own else _READ_AT_ONCE)
    while True:
        page = call.services.store.find(query)
        yield from page.items
        if page.next_cursor is None:
            return
        query = replace(query, cursor=page.next_cursor)


def _is_shown(call: EndpointCall, summary: ExecutionSummary, inbox: bool) -> bool:
    def may(act: Act) -> bool:
        return call.permit(call.sender, act, summary)

    if not may(Act.LOOK):
        return False
    if not inbox:
        return True
    return (bool(questions_of(summary)) and may(Act.ANSWER)) or (
        bool(approvals_of(summary)) and (may(Act.APPROVE) or may(Act.REJECT))
    )


def _place_of(summary: ExecutionSummary) -> str:
    return encode_cursor(Cursor(to_us(summary.created_at), summary.execution_id))


def _page(found: list[ExecutionSummary], next_cursor: str | None) -> Reply:
    value: ExecutionsPage = {"items": [view(summary) for summary in found], "next_cursor": next_cursor}
    return Reply(status=200, value=value)
