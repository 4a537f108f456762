"""Live states for Flower: an engine event becomes a custom Celery event, which Flower shows as the task's state."""

from typing import Final

from celery import current_task
from kombu.exceptions import OperationalError

from agent_statestore.plain_text import line_logger
from agent_statestore.states import AgentState
from celery_agents.engine.events import Event, EventKind
from celery_agents.engine.outcome import Ending
from celery_agents.engine.patience import Outage

log = line_logger(__name__)

_telling: Final = Outage(log, "telling monitors of live states")


def send_live_state(event: Event) -> None:
    """Send `task-<state>` from the task that runs the execution, whenever the state changes.

    The task's own dispatcher sends it: any other would attribute it to a worker that does not exist. A custom state
    outranks RECEIVED and STARTED, so the first event of an attempt also corrects what a crashed attempt left behind.
    Ends are reported by Celery itself (SUCCESS, FAILURE) and by `celery_agents.host.tasks` (REVOKED).
    """
    task = current_task
    if not task or task.request.id != event.execution_id or task.request.is_eager or not _changes_state(event):
        return
    facts = {"step": event.steps, "tool": event.tool, "attempt": event.attempt}
    try:
        task.send_event(f"task-{event.state.value}", retry=False, **facts)
    except Exception as error:
        if not isinstance(error, (OperationalError, OSError, *task.app.connection_for_write().connection_errors)):
            raise
        _telling.failed(error)
    else:
        _telling.succeeded()


def _changes_state(event: Event) -> bool:
    if event.kind is EventKind.STATE:
        return event.state is not AgentState.THINKING
    if event.kind is EventKind.STEP_RECORDED:
        return event.step is not None and event.step.action.kind == "tool"
    return event.kind is EventKind.CLAIMED or event.ending is Ending.PAUSED
