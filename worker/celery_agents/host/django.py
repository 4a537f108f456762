"""Django's connections and caches in the threads of steps, closed as Celery's fixup does it for the task's thread."""

import sys
from contextlib import ExitStack


def close_connections() -> None:
    """Close what Django has opened in this thread: database connections, whatever CONN_MAX_AGE says, and caches.

    Do nothing in a process that does not use Django.
    """
    db, cache, conf = (sys.modules.get(f"django.{name}") for name in ("db", "core.cache", "conf"))
    if db is None or conf is None or not conf.settings.configured:
        return
    with ExitStack() as closing:  # calls all, whichever fails
        if cache is not None:
            closing.callback(cache.close_caches)
        for connection in db.connections.all(initialized_only=True):
            closing.callback(connection.close)
