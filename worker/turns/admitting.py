"""Creating an execution, unless its session is busy and the agent rejects that."""

from statestore.checkpoint import NewExecution
from statestore.operations import Store
from statestore.records import AgentContext, ExecutionSummary
from worker.errors import SessionBusy
from worker.turns.line import Line
from worker.turns.policy import SessionPolicy, Turns


def create(store: Store, turns: Turns, new: NewExecution) -> AgentContext:
    """`Store.create`. Raises `SessionBusy`, with nothing stored, under the policy "reject".

    Of several calls at the same moment at most one succeeds, because each looks again after it has created its own;
    it may happen that none does. An execution may start others in its own session.
    """
    if turns.session_policy is not SessionPolicy.REJECT or new.session_id is None:
        return store.create(new)
    if new.idempotency_key is not None:
        existing = store.get_by_idempotency_key(new.agent_id, new.idempotency_key)
        if existing is not None:
            return existing
    line = Line(store, turns)
    busy = _other(line, new.session_id, new.parent_execution_id, None)
    if busy is None:
        made = store.create(new)
        busy = _other(line, new.session_id, new.parent_execution_id, made.execution_id)
        if busy is None:
            return made
        # Nobody works on it yet: it is not published, and no sweeper looks at it so soon.
        store.purge(made.execution_id)
    raise SessionBusy(new.agent_id, new.session_id, busy.execution_id)


def _other(line: Line, session_id: str, parent_id: str | None, own_id: str | None) -> ExecutionSummary | None:
    ancestors = None
    for summary in line.active_of_session(session_id):
        if summary.execution_id == own_id:
            continue
        if ancestors is None:
            ancestors = {ancestor.execution_id for ancestor in line.chain(parent_id)}
        if summary.execution_id not in ancestors:
            return summary
    return None
