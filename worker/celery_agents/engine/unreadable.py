"""The end of an execution whose record is damaged: it is recorded before any function of an agent is called."""

from datetime import timedelta

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.errors import ExecutionUnreadable
from agent_statestore.plain_text import line_logger
from agent_statestore.records import Lease
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.outcome import Ending, Outcome
from celery_agents.engine.stream.telling import ending

log = line_logger(__name__)


def end_unreadable(store: Store, fault: ExecutionUnreadable, announce_within: timedelta | None) -> Outcome:
    """Fail the execution that was claimed, and return how it ended.

    Raise the fault itself where the damage has kept it from being claimed: a later bell looks again, ever more rarely.
    """
    if not isinstance(fault.lease, Lease):
        raise fault
    lease = fault.lease
    log.error("execution %s fails: %s", lease.execution_id, fault)
    error = ExecutionUnreadable(lease.execution_id, fault.part, fault.reason)
    info = describe(error)
    failed = Checkpoint(
        state=AgentState.FAILED, error=info, announce_within=announce_within, stream=ending(AgentState.FAILED, info)
    )
    store.checkpoint(lease.execution_id, failed, lease)
    return Outcome(ending=Ending.FAILED, error=error, token=lease.token, has_relatives=True)
