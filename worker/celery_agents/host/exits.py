"""Whether somebody outside has asked this process to end.

What a `SystemExit` in a step means depends on it: the end of the process, or a failure of the step's own code, such as
that of an argument parser.
"""

import sys

from billiard import common
from celery.exceptions import SoftTimeLimitExceeded, WorkerTerminate

# What Celery raises in a task from outside. A cold shutdown of solo raises `WorkerTerminate`, in some versions before
# its flag is set.
FROM_OUTSIDE: tuple[type[BaseException], ...] = (SoftTimeLimitExceeded, WorkerTerminate)


def is_exiting() -> bool:
    """Return whether a signal has ended this pool child, or the worker whose process this is shuts down."""
    # The handler of a child's signals sets this flag before it raises; billiard 4.2 has no function that tells it.
    if common._should_have_exited[0]:
        return True
    # A process that runs no worker has not imported it, and is not to: it would load the whole worker to enqueue.
    state = sys.modules.get("celery.worker.state")
    if state is None:
        return False
    return any(flag is not None and flag is not False for flag in (state.should_stop, state.should_terminate))
