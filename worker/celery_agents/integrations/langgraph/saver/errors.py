"""The error of a saver's own; for the tree of all see `celery_agents.errors`."""

from celery_agents.errors import AgentsError


class ThreadChanged(AgentsError):
    """A thread no longer ends where this execution has read it, so that its write would hide another.

    `read` is the id of the checkpoint that was the last one then, and `found` that of now; None for none.
    """

    def __init__(self, thread_id: str, read: str | None, found: str | None) -> None:
        super().__init__(thread_id, read, found)
        self.thread_id = thread_id
        self.read = read
        self.found = found

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} was written to since this execution has read it: its last checkpoint was "
            f"{self.read}, and is {self.found}"
        )
