"""A worker of Absurd's queue: `python -m benchmarks.executions.absurd_worker DATABASE_URL`."""

import sys
import time
from typing import Any

from absurd_sdk import Absurd

from benchmarks.executions.peers import POLL_SECONDS, QUEUE
from benchmarks.tasks import tell


def main() -> None:
    """Work until killed."""
    absurd: Any = Absurd(sys.argv[1], queue_name=QUEUE)

    @absurd.register_task("steps")  # type: ignore[untyped-decorator]
    def steps(params: list[int], context: Any) -> None:
        for number in range(params[0]):
            context.step(f"moment {number}", time.time)

    @absurd.register_task("stamp")  # type: ignore[untyped-decorator]
    def stamp(params: list[Any], context: Any) -> None:
        context.step("tell", lambda: tell(*params))

    absurd.start_worker(poll_interval=POLL_SECONDS)


if __name__ == "__main__":
    main()
