"""Queues that an app's broker cannot carry, refused before an execution is stored under them."""

from typing import Final

from celery import Celery

from agent_statestore.errors import InvalidRecord

# kombu's filesystem transport puts the name of the queue into that of each message's file, which other parts share.
_FILE_NAME_BYTES: Final = 255 - len("00000000000000000000_00000000-0000-0000-0000-000000000000..msg")

# AMQP gives the length of a name one byte.
_AMQP_NAME_BYTES: Final = 255


def check_queue(app: Celery, queue: str | None) -> None:
    """Raise `InvalidRecord` for a queue on which no bell could ever be rung. Nothing is connected to.

    None is the app's default queue.
    """
    if queue is None:
        return
    if not app.conf.task_create_missing_queues and queue not in app.amqp.queues:
        raise InvalidRecord("queue", f"{queue!r} is not in task_queues, and task_create_missing_queues is off")
    kind = _broker_of(app)
    size = len(queue.encode())
    if kind == "filesystem":
        if "/" in queue:
            raise InvalidRecord("queue", f"must not contain '/' on the filesystem broker: {queue!r}")
        if size > _FILE_NAME_BYTES:
            raise InvalidRecord("queue", f"has at most {_FILE_NAME_BYTES} bytes on the filesystem broker, not {size}")
    elif kind == "amqp" and size > _AMQP_NAME_BYTES:
        raise InvalidRecord("queue", f"has at most {_AMQP_NAME_BYTES} bytes on an AMQP broker, not {size}")


def _broker_of(app: Celery) -> str:
    """Return the kind of the app's broker, as its transport calls it."""
    with app.connection_for_write() as connection:
        return str(connection.get_transport_cls().driver_type)
