"""Keeps Alembic's reports on its own work out of a worker's log."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# These loggers tell at INFO that Alembic is set up (when it is first imported), and which revisions it runs.
_TALKERS: Final = ("alembic.runtime.migration", "alembic.runtime.plugins")


@contextmanager
def quiet_alembic() -> Iterator[None]:
    """Drop what Alembic logs below WARNING in this thread, and nothing of another thread's."""
    thread = threading.get_ident()

    def is_worth_telling(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or threading.get_ident() != thread

    loggers = [logging.getLogger(name) for name in _TALKERS]
    for logger in loggers:
        logger.addFilter(is_worth_telling)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_worth_telling)
