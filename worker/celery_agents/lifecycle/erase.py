"""Erasing all of a user, or of a session: executions, conversations, threads and what was remembered."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent_statestore.documents.places import Namespace, safe_part
from agent_statestore.documents.sessions import namespace_of
from agent_statestore.query import Query
from agent_statestore.recall.facts import Scope, ScopeKind
from agent_statestore.records import ExecutionSummary
from agent_statestore.store import Store
from celery_agents.errors import AgentsError
from celery_agents.lifecycle.decider import Decider
from celery_agents.lifecycle.delete import purge, say_removed
from celery_agents.lifecycle.services import Services

# The root of LangGraph's threads, which bear the ids of sessions.
THREADS: Final = "thread"

_PAGE: Final = 200


class StillActive(AgentsError):
    """Executions of what is to be erased are active; `execution_id` is one of them, `count` how many there are."""

    def __init__(self, execution_id: str, count: int) -> None:
        super().__init__(execution_id, count)
        self.execution_id = execution_id
        self.count = count

    def __str__(self) -> str:
        others = f", and {self.count - 1} more are" if self.count > 1 else " is"
        return f"execution {self.execution_id}{others} active: cancel it first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """How much was removed. `sessions` are those whose conversations went."""

    executions: int
    documents: int
    sessions: tuple[str, ...] = ()


def erase_session(services: Services, session_id: str, *, by: Decider) -> Erased:
    """Remove all executions of a session, its conversation, its thread, and what was remembered of it, for good.

    Executions that were deleted before and are kept stay until they are purged. Raise `StillActive`, with nothing
    removed, while one of its executions is active.
    """
    executions = _all(services.store, Query(session_id=session_id, limit=_PAGE))
    return _erase(services, executions, {session_id}, [], f"session {session_id!r}", by)


def erase_user(services: Services, user_id: str, *, by: Decider) -> Erased:
    """Remove all executions of a user, what was remembered of the user, and the sessions that are the user's alone.

    Likewise; see `erase_session`.
    """
    store = services.store
    executions = _all(store, Query(user_id=user_id, limit=_PAGE))
    sessions = {each.session_id for each in executions if each.session_id is not None}
    own = {session_id for session_id in sessions if _is_of(store, session_id, user_id)}
    return _erase(services, executions, own, [Scope(ScopeKind.USER, user_id).namespace], f"user {user_id!r}", by)


def _erase(
    services: Services,
    executions: list[ExecutionSummary],
    sessions: set[str],
    namespaces: list[Namespace],
    what: str,
    by: Decider,
) -> Erased:
    active = [each.execution_id for each in executions if not each.state.is_over]
    if active:
        raise StillActive(active[0], len(active))
    purged = sum(purge(services, each.execution_id, by=by) for each in executions)
    documents = services.store.documents
    roots = [*namespaces, *(root for session_id in sorted(sessions) for root in _roots_of(session_id))]
    removed = sum(documents.remove_under(root) for root in roots)
    if removed:
        say_removed(services, f"all of {what} ({removed} documents)", by)
    return Erased(executions=purged, documents=removed, sessions=tuple(sorted(sessions)))


def _roots_of(session_id: str) -> Iterator[Namespace]:
    yield namespace_of(session_id)
    yield (THREADS, safe_part(session_id))


def _is_of(store: Store, session_id: str, user_id: str) -> bool:
    """Return whether all executions of a session are of this user."""
    return all(each.user_id == user_id for each in _all(store, Query(session_id=session_id, limit=_PAGE)))


def _all(store: Store, query: Query) -> list[ExecutionSummary]:
    found, cursor = list[ExecutionSummary](), None
    while True:
        page = store.find(Query(session_id=query.session_id, user_id=query.user_id, limit=query.limit, cursor=cursor))
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found
