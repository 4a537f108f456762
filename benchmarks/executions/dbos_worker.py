"""A worker of DBOS's queue: `python -m benchmarks.executions.dbos_worker DATABASE_URL`. `--prepare`: tables only."""

import os
import sys
import threading
import time
from typing import Any

from dbos import DBOS

from benchmarks.executions.peers import POLL_SECONDS, QUEUE
from benchmarks.tasks import tell


def launched(database_url: str) -> None:
    """Launch DBOS in this process."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": database_url,
            "log_level": "ERROR",
            "application_version": "1",
            "executor_id": str(os.getpid()),
        }
    )

    @DBOS.step(name="moment")  # type: ignore[untyped-decorator]
    def moment() -> float:
        return time.time()

    @DBOS.step(name="tell")  # type: ignore[untyped-decorator]
    def told(arguments: list[Any]) -> None:
        tell(*arguments)

    @DBOS.workflow(name="steps")  # type: ignore[untyped-decorator]
    def steps(count: int) -> None:
        for _ in range(count):
            moment()

    @DBOS.workflow(name="stamp")  # type: ignore[untyped-decorator]
    def stamp(*arguments: Any) -> None:
        told(list(arguments))

    DBOS.launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=POLL_SECONDS)


if __name__ == "__main__":
    launched(sys.argv[1])
    if "--prepare" in sys.argv:
        DBOS.destroy()
    else:
        threading.Event().wait()
