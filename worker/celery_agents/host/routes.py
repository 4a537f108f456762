"""Where bells go: the app's `task_routes` by the agent's name. Queues that its broker cannot carry are refused."""

from collections.abc import Mapping
from typing import Any, Final

from celery import Celery
from celery.utils.collections import lpmerge

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


class AgentsRouter:
    """Celery's router, which asks the app's `task_routes` for `agents.execute.<agent>` beside the task's own name.

    A queue that the execution or its agent names comes first. Then comes a route that names the agent, then the queue
    of the settings, then a route for all agents (`agents.execute`, or a pattern that matches it too).
    """

    def __init__(self, app: Celery, agent_id: str, default_queue: str | None) -> None:
        self._app = app
        self._agent_id = agent_id
        self._default_queue = default_queue

    def route(
        self,
        options: dict[str, Any],
        name: str,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
        task_type: Any = None,
    ) -> Mapping[str, Any]:
        """Return the options of a message with what its route adds; Celery calls this."""
        router = self._app.amqp.router
        options = router.expand_destination(options)
        general, own = (
            router.lookup_route(one, args, kwargs or {}, options, task_type)
            for one in (name, f"{name}.{self._agent_id}")
        )
        route = general
        if own is not None and own != general:
            route = own
        elif self._default_queue:
            route = {**_as_options(general), "queue": self._default_queue}
        if route:
            options = lpmerge(router.expand_destination(route), options)
        if "queue" not in options:
            options = lpmerge(router.expand_destination(self._app.conf.task_default_queue), options)
        return options


def _as_options(route: Any) -> Mapping[str, Any]:
    """Return a route as options: a queue's name alone is one, too."""
    if route is None:
        return {}
    return {"queue": route} if isinstance(route, str) else route
