"""The bell: a message that says "look at execution X", and nothing else.

It carries the execution's id, and no input or secret. Losing it, or getting it five times, changes nothing.
"""

import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps

from agent_statestore.drivers.fork_gate import ForkGate
from agent_statestore.plain_text import line_logger
from agent_statestore.records import ExecutionSummary
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
    options = _options(app, settings, agent_id, queue, priority)
    if app.conf.task_routes:
        options["router"] = AgentsRouter(app, agent_id, settings.queue)
    if _only_subscribes(app):
        # Whoever asks for the result subscribes then; most who enqueue never ask. The header tells the worker the
        # opposite of what Celery takes the option for.
        options |= {"ignore_result": True, "headers": {"ignore_result": False}}
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


def _options(app: Celery, settings: Settings, agent_id: str, queue: str | None, priority: int | None) -> dict[str, Any]:
    """Return how the bells of an agent are published."""
    options: dict[str, Any] = {}
    if app.conf.task_send_sent_event:
        options["event_dispatcher"] = _SentUnderAgentsName(app, agent_id)
    own_queue = queue if app.conf.task_routes else queue or settings.queue
    if own_queue:
        options["queue"] = own_queue
    if priority is not None:
        options["priority"] = priority
    return options


def ring_alike(app: Celery, settings: Settings, summaries: Sequence[ExecutionSummary]) -> bool:
    """Publish the bells of executions of one agent, queue and priority; return False, after a warning, if that failed.

    They are routed once, and on Redis they leave in one command.
    """
    first = summaries[0]
    task = app.tasks.get(TASK_NAME) if len(summaries) > 1 else None
    found = {} if task is None else task._get_exec_options()
    exec_options = {name: value for name, value in found.items() if value is not None}
    if len(summaries) == 1 or "expires" in exec_options:
        destination = (first.agent_id, first.queue, first.priority)
        with broker_gate:
            rung = [_ring(app, settings, one.execution_id, *destination) for one in summaries]
        return all(rung)
    with broker_gate:
        try:
            _publish_alike(app, settings, summaries, exec_options)
        except Exception as error:  # as in `_ring`
            log.warning(
                "%d executions of agent %r: their bells could not be rung, the sweeper does so later: %s",
                len(summaries),
                first.agent_id,
                error or type(error).__name__,
                exc_info=not isinstance(error, OperationalError | OSError),
            )
            return False
    return True


def _publish_alike(
    app: Celery, settings: Settings, summaries: Sequence[ExecutionSummary], options: dict[str, Any]
) -> None:
    """Publish as `Celery.send_task` does, which would look up the same route and the same options for each."""
    first, amqp, parent = summaries[0], app.amqp, app.current_worker_task
    options |= _options(app, settings, first.agent_id, first.queue, first.priority)
    fixed: dict[str, Any] = {
        "time_limit": options.pop("time_limit", None),
        "soft_time_limit": options.pop("soft_time_limit", None),
        "parent_id": None if parent is None else parent.request.id,
        "shadow": first.agent_id,
        "reply_to": app.thread_oid,
        "create_sent_event": app.conf.task_send_sent_event,
        "ignore_result": False,
        "kwargsrepr": "{}",
    }
    router = AgentsRouter(app, first.agent_id, settings.queue) if app.conf.task_routes else amqp.router
    options = dict(router.route(options, TASK_NAME, (), {}))
    options["serializer"] = app.conf.task_serializer
    tells_backend = not _only_subscribes(app)
    with (
        app.producer_or_acquire() as producer,
        producer.connection._reraise_as_library_errors(),
        _together(producer.channel),
    ):
        for execution_id in (summary.execution_id for summary in summaries):
            root_id = execution_id if parent is None else parent.request.root_id or parent.request.id
            message = amqp.create_task_message(
                execution_id,
                TASK_NAME,
                (execution_id,),
                {},
                argsrepr=f"('{execution_id}',)",
                root_id=root_id,
                **fixed,
            )
            if tells_backend:
                app.backend.on_task_call(producer, execution_id)
            amqp.send_task_message(producer, TASK_NAME, message, **options)


@contextmanager
def _together(channel: Any) -> Iterator[None]:
    """Keep what is published on a channel within the block, and send it at the block's end.

    Only on kombu's channels of Redis; on any other the messages leave one by one. kombu has no call for this, so that
    the method is replaced by which such a channel puts a message into a queue. After an error nothing has been sent.
    """
    transport = sys.modules.get("kombu.transport.redis")
    if transport is None or not isinstance(channel, transport.Channel):
        yield
        return
    waiting: dict[str, list[str]] = defaultdict(list)

    def keep(queue: str, message: dict[str, Any], **_: Any) -> None:
        priority = channel._get_message_priority(message, reverse=False)
        waiting[channel._q_for_pri(queue, priority)].append(dumps(message))  # type: ignore[no-untyped-call]

    channel._put = keep
    try:
        yield
    finally:
        del channel._put
    with channel.conn_or_acquire() as client:
        for key, messages in waiting.items():
            client.lpush(key, *messages)


def _only_subscribes(app: Celery) -> bool:
    """Return whether the result backend is told of a new task only to listen for its end: Redis, in all its forms."""
    return bool(type(app.backend).on_task_call.__module__ == "celery.backends.redis")


def mark_due(store: Store, summaries: Sequence[ExecutionSummary]) -> None:
    """Have the next sweep ring for executions whose bells could not be rung."""
    store.mark_rung([(summary.execution_id, summary.attempt) for summary in summaries], timedelta(0), timedelta(0))


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
