"""The bell: a message that says "look at execution X", and nothing else.

It carries the execution's id, and no input or secret. Losing it, or getting it five times, changes nothing.
"""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from celery import Celery
from kombu.exceptions import OperationalError

from agent_statestore.fork_gate import ForkGate
from agent_statestore.plain_text import line_logger
from agent_statestore.store import Store
from celery_agents.host.routes import AgentsRouter
from celery_agents.settings import Settings

log = line_logger(__name__)

TASK_NAME: Final = "agents.execute"

# kombu and the result backends build much of their state at first use, under locks. A child of the pool would inherit
# such a lock locked if it were born while the sweeper's thread rings.
broker_gate: Final = ForkGate("the broker's client")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=broker_gate.close, after_in_parent=broker_gate.open, after_in_child=broker_gate.renew)


def ring(
    app: Celery, settings: Settings, *, execution_id: str, agent_id: str, queue: str | None, priority: int | None
) -> bool:
    """Publish one bell; return False, after a warning, if that failed.

    The task's id is the execution's id in every attempt: one row in Flower and one `AsyncResult` follow the execution
    to its end. `shadow` makes monitors show the agent's name.
    """
    with broker_gate:
        return _ring(app, settings, execution_id, agent_id, queue, priority)


def _ring(
    app: Celery, settings: Settings, execution_id: str, agent_id: str, queue: str | None, priority: int | None
) -> bool:
    options: dict[str, object] = {}
    if app.conf.task_send_sent_event:
        options["event_dispatcher"] = _SentUnderAgentsName(app, agent_id)
    if app.conf.task_routes:
        options["router"] = AgentsRouter(app, agent_id, settings.queue)
        own_queue = queue
    else:
        own_queue = queue or settings.queue
    if own_queue:
        options["queue"] = own_queue
    if priority is not None:
        options["priority"] = priority
    try:
        app.send_task(
            TASK_NAME,
            args=(execution_id,),
            task_id=execution_id,
            shadow=agent_id,
            argsrepr=f"('{execution_id}',)",
            kwargsrepr="{}",
            serializer=app.conf.task_serializer,
            **options,
        )
    except Exception as error:
        # Besides the broker's errors, the result backend's client may raise anything when it is told of the new task.
        # The execution is stored, and a sweeper rings a bell that failed. So no error may leave this function.
        log.warning(
            "execution %s: its bell could not be rung, the sweeper does so later: %s",
            execution_id,
            error or type(error).__name__,
            exc_info=not isinstance(error, OperationalError | OSError),
        )
        return False
    return True


def broker_answers(app: Celery) -> bool:
    """Return whether the broker can be reached at all: then a bell that failed has a fault of its own."""
    with broker_gate:
        try:
            with app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=app.conf.broker_connection_timeout)
                connection.default_channel.close()
        except Exception as error:  # noqa: BLE001 - each transport raises what its driver raises
            log.debug("the broker does not answer: %s", error)
            return False
        return True


class _SentUnderAgentsName:
    """Publishes Celery's `task-sent` event with the agent's name.

    Celery tells workers the shadow name, but tells monitors the task's own name. Flower would list, filter and count an
    execution as `agents.execute` until a worker receives it.
    """

    def __init__(self, app: Celery, agent_id: str) -> None:
        self._dispatcher = app.events.Dispatcher(enabled=False)  # publishes through the message's own producer
        self._agent_id = agent_id

    def publish(self, kind: str, fields: dict[str, Any], producer: Any, **options: Any) -> None:
        self._dispatcher.publish(kind, fields | {"name": self._agent_id}, producer, **options)


def mark_rung(store: Store, settings: Settings, rung: Sequence[tuple[str, int]]) -> None:
    """Tell the store which (execution, token) pairs were rung, so that they are not rung again too soon."""
    if rung:
        store.mark_rung(
            rung,
            timedelta(seconds=settings.ring_seconds),
            timedelta(seconds=settings.ring_max_seconds),
        )
