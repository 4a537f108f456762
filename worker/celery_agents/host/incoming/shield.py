"""A worker that misshapen messages do not end: they are dropped, with one line in the log, and never put back.

Anybody who can write to a broker can write anything. In the ready-made app every message that is not shaped as Celery's
protocol says is dropped. In an app of the user's own, whose other tasks may be called in their own ways, only what
would end the worker is, and what calls the tasks of this package wrongly.

A message is looked at where it enters: as text, as kombu's transport makes a message of it, and as Celery makes a task
of it.
"""

import errno
from collections.abc import Callable
from queue import Empty
from typing import Any

from celery import bootsteps

from celery_agents.host.bell import TASK_NAME as EXECUTE
from celery_agents.host.cron import TASK_NAME as ENQUEUE
from celery_agents.host.incoming.shapes import (
    NO_JSON,
    fault_of,
    fault_of_body,
    fault_that_ends_a_worker,
    tell_of_misshapen,
)
from celery_agents.host.runtime import runtime_of

Handle = Callable[[Any], Any]


class Shield(bootsteps.StartStopStep):  # type: ignore[misc] # Celery carries no types
    """Stands between the broker and the worker's main loop."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        make_handler = parent.create_task_handler
        is_strict = runtime_of(parent.app).is_ready_made
        # Before any step starts: the consumer of tasks takes these two when it is made.
        parent.create_task_handler = lambda *args, **options: _shielded(
            parent, make_handler(*args, **options), is_strict=is_strict
        )
        if is_strict:
            parent.on_decode_error = _drop

    def start(self, parent: Any) -> None:
        """Shield the transport. Celery calls this for every connection to the broker."""
        transport = parent.connection.transport
        if not hasattr(transport, "_deliver"):
            return  # a protocol of its own, whose driver makes the messages
        transport._deliver = _dropping(transport._deliver, (Exception,), (Empty, *parent.connection_errors))
        make_channel = transport.Channel
        for channel in transport.channels:
            _shield_channel(channel)
        transport.Channel = lambda *args, **options: _shield_channel(make_channel(*args, **options))


def _shield_channel(channel: Any) -> Any:
    """Shield where Redis's transport reads the text of a message, which has left the queue by then."""
    handlers = getattr(channel, "handlers", None)
    if isinstance(handlers, dict) and "BRPOP" in handlers:
        handlers["BRPOP"] = _dropping(handlers["BRPOP"], NO_JSON, (Empty,))
    return channel


def _dropping(
    receive: Callable[..., Any],
    faults: tuple[type[Exception], ...],
    errors: tuple[type[BaseException], ...],
) -> Callable[..., Any]:
    """Return `receive`, which drops a message that raises one of the faults. `errors` pass through."""

    def received(*args: Any, **options: Any) -> Any:
        try:
            return receive(*args, **options)
        except errors:
            raise
        except faults as error:
            if _is_of_the_machine(error):
                raise
            tell_of_misshapen(error)
            return True

    return received


def _is_of_the_machine(error: Exception) -> bool:
    """Return whether an error says nothing about the message. A time out of range is an `OSError`, too."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno != errno.EOVERFLOW)


def _shielded(consumer: Any, handle: Handle, *, is_strict: bool) -> Handle:
    """Return the handler of messages that drops a misshapen one."""
    tasks, errors = consumer.app.tasks, consumer.connection_errors

    def handled(message: Any) -> Any:
        try:
            fault = _fault_of(message, tasks, is_strict=is_strict)
            if fault is None:
                return handle(message)
        except errors:
            raise
        except Exception as error:
            if _is_of_the_machine(error):
                raise
            return _drop(message, error)
        return _drop(message, fault)

    return handled


def _fault_of(message: Any, tasks: Any, *, is_strict: bool) -> str | None:
    headers = message.headers
    if not is_strict and not (isinstance(headers, dict) and headers.get("task") in (EXECUTE, ENQUEUE)):
        return fault_that_ends_a_worker(headers) if isinstance(headers, dict) else None
    fault = fault_of(headers, message.properties or {}, tasks)
    return fault or fault_of_body(headers["task"], headers["id"], message.payload, tasks[headers["task"]])


def _drop(message: Any, fault: object) -> None:
    headers = message.headers
    tell_of_misshapen(fault, headers.get("id") if isinstance(headers, dict) else None)
    if not message.acknowledged:
        message.reject(requeue=False)
