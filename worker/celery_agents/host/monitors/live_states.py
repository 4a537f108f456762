"""Live states for Flower: engine events become custom Celery events, which Flower shows as the task's state."""

import os
import threading
import time
from typing import Any, Final

from celery import Celery, current_task
from kombu.exceptions import OperationalError

from agent_statestore.plain_text import line_logger
from agent_statestore.states import AgentState
from celery_agents.engine.events import Event, EventKind
from celery_agents.engine.outcome import Ending
from celery_agents.engine.patience import Outage
from celery_agents.host.monitors.switch import MonitorSwitch

log = line_logger(__name__)

# While there are more states than can be sent at once, only the last of each execution in this time is sent.
_BATCH_SECONDS: Final = 0.1


class LiveStates:
    """Sends `task-<state>` whenever the state of an execution changes, under the id of the task that executes it.

    A thread of its own sends them, so that no execution waits for the broker: at once if it is idle, else all that have
    changed meanwhile in one message, of each execution the last. Flower shows no more than that. A process that dies
    may not have sent the last.

    A custom state outranks RECEIVED and STARTED, so the first event of an attempt also corrects what a crashed attempt
    left behind. It outranks no end. Ends are reported by Celery itself (SUCCESS, FAILURE) and by
    `celery_agents.host.tasks` (REVOKED).
    """

    # It never blocks, and may be told in any thread; see `Event`.
    is_quick = True

    def __init__(self, app: Celery, switch: MonitorSwitch) -> None:
        self._app = app
        self._switch = switch
        self._start_anew()

    def _start_anew(self) -> None:
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # what follows may be touched by whoever holds it
        self._changed: dict[str, dict[str, Any]] = {}
        self._hostname = ""
        # Of the executions whose tasks run now, and in which thread each does.
        self._hostnames: dict[str, str] = {}
        self._in_thread: dict[int, str] = {}
        self._has_changed = threading.Event()
        self._telling = Outage(log, "telling monitors of live states")

    def __call__(self, event: Event) -> None:
        """Take an engine event; a `Subscriber`."""
        if event.kind is EventKind.CLAIMED:
            self._begin(event.execution_id)
        hostname = self._hostnames.get(event.execution_id)
        if event.kind is EventKind.ENDED:
            self._hostnames.pop(event.execution_id, None)
        if hostname is None or not self._switch.is_on:
            return
        if _changes_state(event):
            fields = {"step": event.steps, "tool": event.tool, "attempt": event.attempt, "timestamp": time.time()}
            self._take(hostname, event.execution_id, {"type": f"task-{event.state.value}"} | fields)
        elif event.kind is EventKind.ENDED and event.state.is_over and self._pid == os.getpid():
            with self._lock:
                self._changed.pop(event.execution_id, None)  # Celery tells of the end, which outranks it

    def _begin(self, execution_id: str) -> None:
        """Note who executes it: the thread of the task knows, and those that take its steps may not."""
        if self._pid != os.getpid():
            self._start_anew()  # in the child of a fork, where the thread does not live on
        task = current_task
        if task and task.request.id == execution_id and not task.request.is_eager:
            # A thread has one at a time: nobody tells of the end of an attempt that is ended from outside.
            before = self._in_thread.get(threading.get_ident(), execution_id)
            self._hostnames.pop(before, None)
            self._in_thread[threading.get_ident()] = execution_id
            self._hostnames[execution_id] = task.request.hostname

    def _take(self, hostname: str, execution_id: str, state: dict[str, Any]) -> None:
        if self._pid != os.getpid():
            self._start_anew()  # in the child of a fork, where the thread does not live on
        with self._lock:
            self._hostname = hostname
            self._changed[execution_id] = state
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_for_ever, name="agents-live-states", daemon=True)
                self._thread.start()
        self._has_changed.set()

    def _send_for_ever(self) -> None:
        while True:
            self._has_changed.wait()
            self._has_changed.clear()
            self._send()
            time.sleep(_BATCH_SECONDS)

    def _send(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, {}
            hostname = self._hostname
        if not changed:
            return
        try:
            with (
                self._app.amqp.producer_pool.acquire(block=True) as producer,
                self._app.events.Dispatcher(
                    producer.connection,
                    hostname,  # of the worker: any other name would be that of a worker that does not exist
                    channel=producer.channel,
                    buffer_while_offline=False,
                    buffer_group={"task"},
                    buffer_limit=len(changed) + 1,
                ) as dispatcher,
            ):
                for execution_id, fields in changed.items():
                    dispatcher.send(fields.pop("type"), uuid=execution_id, **fields)
                dispatcher.flush(errors=False)
        except Exception as error:
            if not isinstance(error, (OperationalError, OSError, *self._app.connection_for_write().connection_errors)):
                log.warning("live states could not be sent", exc_info=True)
            else:
                self._telling.failed(error)
        else:
            self._telling.succeeded()


def _changes_state(event: Event) -> bool:
    if event.kind is EventKind.STATE:
        return event.state is not AgentState.THINKING
    if event.kind is EventKind.STEP_RECORDED:
        return event.step is not None and event.step.action.kind == "tool"
    return event.kind is EventKind.CLAIMED or event.ending is Ending.PAUSED
