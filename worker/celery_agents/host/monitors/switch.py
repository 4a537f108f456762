"""Whether monitors want to hear of tasks: Celery's own switch, known to the processes of a worker's pool as well."""

import mmap
from typing import Any


class MonitorSwitch:
    """Celery's switch for the events of tasks: `-E`, `worker_send_task_events`, `enable_events`, `disable_events`.

    Flower enables them in all workers while it runs. Only the parent process of a worker knows, because the last two
    are remote commands. It writes one byte into memory that it shares with the children that it forks.
    """

    def __init__(self) -> None:
        self._shared: mmap.mmap | None = None

    def share(self) -> None:
        """Share the switch with all processes that this one will fork; call it before the first fork."""
        if self._shared is None:
            self._shared = mmap.mmap(-1, 1)
            self._shared[0] = True

    @property
    def is_on(self) -> bool:
        """Whether events are sent. They are in a process that belongs to no worker, such as one that runs tests."""
        return self._shared is None or bool(self._shared[0])

    def take_over(self, dispatcher: Any) -> None:
        """Take over what the dispatcher of a worker's consumer says; None while there is no connection."""
        if self._shared is not None and dispatcher is not None:
            groups = dispatcher.groups  # none stands for all
            self._shared[0] = dispatcher.enabled and (not groups or "task" in groups)
