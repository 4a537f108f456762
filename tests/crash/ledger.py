"""What step functions tell the outside: an append-only file of calls, and gates at which a step waits for the test.

Neither the store nor the broker is asked, so what they say can be held against it.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

FOLDER_VARIABLE: Final = "CRASH_TEST_FOLDER"
WORKER_VARIABLE: Final = "CRASH_TEST_WORKER"
STARTED: Final = "started"
RETURNED: Final = "returned"
_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A step function was entered, or is about to return. `at` is the wall clock in seconds."""

    event: str
    execution_id: str
    number: int
    attempt: int
    worker: str
    pid: int
    host: str
    at: float


class Ledger:
    """The rows of one test, written by all its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "ledger.jsonl"
        self._gates = folder / "gates"
        self._gates.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of_this_worker(cls) -> "Ledger":
        """The ledger that the test told this worker of."""
        return cls(Path(os.environ[FOLDER_VARIABLE]))

    def note(self, event: str, execution_id: str, number: int, attempt: int) -> None:
        """Appends a row. One `write` to a file opened for appending stays whole, and survives the writer's death."""
        row = Row(
            event=event,
            execution_id=execution_id,
            number=number,
            attempt=attempt,
            worker=os.environ.get(WORKER_VARIABLE, "?"),
            pid=os.getpid(),
            host=socket.gethostname(),
            at=time.time(),
        )
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, (json.dumps(asdict(row)) + "\n").encode())
        finally:
            os.close(descriptor)

    def rows(self, event: str | None = None, execution_id: str | None = None) -> Iterator[Row]:
        """The rows so far, oldest first."""
        if not self._path.exists():
            return
        for line in self._path.read_text().splitlines():
            row = Row(**json.loads(line))
            if event in (None, row.event) and execution_id in (None, row.execution_id):
                yield row

    def open_gate(self, execution_id: str, number: int) -> None:
        """Lets the step go on, now and in every later attempt."""
        self._gate(execution_id, number).touch()

    def wait_at_gate(self, execution_id: str, number: int) -> None:
        """Called by a step function: returns when the test has opened the gate."""
        while not self._gate(execution_id, number).exists():
            time.sleep(_POLL_SECONDS)

    def _gate(self, execution_id: str, number: int) -> Path:
        return self._gates / f"{execution_id}.{number}"
