"""Cancel, a signal that is final. Whoever finds a cancelled execution without a lease records its end at once."""

from agent_statestore.errors import ExecutionOver, MailboxFull
from agent_statestore.records import SignalKind
from agent_statestore.store import Store
from celery_agents.lifecycle.decider import Decider
from celery_agents.lifecycle.services import Services


def cancel(services: Services, execution_id: str, *, by: Decider, now: bool = False) -> bool:
    """Cancel an execution for good; see `Execution.cancel`."""
    if not request_cancel(services.store, execution_id, by=by):
        return False
    ends = services.ends
    if now:
        is_over = ends.cut_short(execution_id, by=by.sender, reason=by.reason, via=by.via)
    else:
        is_over = ends.finish_cancel(execution_id)
    if is_over:
        services.ends.try_to_tell_of(execution_id)
        summary = services.store.get_summary(execution_id)
        if summary is not None:
            services.ring(summary)  # a worker tells the result backend and Flower
    return True


def request_cancel(store: Store, execution_id: str, *, by: Decider) -> bool:
    """Put a cancel into the mailbox; return False if the execution is over. Raise `ExecutionNotFound`."""
    try:
        store.send(execution_id, by.signal(SignalKind.CANCEL))
    except ExecutionOver:
        return False
    except MailboxFull:
        return True  # it holds a cancel already, or this one would have been accepted
    return True
