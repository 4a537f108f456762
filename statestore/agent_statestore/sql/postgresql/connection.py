"""Connections to PostgreSQL that do not wait for ever for a server that says nothing."""

import time
from collections.abc import Generator
from typing import Any, Final

import psycopg
from psycopg.waiting import READY_NONE

# What libpq does about a network that swallows packets; by default it would take the kernel's quarter of an hour to
# notice. What the URL says counts.
_NETWORK: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class LimitedConnection(psycopg.Connection[Any]):
    """A connection that is given up when a statement is not answered in time.

    Neither libpq nor the network notices a server that is frozen: its kernel still confirms what it is sent.
    """

    answer_seconds: float | None = None

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """See psycopg. Raises `psycopg.OperationalError`, and closes the connection, after `answer_seconds`."""
        if self.answer_seconds is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(_limited(gen, self.answer_seconds), *args, **kwargs)
        except _NoAnswer:
            # The answer may still come, and would be taken for that of the next statement.
            self.pgconn.finish()
            raise


class _NoAnswer(psycopg.OperationalError):
    """The server did not answer in time."""


def connect(answer_seconds: float | None, *args: Any, **kwargs: Any) -> LimitedConnection:
    """Opens a connection whose statements have to be answered within `answer_seconds` (None: at some time)."""
    connection = LimitedConnection.connect(*args, **{**_NETWORK, **kwargs})
    connection.answer_seconds = answer_seconds
    return connection


def _limited(gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """The same generator, which psycopg resumes some times a second although nothing has arrived."""
    give_up_at = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready == READY_NONE and time.monotonic() >= give_up_at:
                raise _NoAnswer(f"the server did not answer within {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as finished:
        return finished.value
    finally:
        gen.close()
