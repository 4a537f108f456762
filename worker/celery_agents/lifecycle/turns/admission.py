"""Admission: whether an execution may be created. It may not while its session is busy and its agent rejects that."""

from agent_statestore.checkpoint import NewExecution
from agent_statestore.records import AgentContext, ExecutionSummary
from agent_statestore.rules.creating import same_execution, same_id
from agent_statestore.store import Store
from celery_agents.define.turns import Turns
from celery_agents.errors import SessionBusy
from celery_agents.lifecycle.turns.line import Line


def create(store: Store, turns: Turns, new: NewExecution) -> AgentContext:
    """Call `Store.create`. Under the policy "reject", raise `SessionBusy` with nothing stored.

    At most one of several simultaneous calls succeeds, because each looks again after it has created its execution; it
    may happen that none succeeds. An execution may start others in its own session.
    """
    if not turns.rejects(new.session_id):
        return store.create(new)
    if new.idempotency_key is not None:
        existing = store.get_by_idempotency_key(new.agent_id, new.idempotency_key)
        if existing is not None:
            return same_execution(existing, new)
    if new.execution_id is not None:
        existing = store.get_context(new.execution_id)
        if existing is not None:
            return same_id(existing, new)
    require_free(store, turns, new.session_id, parent_id=new.parent_execution_id)
    made = store.create(new)
    keep_or_purge(store, turns, new.session_id, made.execution_id, parent_id=new.parent_execution_id)
    return made


def require_free(
    store: Store, turns: Turns, session_id: str | None, *, parent_id: str | None = None, but: str | None = None
) -> None:
    """Raise `SessionBusy` if nothing may be started in this session now.

    A descendant of `parent_id` may run beside that execution and its ancestors. `but` does not count, and neither do
    its descendants.
    """
    if session_id is None or not turns.rejects(session_id):
        return
    busy = _other(Line(store, turns), session_id, parent_id, but)
    if busy is not None:
        raise SessionBusy(turns.agent_id, session_id, busy.execution_id)


def keep_or_purge(
    store: Store, turns: Turns, session_id: str | None, own_id: str, *, parent_id: str | None = None
) -> None:
    """Look again now that this execution is stored (see `create`). Purge it and raise `SessionBusy` if it is too many.

    Nobody can work on it yet: it is not published, and no sweeper looks at it so soon.
    """
    try:
        require_free(store, turns, session_id, parent_id=parent_id, but=own_id)
    except SessionBusy:
        store.purge(own_id)
        raise


def _other(line: Line, session_id: str, parent_id: str | None, but: str | None) -> ExecutionSummary | None:
    ancestors = None
    for summary in line.active_of_session(session_id):
        if summary.execution_id == but:
            continue
        if ancestors is None:
            ancestors = {ancestor.execution_id for ancestor in line.chain(parent_id)}
        if summary.execution_id in ancestors:
            continue
        if all(above.execution_id != but for above in line.chain(summary.parent_execution_id)):
            return summary
    return None
