"""An agent that writes to a table of its own, and the places at which it dies. Imported by a worker, which it watches.

The worker's process kills itself at the place that the input names, in its first attempt.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final
from uuid import uuid4

import pydantic
from sqlalchemy import Connection, Engine, create_engine, event, text

from agent_statestore import Checkpoint, Checkpointed, Lease
from agent_statestore.checkpoint import StepTransaction
from agent_statestore.sql import SQLStore
from celery_agents import Run, agent
from tests.crash.ledger import FOLDER_VARIABLE, STARTED, Ledger
from tests.crash.patching import put

# Nothing in it keeps a second row of an execution out.
TABLE: Final = "CREATE TABLE bookings (execution_id varchar(36) NOT NULL, token varchar(32) NOT NULL)"
COMMITTED_APART: Final = "after a commit of its own"


class Place(StrEnum):
    """Where to die, in the order in which an execution comes there."""

    BEFORE_INSERT = "before the insert"
    AFTER_INSERT = "after the insert"
    BEFORE_CHECKPOINT = "before the checkpoint"
    BEFORE_COMMIT = "between checkpoint and commit"
    AFTER_COMMIT = "after the commit"
    BEFORE_NEXT_STEP = "before the next step"


class Booking(pydantic.BaseModel):
    """The input.

    After the insert the step takes `seconds`, and with `hold` waits for the test. `apart`: it is not in one transaction
    with the checkpoint.
    """

    place: str | None = None
    seconds: float = 0.0
    hold: bool = False
    apart: bool = False


@agent(name="crash.book", max_attempts=50)
def book(run: Run, input: Booking) -> str:
    """Writes one row, and then takes a step that does nothing."""
    _here.place = input.place if run.attempt == 1 else None
    _here.execution_id, _here.attempt = run.execution_id, run.attempt
    token = run.step("book", insert_apart, input) if input.apart else run.transaction("book", insert, input)
    die_at(Place.BEFORE_NEXT_STEP)
    run.step("rest", rest)
    return token


def insert(connection: Connection, booking: Booking) -> str:
    """The step function: its result is what it wrote, and differs from call to call."""
    ledger = Ledger.of_this_worker()
    ledger.note(STARTED, _here.execution_id, 1, _here.attempt)
    token = uuid4().hex
    die_at(Place.BEFORE_INSERT)
    connection.execute(text("INSERT INTO bookings VALUES (:id, :token)"), {"id": _here.execution_id, "token": token})
    die_at(Place.AFTER_INSERT)
    time.sleep(booking.seconds)
    if booking.hold:
        ledger.wait_at_gate(_here.execution_id, 1)
    return token


def insert_apart(booking: Booking) -> str:
    """The same with a connection of its own, as it must not be done: the row is there before it is recorded."""
    engine = create_engine(os.environ["AGENTS_STORE_URL"])
    with engine.begin() as connection:
        token = insert(connection, booking)
    engine.dispose()
    die_at(COMMITTED_APART)
    return token


def rest() -> None:
    """Nothing."""


def die_at(place: str) -> None:
    """Ends this process without any warning, if this is the place; the ledger then knows."""
    if getattr(_here, "place", None) == place:
        Ledger.of_this_worker().note(place, _here.execution_id, 1, _here.attempt)
        os.kill(os.getpid(), signal.SIGKILL)


_here = threading.local()
_open = SQLStore.transaction


class _Watched:
    """The transaction of a step, with the places around its checkpoint."""

    def __init__(self, opened: StepTransaction) -> None:
        self._opened = opened

    @property
    def connection(self) -> Any:
        return self._opened.connection

    @property
    def was_applied(self) -> bool:
        return self._opened.was_applied

    def checkpoint(self, checkpoint: Checkpoint) -> Checkpointed:
        die_at(Place.BEFORE_CHECKPOINT)
        _here.commits = True
        applied = self._opened.checkpoint(checkpoint)
        _here.commits = False
        die_at(Place.AFTER_COMMIT)
        return applied


@contextmanager
def _transaction(self: SQLStore, execution_id: str, lease: Lease) -> Iterator[StepTransaction]:
    with _open(self, execution_id, lease) as opened:
        yield _Watched(opened)


def _before_commit(connection: Connection) -> None:
    """Called by SQLAlchemy when everything is written and nothing is committed."""
    del connection
    if getattr(_here, "commits", False):
        die_at(Place.BEFORE_COMMIT)


if FOLDER_VARIABLE in os.environ:  # in a worker: the test's own process uses the store as it is
    put(SQLStore, "transaction", _transaction)
    event.listen(Engine, "commit", _before_commit)
